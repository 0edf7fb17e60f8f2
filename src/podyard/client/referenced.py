"""ConfigMaps, Secrets and claims that Pods of this node refer to, watched one by one.

A node may read only what its Pods name, so each object has a watch of its own
(``metadata.name=…``), shared by all Pods that refer to it and kept a little longer
than the last of them. Reads come from that watch; only the first one, and one that
would say "not there", ask the API itself.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import field
from typing import Final, TypeAlias

from podyard.api.core_v1 import Container, Pod
from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import (
    CONFIG_MAP,
    PERSISTENT_VOLUME_CLAIM,
    SECRET,
    SERVICE_ACCOUNT,
    Kind,
)
from podyard.client.informer import Informer
from podyard.client.services import ApiClient, ApiUnreachableError
from podyard.lib.values import dataclass

#: How long a watch outlives its last Pod, seconds; the next Pod is often near.
LINGER_S: Final = 60.0

#: One object: kind, namespace, name.
ObjectKey: TypeAlias = tuple[Kind, str, str]


class ReferencedObjectError(Exception):
    """An object could not be read; whether it exists is not known.

    Attributes:
        message: what a container waiting for it may show.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def pod_references(pod: Pod) -> frozenset[ObjectKey]:
    """Return every ConfigMap, Secret and claim a Pod names, needed or optional."""
    found: set[ObjectKey] = set()
    namespace = pod.namespace
    for name in pod.spec.image_pull_secrets:
        found.add((SECRET, namespace, name))
    for container in pod.all_containers():
        found.update((kind, namespace, name) for kind, name in _of_env(container))
    for volume in pod.spec.volumes:
        refs = _of_volume(volume.source, volume.spec)
        found.update((kind, namespace, name) for kind, name in refs)
        if volume.source == "ephemeral":
            claim = f"{pod.name}-{volume.name}"
            found.add((PERSISTENT_VOLUME_CLAIM, namespace, claim))
    return frozenset(key for key in found if key[2])


def _of_env(container: Container) -> Iterator[tuple[Kind, str]]:
    for source in container.env_from:
        yield CONFIG_MAP, (source.get("configMapRef") or {}).get("name", "")
        yield SECRET, (source.get("secretRef") or {}).get("name", "")
    for variable in container.env:
        value_from = variable.get("valueFrom") or {}
        yield CONFIG_MAP, (value_from.get("configMapKeyRef") or {}).get("name", "")
        yield SECRET, (value_from.get("secretKeyRef") or {}).get("name", "")


def _of_volume(source: str, spec: Document) -> Iterator[tuple[Kind, str]]:
    if source == "configMap":
        yield CONFIG_MAP, spec.get("name", "")
    elif source == "secret":
        yield SECRET, spec.get("secretName", "")
    elif source == "persistentVolumeClaim":
        yield PERSISTENT_VOLUME_CLAIM, spec.get("claimName", "")
    elif source == "projected":
        for projection in spec.get("sources") or ():
            yield CONFIG_MAP, (projection.get("configMap") or {}).get("name", "")
            yield SECRET, (projection.get("secret") or {}).get("name", "")


@dataclass(slots=True, eq=False)
class _Watched:
    key: ObjectKey
    informer: Informer
    holders: set[str] = field(default_factory=set)
    task: asyncio.Task[None] | None = None


