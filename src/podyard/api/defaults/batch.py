"""Defaults of Jobs and CronJobs.

Source: ``pkg/apis/batch/v1/defaults.go`` and ``pkg/registry/batch/job`` (v1.36).
"""

from typing import Final

from podyard.api.documents import Document

_MAX_INT32: Final = 2**31 - 1
_CONTROLLER_UID: Final = "batch.kubernetes.io/controller-uid"
_JOB_NAME: Final = "batch.kubernetes.io/job-name"
_LEGACY_CONTROLLER_UID: Final = "controller-uid"
_LEGACY_JOB_NAME: Final = "job-name"


def default_job(job: Document) -> None:
    """Fill in a Job's defaults, in place."""
    spec = job.setdefault("spec", {})
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    metadata = job.setdefault("metadata", {})
    if labels and not metadata.get("labels"):
        metadata["labels"] = dict(labels)
    per_index = spec.get("backoffLimitPerIndex") is not None
    has_policy = spec.get("podFailurePolicy") is not None
    for key, value in {
        "parallelism": 1,
        "backoffLimit": _MAX_INT32 if per_index else 6,
        "completionMode": "NonIndexed",
        "suspend": False,
        "podReplacementPolicy": "Failed" if has_policy else "TerminatingOrFailed",
    }.items():
        if spec.get(key) is None:
            spec[key] = value
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            if not pattern.get("status"):
                pattern["status"] = "True"


def prepare_job(job: Document, uid: str) -> None:
    """Give a new Job the selector and labels that tie its Pods to it, in place.

    Args:
        job: the Job.
        uid: its ``metadata.uid``.
    """
    spec = job.setdefault("spec", {})
    if spec.get("manualSelector"):
        return
    selector = spec.get("selector") or {}
    match_labels = dict(selector.get("matchLabels") or {})
    if _CONTROLLER_UID in match_labels:
        # The user should not choose it; validation compares it with the uid.
        return
    name = (job.get("metadata") or {}).get("name") or ""
    match_labels[_CONTROLLER_UID] = uid
    spec["selector"] = {**selector, "matchLabels": match_labels}
    metadata = spec.setdefault("template", {}).setdefault("metadata", {})
    metadata["labels"] = {
        **(metadata.get("labels") or {}),
        _LEGACY_CONTROLLER_UID: uid,
        _LEGACY_JOB_NAME: name,
        _CONTROLLER_UID: uid,
        _JOB_NAME: name,
    }


def default_cron_job(cron_job: Document) -> None:
    """Fill in a CronJob's defaults, in place."""
    spec = cron_job.setdefault("spec", {})
    for key, value in {
        "concurrencyPolicy": "Allow",
        "suspend": False,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 1,
    }.items():
        if spec.get(key) in {None, ""}:
            spec[key] = value
