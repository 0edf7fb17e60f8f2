"""Every Namespace has a ``default`` ServiceAccount and the authority's certificate.

Source: kubernetes ``pkg/controller/serviceaccount`` and
``pkg/controller/certificates/rootcacertpublisher`` (v1.36).
"""

from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import CONFIG_MAP, NAMESPACE, SERVICE_ACCOUNT, Kind
from podyard.controllers.parts import Controller, ControllerContext, Running
from podyard.controllers.queue import WorkQueue

ACCOUNT: Final = "default"
ROOT_CA: Final = "kube-root-ca.crt"
_DESCRIPTION: Final = (
    "The certificate authority to verify the API server with inside this cluster, by "
    "its Service. Kept by Podyard; changes are undone."
)


class ServiceAccountController:
    """Keeps what a Namespace needs for its Pods.

    Args:
        context: what controllers are made with.
    """

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client
        self._caches = context.caches
        self._ca_pem = context.ca_pem
        self._queue: WorkQueue[str] = WorkQueue("service-account")

    def on_change(self, kind: Kind, old: Document | None, new: Document | None) -> None:
        """Hear of a Namespace, or of a change of what it needs."""
        document = new or old
        assert document is not None
        metadata = document["metadata"]
        if kind is NAMESPACE:
            if old is None:
                self._queue.add(str(metadata["name"]))
        elif (kind is SERVICE_ACCOUNT and metadata["name"] == ACCOUNT) or (
            kind is CONFIG_MAP and metadata["name"] == ROOT_CA
        ):
            self._queue.add(str(metadata["namespace"]))

    async def run(self) -> None:
        """Work for ever."""
        await self._queue.work(self._sync, workers=4)

    async def _sync(self, namespace: str) -> float | None:
        present = self._caches.get(NAMESPACE, "", namespace)
        if present is None or present["metadata"].get("deletionTimestamp"):
            return None
        if self._caches.get(SERVICE_ACCOUNT, namespace, ACCOUNT) is None:
            await self._create(SERVICE_ACCOUNT, ACCOUNT, namespace, {})
        bundle = self._caches.get(CONFIG_MAP, namespace, ROOT_CA)
        data = {"ca.crt": self._ca_pem}
        if bundle is None:
            await self._create(CONFIG_MAP, ROOT_CA, namespace, {"data": data})
        elif bundle.get("data") != data or bundle.get("binaryData"):
            changed = {key: v for key, v in bundle.items() if key != "binaryData"}
            await self._client.update(CONFIG_MAP, {**changed, "data": data})
        return None

    async def _create(
        self, kind: Kind, name: str, namespace: str, content: Document
    ) -> None:
        metadata: Document = {"name": name, "namespace": namespace}
        if kind is CONFIG_MAP:
            metadata["annotations"] = {"kubernetes.io/description": _DESCRIPTION}
        document = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": metadata,
            **content,
        }
        try:
            await self._client.create(kind, document)
        except ApiError as error:
            if error.reason == "AlreadyExists" or error.code in {403, 404}:
                # Somebody was faster, or the Namespace is going or gone: either is
                # heard of as a change.
                return
            raise


def make(context: ControllerContext) -> Running:
    """Return the controller."""
    return ServiceAccountController(context)


PART: Final = Controller(
    name="service-account",
    watches=(NAMESPACE, SERVICE_ACCOUNT, CONFIG_MAP),
    make=make,
)