class ReferencedObjects:
    """The objects Pods refer to, by reference count.

    Reads work at any time; watches run while :meth:`run` does.
    """

    def __init__(
        self, client: ApiClient, *, linger_s: float = LINGER_S, accounts: bool = False
    ) -> None:
        """Follow what Pods of a node refer to.

        Args:
            client: the API.
            linger_s: how long a watch outlives its last Pod.
            accounts: follow the Pods' ServiceAccounts too; few nodes need that.
        """
        self._accounts = accounts
        self._client = client
        self._linger_s = linger_s
        self._watched: dict[ObjectKey, _Watched] = {}
        self._by_pod: dict[str, frozenset[ObjectKey]] = {}
        self._listeners: list[Callable[[Kind, str, str], None]] = []
        self._group: asyncio.TaskGroup | None = None

    def register_pod(self, pod: Pod) -> None:
        """Watch what this Pod refers to; a newer object of it replaces the older."""
        if pod.is_static:
            return
        wanted = pod_references(pod)
        if self._accounts and pod.spec.service_account_name:
            name = pod.spec.service_account_name
            wanted |= {(SERVICE_ACCOUNT, pod.namespace, name)}
        before = self._by_pod.get(pod.uid, frozenset())
        if wanted == before:
            return
        self._by_pod[pod.uid] = wanted
        for key in wanted - before:
            watched = self._watched.get(key) or self._add(key)
            watched.holders.add(pod.uid)
            self._start(watched)
        for key in before - wanted:
            self._release(key, pod.uid)

    def unregister_pod(self, uid: str) -> None:
        """Forget a Pod; objects nobody refers to are let go after a while."""
        for key in self._by_pod.pop(uid, frozenset()):
            self._release(key, uid)

    def pods_of(self, kind: Kind, namespace: str, name: str) -> frozenset[str]:
        """Return the uids of registered Pods that refer to an object."""
        watched = self._watched.get((kind, namespace, name))
        return frozenset(watched.holders) if watched else frozenset()

    def on_change(self, listener: Callable[[Kind, str, str], None]) -> None:
        """Have ``listener(kind, namespace, name)`` called after each change."""
        self._listeners.append(listener)

    async def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Return an object, or ``None`` where it does not exist.

        Raises:
            ReferencedObjectError: the API could not be asked and nothing is cached.
        """
        watched = self._watched.get((kind, namespace, name))
        if watched is not None and watched.informer.is_synced:
            known = watched.informer.get(namespace, name)
            if known is not None:
                return known
        return await self._read(kind, namespace, name)

    async def run(self) -> None:
        """Keep the watches going until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for watched in self._watched.values():
                    self._start(watched)
                await asyncio.Event().wait()
            finally:
                self._group = None
                for watched in self._watched.values():
                    watched.task = None

    def statistics(self) -> tuple[int, int]:
        """Return how many Pods are registered and how many objects are watched."""
        return len(self._by_pod), len(self._watched)

    async def _read(self, kind: Kind, namespace: str, name: str) -> Document | None:
        try:
            return await self._client.get(kind, name, namespace)
        except ApiError as error:
            if error.code == 404:
                return None
            raise ReferencedObjectError(error.message) from error
        except ApiUnreachableError as error:
            raise ReferencedObjectError(
                f"failed to sync {kind.singular} cache: {error}"
            ) from error

    def _add(self, key: ObjectKey) -> _Watched:
        kind, namespace, name = key

        def tell(_old: Document | None, _new: Document | None) -> None:
            # The first list is no change: whoever reads now reads just that.
            if informer.is_synced:
                for listener in self._listeners:
                    listener(kind, namespace, name)

        informer = Informer(
            self._client,
            kind,
            namespace=namespace,
            field_selector=f"metadata.name={name}",
            on_change=tell,
        )
        watched = self._watched[key] = _Watched(key, informer)
        return watched

    def _start(self, watched: _Watched) -> None:
        if self._group is None or watched.task is not None:
            return
        kind, namespace, name = watched.key
        watched.task = self._group.create_task(
            watched.informer.run(), name=f"watch {kind.resource} {namespace}/{name}"
        )

    def _release(self, key: ObjectKey, uid: str) -> None:
        watched = self._watched.get(key)
        if watched is None:
            return
        watched.holders.discard(uid)
        if not watched.holders:
            loop = asyncio.get_running_loop()
            loop.call_later(self._linger_s, self._drop, watched)

    def _drop(self, watched: _Watched) -> None:
        if watched.holders or self._watched.get(watched.key) is not watched:
            return
        del self._watched[watched.key]
        if watched.task is not None:
            watched.task.cancel()
