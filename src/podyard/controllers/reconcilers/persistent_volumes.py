"""Claims get volumes, and both stay until nobody needs them.

Volumes that are there are given out first; where a claim's class asks for the
built-in provisioner, one is made in a directory of the node its Pod goes to. A
volume is released with its claim, and then kept or removed as it says.

Source: kubernetes ``pkg/controller/volume/{persistentvolume,pvcprotection,
pvprotection,ephemeral}`` (v1.36).
"""

from typing import Final, Literal

import structlog

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import (
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    STORAGE_CLASS,
    Kind,
)
from podyard.api.storage import (
    BIND_COMPLETED,
    CLAIM_PROTECTION,
    DATA_FINALIZER,
    NO_PROVISIONER,
    PROVISIONER,
    SELECTED_NODE,
    STORAGE_PROVISIONER,
    VOLUME_PROTECTION,
    claims_of,
    class_of,
    find_volume,
    is_claimed_by,
    waits_for_consumer,
)
from podyard.client.events import subject_of
from podyard.controllers.local_path import (
    Refused,
    build_bound_status,
    build_claim_binding,
    build_ephemeral_claim,
    build_reference,
    build_volume,
    choose_node,
    is_ours,
)
from podyard.controllers.parts import Controller, ControllerContext, Running
from podyard.controllers.queue import WorkQueue

log = structlog.get_logger()

#: The source of its Events.
COMPONENT: Final = "persistentvolume-controller"
#: A claim that waits for something nobody tells of is looked at again, seconds.
_AGAIN_S: Final = 15.0
_FINISHED: Final = frozenset({"Succeeded", "Failed"})
_NO_VOLUME: Final = (
    "no persistent volumes available for this claim and no storage class is set"
)
_ELSEWHERE: Final = (
    "Waiting for a volume to be created either by the external provisioner '{}' or "
    "manually by the system administrator. If volume creation is delayed, please "
    "verify that the provisioner is running and correctly registered."
)

#: The kind, the namespace and the name.
_Key = tuple[Kind, str, str]


