"""Rules of Jobs and CronJobs.

Source: ``pkg/apis/batch/validation`` (v1.36).
"""

import re
from collections.abc import Iterator
from typing import Final

from podyard.api.cron import CronError, parse_schedule
from podyard.api.documents import Document
from podyard.api.errors import (
    FieldError,
    forbidden_field,
    invalid,
    not_supported,
    required,
)
from podyard.api.feature_gates import FeatureGates
from podyard.api.labels import SelectorError, selector_from_object
from podyard.api.syntax import check_dns1123_label, check_dns1123_subdomain
from podyard.api.validation.faults import (
    check_choice,
    check_immutable,
    check_not_negative,
    check_text,
    too_long,
    too_many,
)
from podyard.api.validation.object_meta import check_label_selector, check_labels
from podyard.api.validation.pods import check_pod_template

_MAX_INDEXED: Final = 100_000
_MAX_RULES: Final = 20
_MAX_CRON_JOB_NAME: Final = 52
_MAX_MANAGED_BY: Final = 63
_CONTROLLER_UID: Final = "batch.kubernetes.io/controller-uid"
_JOB_NAME: Final = "batch.kubernetes.io/job-name"
_RESTART: Final = ("OnFailure", "Never")
_COMPLETION_MODES: Final = ("NonIndexed", "Indexed")
_REPLACEMENT: Final = ("Failed", "TerminatingOrFailed")
_ACTIONS: Final = ("Count", "FailIndex", "FailJob", "Ignore")
_CONCURRENCY: Final = ("Allow", "Forbid", "Replace")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")
#: While a Job is suspended, where its Pods may run can still change.
_SCHEDULING: Final = frozenset(
    {"affinity", "nodeSelector", "tolerations", "schedulingGates"}
)


def check_job(job: Document, gates: FeatureGates) -> Iterator[FieldError]:
    """Check a Job whose selector was generated."""
    spec, metadata = job.get("spec") or {}, job.get("metadata") or {}
    yield from _check_generated(spec, metadata)
    yield from _check_job_spec(spec, "spec", gates)
    selector = spec.get("selector")
    if selector is None:
        yield required("spec.selector")
    else:
        yield from check_label_selector(selector, "spec.selector")
    labels = _template_labels(spec)
    try:
        if not selector_from_object(selector).matches(labels):
            yield invalid(
                "spec.template.metadata.labels",
                labels,
                "`selector` does not match template `labels`",
            )
    except SelectorError:
        return
    yield from _check_pod_names(spec, metadata)


def _template_labels(spec: Document) -> dict[str, str]:
    template = spec.get("template") or {}
    labels: dict[str, str] = (template.get("metadata") or {}).get("labels") or {}
    return labels


def _check_generated(spec: Document, metadata: Document) -> Iterator[FieldError]:
    if spec.get("manualSelector") or spec.get("selector") is None:
        return
    uid, name = metadata.get("uid") or "", metadata.get("name") or ""
    if not uid:
        yield required("metadata.uid")
    expected = {_CONTROLLER_UID: uid, _JOB_NAME: name}
    labels = _template_labels(spec)
    for key, value in expected.items():
        where = f"spec.template.metadata.labels[{key}]"
        if key not in labels:
            yield required(where, f"must be '{value}'")
        elif labels[key] != value:
            yield invalid(where, labels, f"must be '{value}'")
    expected |= {"controller-uid": uid, "job-name": name}
    try:
        matches = selector_from_object(spec["selector"]).matches(expected)
    except SelectorError:
        return
    if not matches:
        yield invalid(
            "spec.selector", spec["selector"], "`selector` not auto-generated"
        )


def _check_pod_names(spec: Document, metadata: Document) -> Iterator[FieldError]:
    completions = spec.get("completions") or 0
    name = metadata.get("name") or ""
    if spec.get("completionMode") == "Indexed" and completions > 0 and name:
        texts = check_dns1123_label(f"{name}-{completions - 1}")
        if texts:
            text = "will not able to create pod with invalid DNS label"
            yield invalid("metadata.name", name, f"{text}: {'; '.join(texts)}")


def _check_job_spec(
    spec: Document, field: str, gates: FeatureGates
) -> Iterator[FieldError]:
    for key in (
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ):
        yield from check_not_negative(f"{field}.{key}", spec.get(key))
    yield from _check_managed_by(spec.get("managedBy"), f"{field}.managedBy")
    mode = spec.get("completionMode")
    if mode is not None and mode not in _COMPLETION_MODES:
        yield not_supported(f"{field}.completionMode", mode, _COMPLETION_MODES)
    if mode == "Indexed":
        yield from _check_indexed(spec, field)
    else:
        yield from _check_not_indexed(spec, field)
    replacement = spec.get("podReplacementPolicy")
    has_policy = spec.get("podFailurePolicy") is not None
    known = _REPLACEMENT[:1] if has_policy else _REPLACEMENT
    if replacement is not None and replacement not in known:
        yield not_supported(f"{field}.podReplacementPolicy", replacement, known)
    yield from _check_job_template(spec, field, gates)
    if has_policy:
        yield from _check_failure_policy(spec, field)


