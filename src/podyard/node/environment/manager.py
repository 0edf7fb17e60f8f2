"""Variables of a container: look everything up, then build."""

import asyncio
import errno
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol

from podyard.api.core_v1 import Container, Pod
from podyard.api.documents import Document
from podyard.api.runtime import EnvVar
from podyard.api.scheme import CONFIG_MAP, SECRET, Kind
from podyard.client.referenced import ReferencedObjectError
from podyard.lib.linux import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from podyard.node.environment.build import (
    EnvironmentSources,
    Source,
    SourceError,
    build_environment,
    find_references,
)
from podyard.node.environment.explain import Origin, explain_environment

#: The most that is read of an env file, bytes.
MAX_ENV_FILE_BYTES: Final = 1 << 20


class ObjectReader(Protocol):
    """Reads what Pods refer to (``client/referenced``)."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Return an object, or ``None`` where it does not exist.

        Raises:
            ReferencedObjectError: it could not be read.
        """


class EnvironmentManager:
    """Builds variables from what the API and the node say at this moment.

    Args:
        objects: reads ConfigMaps and Secrets.
        services: returns every Service known, or ``None`` before they have been
            read once; an informer's cache.
        empty_dir: returns where a Pod's emptyDir is on the node, for env files.
    """

    def __init__(
        self,
        objects: ObjectReader,
        services: Callable[[], Iterable[Document] | None],
        empty_dir: Callable[[str, str], Path],
    ) -> None:
        self._objects = objects
        self._services = services
        self._empty_dir = empty_dir

    async def build(
        self,
        pod: Pod,
        container: Container,
        *,
        pod_ips: tuple[str, ...],
        host_ips: tuple[str, ...],
        node_allocatable: Mapping[str, str],
    ) -> tuple[EnvVar, ...]:
        """Return all variables the runtime is given.

        Raises:
            EnvironmentBuildError: a source is missing.
        """
        sources = await self._look_up(
            pod,
            container,
            pod_ips=pod_ips,
            host_ips=host_ips,
            node_allocatable=node_allocatable,
        )
        return build_environment(pod, container, sources)

    async def explain(
        self,
        pod: Pod,
        container: Container,
        *,
        image: Iterable[str],
        pod_ips: tuple[str, ...],
        host_ips: tuple[str, ...],
        node_allocatable: Mapping[str, str],
    ) -> tuple[Origin, ...]:
        """Return where each variable comes from, as it would be built now.

        Args:
            pod: the Pod.
            container: the container.
            image: the image's own variables, ``NAME=value``.
            pod_ips: the Pod's addresses.
            host_ips: the node's.
            node_allocatable: stands in for limits that are not set.
        """
        sources = await self._look_up(
            pod,
            container,
            pod_ips=pod_ips,
            host_ips=host_ips,
            node_allocatable=node_allocatable,
        )
        return explain_environment(pod, container, sources, image=image)

    async def _look_up(
        self,
        pod: Pod,
        container: Container,
        *,
        pod_ips: tuple[str, ...],
        host_ips: tuple[str, ...],
        node_allocatable: Mapping[str, str],
    ) -> EnvironmentSources:
        references = find_references(container)
        services = self._services()
        if services is None and pod.is_static:
            services = ()
        files = {
            (volume, path): await self._read_file(pod, volume, path)
            for volume, path in references.files
        }
        return EnvironmentSources(
            services=services,
            config_maps=await self._read(pod, CONFIG_MAP, references.config_maps),
            secrets=await self._read(pod, SECRET, references.secrets),
            files=files,
            pod_ips=pod_ips,
            host_ips=host_ips,
            node_allocatable=node_allocatable,
        )

    async def _read(
        self, pod: Pod, kind: Kind, names: tuple[str, ...]
    ) -> dict[str, Source]:
        found: dict[str, Source] = {}
        for name in names:
            if pod.is_static:
                continue  # refused by the builder, with its own words
            try:
                found[name] = await self._objects.get(kind, pod.namespace, name)
            except ReferencedObjectError as error:
                found[name] = SourceError(error.message)
        return found

    async def _read_file(self, pod: Pod, volume: str, path: str) -> str | SourceError:
        root = self._empty_dir(pod.uid, volume)
        try:
            return await asyncio.to_thread(_read_below, root, path)
        except OSError as error:
            return SourceError(error.strerror or "unreadable")


def _read_below(root: Path, path: str) -> str:
    """Read a file that a container wrote, without leaving its volume."""
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = openat2(
            directory,
            path,
            os.O_RDONLY | os.O_NONBLOCK,
            RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
        )
    finally:
        os.close(directory)
    with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        raw = file.read(MAX_ENV_FILE_BYTES)
    return raw.decode("utf-8", "surrogateescape")