class PersistentVolumeController:
    """Binds, makes, releases and protects volumes.

    Args:
        context: what controllers are made with.
    """

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client
        self._caches = context.caches
        self._recorder = context.recorder(COMPONENT)
        self._queue: WorkQueue[_Key] = WorkQueue("persistent-volumes")
        self._told: dict[str, str] = {}

    # ── what is heard ───────────────────────────────────────────────────────────

    def on_change(self, kind: Kind, old: Document | None, new: Document | None) -> None:
        """Hear of a claim, a volume, or of what either waits for."""
        document = new or old
        assert document is not None
        if kind is PERSISTENT_VOLUME_CLAIM:
            if new is None:
                self._told.pop(str(document["metadata"]["uid"]), None)
            self._queue.add(_claim_key(document))
            self._add_volumes_of(document)
        elif kind is PERSISTENT_VOLUME:
            self._queue.add((PERSISTENT_VOLUME, "", str(document["metadata"]["name"])))
            self._add_claims_for(document)
        elif kind is POD:
            self._hear_of_pod(old, new)
        elif kind is STORAGE_CLASS or (kind is NODE and (old is None or new is None)):
            self._add_waiting()

    def _add_volumes_of(self, claim: Document) -> None:
        name = (claim.get("spec") or {}).get("volumeName")
        names = {str(name)} if name else set()
        names.add(f"pvc-{claim['metadata']['uid']}")
        for one in names:
            self._queue.add((PERSISTENT_VOLUME, "", one))

    def _add_claims_for(self, volume: Document) -> None:
        reference = (volume.get("spec") or {}).get("claimRef")
        if reference:
            namespace, name = reference.get("namespace"), reference.get("name")
            self._queue.add((PERSISTENT_VOLUME_CLAIM, str(namespace), str(name)))
        else:
            self._add_waiting()

    def _add_waiting(self) -> None:
        for claim in self._caches.items(PERSISTENT_VOLUME_CLAIM):
            if (claim.get("status") or {}).get("phase") != "Bound":
                self._queue.add(_claim_key(claim))

    def _hear_of_pod(self, old: Document | None, new: Document | None) -> None:
        if old is not None and new is not None and _place(old) == _place(new):
            return
        pod = new or old
        assert pod is not None
        namespace = str(pod["metadata"]["namespace"])
        claims = claims_of(pod)
        for name in claims:
            self._queue.add((PERSISTENT_VOLUME_CLAIM, namespace, name))
        if claims and new is not None:
            self._queue.add((POD, namespace, str(pod["metadata"]["name"])))

    async def run(self) -> None:
        """Work for ever."""
        await self._queue.work(self._sync)

    async def _sync(self, key: _Key) -> float | None:
        kind, namespace, name = key
        document = self._caches.get(kind, namespace, name)
        if document is None:
            return None
        try:
            if kind is POD:
                return await self._sync_pod(document)
            if kind is PERSISTENT_VOLUME:
                return await self._sync_volume(document)
            return await self._sync_claim(document)
        except ApiError as error:
            if error.code == 404:
                return None  # it went meanwhile, which is heard of
            raise

    # ── Pods ────────────────────────────────────────────────────────────────────

    async def _sync_pod(self, pod: Document) -> float | None:
        """Make the claims of ephemeral volumes."""
        metadata = pod["metadata"]
        if metadata.get("deletionTimestamp"):
            return None
        for volume in (pod.get("spec") or {}).get("volumes") or ():
            if volume.get("ephemeral") is None:
                continue
            claim = build_ephemeral_claim(pod, volume)
            name, namespace = claim["metadata"]["name"], metadata["namespace"]
            if self._caches.get(PERSISTENT_VOLUME_CLAIM, namespace, name) is None:
                await self._create(PERSISTENT_VOLUME_CLAIM, claim)
        return None

    # ── claims ──────────────────────────────────────────────────────────────────

    async def _sync_claim(self, claim: Document) -> float | None:
        metadata = claim["metadata"]
        if metadata.get("deletionTimestamp"):
            if not self._users(claim, running=True):
                await self._drop_finalizer(
                    PERSISTENT_VOLUME_CLAIM, claim, CLAIM_PROTECTION
                )
            return None
        wanted = (claim.get("spec") or {}).get("volumeName")
        if wanted:
            return await self._sync_chosen(claim, str(wanted))
        return await self._sync_unbound(claim)

    async def _sync_chosen(self, claim: Document, name: str) -> float | None:
        """Look after a claim that names its volume."""
        annotations = claim["metadata"].get("annotations") or {}
        was_bound = BIND_COMPLETED in annotations
        volume = self._caches.get(PERSISTENT_VOLUME, "", name)
        if volume is None and was_bound and await self._is_absent(name):
            await self._lose(
                claim,
                "ClaimLost",
                "Bound claim has lost its PersistentVolume. Data on the volume is "
                "lost!",
            )
        elif volume is None:
            return _AGAIN_S
        elif (volume.get("spec") or {}).get("claimRef") is None or is_claimed_by(
            volume, claim
        ):
            await self._bind(claim, volume)
        elif was_bound:
            await self._lose(
                claim,
                "ClaimMisbound",
                "Two claims are bound to the same volume, this one is bound "
                "incorrectly",
            )
        else:
            text = f'volume "{name}" already bound to a different claim.'
            self._tell(claim, "Warning", "FailedBinding", text)
        return None

    async def _sync_unbound(self, claim: Document) -> float | None:
        volumes = self._caches.items(PERSISTENT_VOLUME)
        storage_class = self._class_of(claim)
        node: Document | None = None
        if waits_for_consumer(storage_class):
            kept = [one for one in volumes if (one.get("spec") or {}).get("claimRef")]
            volume = find_volume(claim, kept)
            if volume is not None:
                await self._bind(claim, volume)
                return None
            annotations = claim["metadata"].get("annotations") or {}
            selected = annotations.get(SELECTED_NODE)
            if not selected:
                self._wait_for_consumer(claim)
                return None
            node = self._caches.get(NODE, "", str(selected))
            if node is None:  # it went: the scheduler has to choose again
                await self._unselect(claim)
                return None
        volume = find_volume(claim, volumes, node)
        if volume is not None:
            await self._bind(claim, volume)
            return None
        return await self._sync_unmade(claim, storage_class, node)

    def _class_of(self, claim: Document) -> Document | None:
        name = class_of(claim)
        return self._caches.get(STORAGE_CLASS, "", name) if name else None

    def _wait_for_consumer(self, claim: Document) -> None:
        pods = sorted(self._users(claim, running=False))
        if pods:
            reason, verb = "WaitForPodScheduled", "waiting for pod {} to be scheduled"
            self._tell(claim, "Normal", reason, verb.format(pods[0]))
            return
        self._tell(
            claim,
            "Normal",
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
        )

    async def _sync_unmade(
        self, claim: Document, storage_class: Document | None, node: Document | None
    ) -> float | None:
        """Make a volume for a claim that no present one suits."""
        name = class_of(claim)
        if not name:
            self._tell(claim, "Normal", "FailedBinding", _NO_VOLUME)
            return None
        if storage_class is None:
            text = f'storageclass.storage.k8s.io "{name}" not found'
            self._tell(claim, "Warning", "ProvisioningFailed", text)
            return None
        provisioner = str(storage_class.get("provisioner") or "")
        if provisioner == PROVISIONER:
            return await self._provision(claim, storage_class, node)
        if provisioner != NO_PROVISIONER:
            await self._name_provisioner(claim, provisioner)
        text = _ELSEWHERE.format(provisioner)
        self._tell(claim, "Normal", "ExternalProvisioning", text)
        return None

    async def _name_provisioner(self, claim: Document, provisioner: str) -> None:
        """Tell an external provisioner that the claim is its own to serve."""
        metadata = claim["metadata"]
        present = (metadata.get("annotations") or {}).get(STORAGE_PROVISIONER)
        if present != provisioner:
            await self._client.patch(
                PERSISTENT_VOLUME_CLAIM,
                metadata["name"],
                {"metadata": {"annotations": {STORAGE_PROVISIONER: provisioner}}},
                metadata["namespace"],
            )

    async def _provision(
        self, claim: Document, storage_class: Document, node: Document | None
    ) -> float | None:
        node = node or choose_node(self._caches.items(NODE))
        failed = f'failed to provision volume with StorageClass "{class_of(claim)}": '
        if node is None:
            text = f"{failed}no node is ready to keep it"
            self._tell(claim, "Warning", "ProvisioningFailed", text)
            return _AGAIN_S
        volume = build_volume(claim, storage_class, node)
        if isinstance(volume, Refused):
            text = f"{failed}{volume.message}"
            self._tell(claim, "Warning", "ProvisioningFailed", text)
            return None
        name = volume["metadata"]["name"]
        made = await self._create(PERSISTENT_VOLUME, volume)
        if made is None:
            made = await self._client.get(PERSISTENT_VOLUME, name)
        else:
            text = f"Successfully provisioned volume {name}"
            self._tell(claim, "Normal", "ProvisioningSucceeded", text)
            log.info("volume_provisioned", volume=name, path=made["spec"]["local"])
        await self._bind(claim, made)
        return None

    async def _unselect(self, claim: Document) -> None:
        metadata = claim["metadata"]
        await self._client.patch(
            PERSISTENT_VOLUME_CLAIM,
            metadata["name"],
            {"metadata": {"annotations": {SELECTED_NODE: None}}},
            metadata["namespace"],
        )

    async def _bind(self, claim: Document, volume: Document) -> None:
        """Have volume and claim name each other, and say so; safe to repeat."""
        metadata = claim["metadata"]
        reference = (volume.get("spec") or {}).get("claimRef") or {}
        if reference.get("uid") != metadata["uid"]:
            volume = await self._client.patch(
                PERSISTENT_VOLUME,
                volume["metadata"]["name"],
                {
                    "metadata": {
                        "resourceVersion": volume["metadata"]["resourceVersion"]
                    },
                    "spec": {"claimRef": build_reference(claim)},
                },
            )
        await self._set_phase(volume, "Bound")
        annotations = metadata.get("annotations") or {}
        if (
            claim["spec"].get("volumeName") != volume["metadata"]["name"]
            or BIND_COMPLETED not in annotations
        ):
            claim = await self._client.patch(
                PERSISTENT_VOLUME_CLAIM,
                metadata["name"],
                build_claim_binding(claim, volume),
                metadata["namespace"],
            )
        await self._set_claim_status(claim, build_bound_status(volume))

    async def _lose(self, claim: Document, reason: str, message: str) -> None:
        if (claim.get("status") or {}).get("phase") != "Lost":
            self._tell(claim, "Warning", reason, message)
            await self._set_claim_status(claim, {"phase": "Lost"})

    async def _set_claim_status(self, claim: Document, status: Document) -> None:
        present = claim.get("status") or {}
        if all(present.get(key) == value for key, value in status.items()):
            return
        metadata = claim["metadata"]
        await self._client.patch(
            PERSISTENT_VOLUME_CLAIM,
            metadata["name"],
            {"metadata": {"uid": metadata["uid"]}, "status": status},
            metadata["namespace"],
            subresource="status",
        )

    def _users(self, claim: Document, *, running: bool) -> set[str]:
        """Return Pods that use a claim.

        Args:
            claim: the claim.
            running: those on a node that have not ended; else those without a node.
        """
        metadata = claim["metadata"]
        found = set()
        for pod in self._caches.items(POD):
            if pod["metadata"]["namespace"] != metadata["namespace"]:
                continue
            if (pod.get("status") or {}).get("phase") in _FINISHED:
                continue
            has_node = bool((pod.get("spec") or {}).get("nodeName"))
            if has_node is running and metadata["name"] in claims_of(pod):
                found.add(str(pod["metadata"]["name"]))
        return found

    # ── volumes ─────────────────────────────────────────────────────────────────

    async def _sync_volume(self, volume: Document) -> float | None:
        reference = (volume.get("spec") or {}).get("claimRef")
        phase = (volume.get("status") or {}).get("phase")
        if not reference:
            if volume["metadata"].get("deletionTimestamp"):
                await self._let_go(volume)
            elif phase != "Available":
                await self._set_phase(volume, "Available")
            return None
        claim = await self._claim_behind(volume, reference)
        if claim is None and not reference.get("uid"):
            # Kept for a claim that is still to come.
            if volume["metadata"].get("deletionTimestamp"):
                await self._let_go(volume)
            elif phase != "Available":
                await self._set_phase(volume, "Available")
            return None
        if claim is not None:
            name = (claim.get("spec") or {}).get("volumeName")
            if not name or name == volume["metadata"]["name"]:
                self._queue.add(_claim_key(claim))
                return None
            if not is_ours(volume):
                return None
        await self._release(volume)
        return None

    async def _claim_behind(
        self, volume: Document, reference: Document
    ) -> Document | None:
        namespace, name = str(reference.get("namespace")), str(reference.get("name"))
        claim = self._caches.get(PERSISTENT_VOLUME_CLAIM, namespace, name)
        if claim is None:
            # Data hangs on it: what was heard is not enough.
            try:
                claim = await self._client.get(PERSISTENT_VOLUME_CLAIM, name, namespace)
            except ApiError as error:
                if error.code != 404:
                    raise
                return None
        return claim if is_claimed_by(volume, claim) else None

    async def _release(self, volume: Document) -> None:
        """Let a volume go whose claim is gone, as its policy says."""
        if (volume.get("status") or {}).get("phase") not in {"Released", "Failed"}:
            volume = await self._set_phase(volume, "Released")
        metadata, spec = volume["metadata"], volume["spec"]
        if metadata.get("deletionTimestamp"):
            await self._let_go(volume)
            return
        policy = spec.get("persistentVolumeReclaimPolicy")
        if policy == "Retain":
            return
        if policy == "Delete" and is_ours(volume):
            await self._client.delete(
                PERSISTENT_VOLUME, metadata["name"], uid=metadata["uid"]
            )
            return
        if (volume.get("status") or {}).get("phase") != "Failed":
            name = metadata["name"]
            text = f'no volume plugin can {str(policy).lower()} volume "{name}"'
            self._tell(volume, "Warning", "VolumeFailedDelete", text)
            await self._set_phase(volume, "Failed", text)

    async def _let_go(self, volume: Document) -> None:
        """Stop protecting a volume that nobody has; its data is the node's work."""
        volume = await self._drop_finalizer(
            PERSISTENT_VOLUME, volume, VOLUME_PROTECTION
        )
        if DATA_FINALIZER in (volume["metadata"].get("finalizers") or ()):
            await self._let_go_of_lost(volume)

    async def _let_go_of_lost(self, volume: Document) -> None:
        """Expect no clean-up from a node that is gone."""
        terms = volume["spec"].get("nodeAffinity", {}).get("required", {})
        names = [
            name
            for term in terms.get("nodeSelectorTerms") or ()
            for field in term.get("matchFields") or ()
            for name in field.get("values") or ()
        ]
        for name in names:
            try:
                await self._client.get(NODE, name)
            except ApiError as error:
                if error.code != 404:
                    raise
            else:
                return
        await self._drop_finalizer(PERSISTENT_VOLUME, volume, DATA_FINALIZER)

    async def _set_phase(
        self, volume: Document, phase: str, message: str = ""
    ) -> Document:
        if (volume.get("status") or {}).get("phase") == phase:
            return volume
        metadata = volume["metadata"]
        return await self._client.patch(
            PERSISTENT_VOLUME,
            metadata["name"],
            {
                "metadata": {"uid": metadata["uid"]},
                "status": {"phase": phase, "message": message or None},
            },
            subresource="status",
        )

    # ── both ────────────────────────────────────────────────────────────────────

    async def _is_absent(self, volume: str) -> bool:
        try:
            await self._client.get(PERSISTENT_VOLUME, volume)
        except ApiError as error:
            if error.code == 404:
                return True
            raise
        return False

    async def _create(self, kind: Kind, document: Document) -> Document | None:
        """Create an object; return ``None`` where it is there already."""
        try:
            return await self._client.create(kind, document)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return None
            raise

    async def _drop_finalizer(
        self, kind: Kind, document: Document, finalizer: str
    ) -> Document:
        metadata = document["metadata"]
        finalizers = list(metadata.get("finalizers") or ())
        if finalizer not in finalizers:
            return document
        finalizers.remove(finalizer)
        return await self._client.patch(
            kind,
            metadata["name"],
            {
                "metadata": {
                    "finalizers": finalizers or None,
                    "resourceVersion": metadata["resourceVersion"],
                }
            },
            metadata.get("namespace") or "",
        )

    def _tell(
        self,
        document: Document,
        event_type: Literal["Normal", "Warning"],
        reason: str,
        message: str,
    ) -> None:
        """Record an Event, once while nothing changes."""
        uid = str(document["metadata"]["uid"])
        if self._told.get(uid) != f"{reason} {message}":
            self._told[uid] = f"{reason} {message}"
            self._recorder.record(subject_of(document), event_type, reason, message)


def _claim_key(claim: Document) -> _Key:
    metadata = claim["metadata"]
    return PERSISTENT_VOLUME_CLAIM, str(metadata["namespace"]), str(metadata["name"])


def _place(pod: Document) -> tuple[object, object, object]:
    """Return what of a Pod matters to its claims."""
    return (
        (pod.get("spec") or {}).get("nodeName"),
        (pod.get("status") or {}).get("phase") in _FINISHED,
        pod["metadata"].get("deletionTimestamp"),
    )


def make(context: ControllerContext) -> Running:
    """Return the controller."""
    return PersistentVolumeController(context)


PART: Final = Controller(
    name="persistent-volume",
    watches=(PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS, POD, NODE),
    make=make,
)
