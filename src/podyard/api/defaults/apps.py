"""Defaults of the workload kinds.

Source: ``pkg/apis/apps/v1/defaults.go`` (v1.36).
"""

from typing import Final

from podyard.api.defaults.pod_spec import fill
from podyard.api.documents import Document

_QUARTER: Final = "25%"
_ROLLING: Final = "RollingUpdate"
_RETAIN: Final = "Retain"


def _set(target: Document, values: Document) -> None:
    for key, value in values.items():
        if target.get(key) is None:
            target[key] = value


def default_deployment(deployment: Document) -> None:
    """Fill in a Deployment's defaults, in place."""
    spec = deployment.setdefault("spec", {})
    _set(
        spec,
        {
            "replicas": 1,
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
            "strategy": {},
        },
    )
    fill(spec["strategy"], {"type": _ROLLING})
    if spec["strategy"]["type"] == _ROLLING:
        _set(spec["strategy"], {"rollingUpdate": {}})
        update = spec["strategy"]["rollingUpdate"]
        _set(update, {"maxUnavailable": _QUARTER, "maxSurge": _QUARTER})


def default_replica_set(replica_set: Document) -> None:
    """Fill in a ReplicaSet's defaults, in place."""
    spec = replica_set.setdefault("spec", {})
    _set(spec, {"replicas": 1})


def default_daemon_set(daemon_set: Document) -> None:
    """Fill in a DaemonSet's defaults, in place."""
    spec = daemon_set.setdefault("spec", {})
    _set(spec, {"revisionHistoryLimit": 10, "updateStrategy": {}})
    fill(spec["updateStrategy"], {"type": _ROLLING})
    if spec["updateStrategy"]["type"] == _ROLLING:
        _set(spec["updateStrategy"], {"rollingUpdate": {}})
        update = spec["updateStrategy"]["rollingUpdate"]
        _set(update, {"maxUnavailable": 1, "maxSurge": 0})


def default_stateful_set(stateful_set: Document) -> None:
    """Fill in a StatefulSet's defaults, in place."""
    spec = stateful_set.setdefault("spec", {})
    fill(spec, {"podManagementPolicy": "OrderedReady"})
    _set(
        spec,
        {
            "replicas": 1,
            "revisionHistoryLimit": 10,
            "updateStrategy": {},
            "persistentVolumeClaimRetentionPolicy": {},
        },
    )
    strategy = spec["updateStrategy"]
    if not strategy.get("type"):
        strategy["type"] = _ROLLING
        _set(strategy, {"rollingUpdate": {}})
    if strategy["type"] == _ROLLING and strategy.get("rollingUpdate") is not None:
        _set(strategy["rollingUpdate"], {"partition": 0})
    retention = spec["persistentVolumeClaimRetentionPolicy"]
    fill(retention, {"whenDeleted": _RETAIN, "whenScaled": _RETAIN})
    for claim in spec.get("volumeClaimTemplates") or ():
        fill(claim, {"apiVersion": "v1", "kind": "PersistentVolumeClaim"})
        fill(claim.setdefault("spec", {}), {"volumeMode": "Filesystem"})
        fill(claim.setdefault("status", {}), {"phase": "Pending"})
