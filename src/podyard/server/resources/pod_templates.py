"""PodTemplates."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import POD_TEMPLATE
from podyard.server import table
from podyard.server.resource import Cell, Column, Resource, Strategy


def _cells(document: Document, _: datetime) -> Sequence[Cell]:
    template = document.get("template") or {}
    names, images = table.containers_and_images(template.get("spec"))
    labels = table.show_labels(table.metadata(template).get("labels"))
    return table.name(document), names, images, labels


PART: Final = Resource(
    POD_TEMPLATE,
    columns=(
        table.NAME_COLUMN,
        Column("Containers"),
        Column("Images"),
        Column("Pod Labels"),
    ),
    cells=_cells,
    strategy=Strategy(has_generation=True, returns_deleted=True),
)