def _check_managed_by(manager: str | None, field: str) -> Iterator[FieldError]:
    if manager is None:
        return
    domain, slash, path = manager.partition("/")
    if not slash or not domain or not path:
        yield invalid(
            field, manager, 'must be a domain-prefixed path (such as "acme.io/foo")'
        )
    else:
        yield from check_text(field, domain, check_dns1123_subdomain)
    if len(manager) > _MAX_MANAGED_BY:
        yield too_long(field, _MAX_MANAGED_BY)


def _check_indexed(spec: Document, field: str) -> Iterator[FieldError]:
    completions, parallelism = spec.get("completions"), spec.get("parallelism") or 0
    if completions is None:
        yield required(f"{field}.completions", "when completion mode is Indexed")
    if parallelism > _MAX_INDEXED:
        yield invalid(
            f"{field}.parallelism",
            parallelism,
            f"must be less than or equal to {_MAX_INDEXED} when completion mode is "
            "Indexed",
        )
    failed = spec.get("maxFailedIndexes")
    if failed is None:
        return
    where = f"{field}.maxFailedIndexes"
    if spec.get("backoffLimitPerIndex") is None:
        yield required(
            f"{field}.backoffLimitPerIndex", "when maxFailedIndexes is specified"
        )
    if completions is not None and failed > completions:
        yield invalid(where, failed, "must be less than or equal to completions")
    if failed > _MAX_INDEXED:
        yield invalid(where, failed, f"must be less than or equal to {_MAX_INDEXED}")


def _check_not_indexed(spec: Document, field: str) -> Iterator[FieldError]:
    for key in ("backoffLimitPerIndex", "maxFailedIndexes"):
        if spec.get(key) is not None:
            yield invalid(
                f"{field}.{key}", spec[key], "requires indexed completion mode"
            )
    if spec.get("successPolicy") is not None:
        yield invalid(
            f"{field}.successPolicy",
            spec["successPolicy"],
            "requires indexed completion mode",
        )


def _check_job_template(
    spec: Document, field: str, gates: FeatureGates
) -> Iterator[FieldError]:
    template = spec.get("template") or {}
    yield from check_pod_template(template, f"{field}.template", gates)
    policy = (template.get("spec") or {}).get("restartPolicy") or ""
    where = f"{field}.template.spec.restartPolicy"
    if policy == "Always":
        yield required(where, 'valid values: "OnFailure", "Never"')
    elif policy not in _RESTART:
        yield not_supported(where, policy, _RESTART)


def _check_failure_policy(spec: Document, field: str) -> Iterator[FieldError]:
    rules = spec["podFailurePolicy"].get("rules") or ()
    where = f"{field}.podFailurePolicy.rules"
    if len(rules) > _MAX_RULES:
        yield too_many(where, len(rules), _MAX_RULES)
    for index, rule in enumerate(rules):
        yield from _check_failure_rule(rule, f"{where}[{index}]", spec)
    policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy")
    if policy != "Never":
        yield invalid(
            f"{field}.template.spec.restartPolicy",
            policy or "",
            'only "Never" is supported when podFailurePolicy is specified',
        )


def _check_failure_rule(
    rule: Document, field: str, spec: Document
) -> Iterator[FieldError]:
    action = rule.get("action") or ""
    yield from check_choice(f"{field}.action", action, _ACTIONS)
    if action == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
        yield invalid(
            f"{field}.action", action, "requires the backoffLimitPerIndex to be set"
        )
    codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions") or ()
    if codes is not None and conditions:
        yield invalid(
            field,
            "",
            "specifying both OnExitCodes and OnPodConditions is not supported",
        )
    if codes is None and not conditions:
        yield invalid(
            field, "", "specifying one of OnExitCodes and OnPodConditions is required"
        )
    if codes is not None:
        yield from _check_exit_codes(codes, f"{field}.onExitCodes")
    for index, pattern in enumerate(conditions):
        status = pattern.get("status")
        where = f"{field}.onPodConditions[{index}].status"
        yield from check_choice(where, status, ("False", "True", "Unknown"))


def _check_exit_codes(codes: Document, field: str) -> Iterator[FieldError]:
    operator, values = codes.get("operator") or "", codes.get("values") or []
    yield from check_choice(f"{field}.operator", operator, ("In", "NotIn"))
    if not values:
        yield invalid(f"{field}.values", values, "at least one value is required")
    if operator == "In" and 0 in values:
        yield invalid(f"{field}.values", 0, "must not be 0 for the In operator")
    if values != sorted(set(values)):
        yield invalid(f"{field}.values", values, "must be ordered and without doubles")


def check_job_update(new: Document, old: Document) -> Iterator[FieldError]:
    """Check that nothing changed that the Pods of a Job were made by."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    elastic = (
        after.get("completionMode") == "Indexed"
        and after.get("completions") is not None
        and after.get("completions") == after.get("parallelism")
    )
    if not elastic:
        yield from check_immutable(
            "spec.completions", after.get("completions"), before.get("completions")
        )
    yield from check_immutable(
        "spec.selector", after.get("selector"), before.get("selector")
    )
    yield from _check_same_template(after, before, old)
    for key in (
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ):
        yield from check_immutable(f"spec.{key}", after.get(key), before.get(key))


def _check_same_template(
    new: Document, old: Document, job: Document
) -> Iterator[FieldError]:
    after, before = new.get("template") or {}, old.get("template") or {}
    started = (job.get("status") or {}).get("startTime") is not None
    if old.get("suspend") and not started:
        after, before = _fixed_part(after), _fixed_part(before)
    yield from check_immutable("spec.template", after, before)


def _fixed_part(template: Document) -> Document:
    spec = {
        key: value
        for key, value in (template.get("spec") or {}).items()
        if key not in _SCHEDULING
    }
    return {"spec": spec}


# --- CronJobs -------------------------------------------------------------------------


def check_cron_job(cron_job: Document, gates: FeatureGates) -> Iterator[FieldError]:
    """Check the spec of a CronJob."""
    name = (cron_job.get("metadata") or {}).get("name") or ""
    if len(name) > _MAX_CRON_JOB_NAME:
        yield invalid(
            "metadata.name",
            name,
            f"must be no more than {_MAX_CRON_JOB_NAME} characters",
        )
    spec = cron_job.get("spec") or {}
    yield from _check_schedule(spec)
    yield from _check_time_zone(spec.get("timeZone"))
    yield from check_not_negative(
        "spec.startingDeadlineSeconds", spec.get("startingDeadlineSeconds")
    )
    yield from check_choice(
        "spec.concurrencyPolicy", spec.get("concurrencyPolicy"), _CONCURRENCY
    )
    template = spec.get("jobTemplate") or {}
    yield from _check_cron_template(template, "spec.jobTemplate", gates)
    for key in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        yield from check_not_negative(f"spec.{key}", spec.get(key))


def _check_schedule(spec: Document) -> Iterator[FieldError]:
    schedule = spec.get("schedule") or ""
    if not schedule:
        yield required("spec.schedule")
        return
    if "TZ" in schedule:
        text = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        if spec.get("timeZone") is not None:
            text = "cannot use both timeZone field and TZ or CRON_TZ in schedule"
        yield invalid("spec.schedule", schedule, text)
        return
    try:
        parse_schedule(schedule)
    except CronError as error:
        yield invalid("spec.schedule", schedule, str(error))


def _check_time_zone(zone: str | None) -> Iterator[FieldError]:
    if zone is None:
        return
    field = "spec.timeZone"
    if not zone:
        yield invalid(field, zone, "timeZone must be nil or non-empty string")
    elif zone.lower() == "local":
        yield invalid(
            field,
            zone,
            "timeZone must be an explicit time zone as defined in "
            "https://www.iana.org/time-zones",
        )
    elif not _ZONE.fullmatch(zone):
        yield invalid(field, zone, f"unknown time zone {zone}")


def _check_cron_template(
    template: Document, field: str, gates: FeatureGates
) -> Iterator[FieldError]:
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    yield from check_labels(metadata.get("labels"), f"{field}.labels")
    yield from _check_job_spec(spec, f"{field}.spec", gates)
    if spec.get("selector") is not None:
        yield invalid(
            f"{field}.spec.selector",
            spec["selector"],
            "`selector` will be auto-generated",
        )
    if spec.get("manualSelector"):
        where = f"{field}.spec.manualSelector"
        yield not_supported(where, True, ("nil", "false"))  # noqa: FBT003


def check_job_status(job: Document) -> Iterator[FieldError]:
    """Check the counts and times of a Job's status."""
    status = job.get("status") or {}
    for key in ("active", "succeeded", "failed", "ready", "terminating"):
        yield from check_not_negative(f"status.{key}", status.get(key))
    is_complete = any(
        condition.get("type") == "Complete" and condition.get("status") == "True"
        for condition in status.get("conditions") or ()
    )
    if status.get("completionTime") is not None and not is_complete:
        yield forbidden_field(
            "status.completionTime",
            "cannot set completionTime when there is no Complete=True condition",
        )
