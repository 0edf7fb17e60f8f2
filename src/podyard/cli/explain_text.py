"""Explanations as text for people. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from podyard.api.documents import Document
from podyard.cli.build import build_table

#: How many columns a timeline's bars have.
BAR: Final = 48
#: A shorter part of a stop is not worth a line, seconds.
_SHORTEST_S: Final = 0.005
#: How many of the last looks ``explain pod`` prints.
LOOKS: Final = 12


def at(stamp: str) -> str:
    """Return a time of a record, to the millisecond."""
    head, _, tail = stamp.removesuffix("Z").partition(".")
    return f"{head.replace('T', ' ')}.{tail[:3]:0<3}" if head else "-"


def seconds(value: object) -> str:
    """Return a span as ``3.05s``."""
    return f"{value:.2f}s" if isinstance(value, int | float) else "-"


def _who(field_path: str) -> str:
    """Return the container in ``spec.containers{app}``."""
    inside = field_path.partition("{")[2].rstrip("}")
    return inside or field_path or "image volume"


# --- pulls ---


def pull_lines(found: Document) -> Iterator[str]:
    """Yield every pull, oldest first."""
    pulls: list[Document] = found.get("pulls") or []
    if not pulls:
        yield "no pulls are recorded"
    for number, pull in enumerate(pulls):
        if number:
            yield ""
        yield f"{at(pull['openedAt'])}  {_who(pull.get('fieldPath', ''))}"
        rows = [("image", pull.get("image", "")), *_pull_rows(pull)]
        for name, text in rows:
            yield f"  {name:<11} {text}".rstrip()


def _pull_rows(pull: Document) -> Iterator[tuple[str, str]]:
    yield "policy", str(pull.get("policyRule") or pull.get("policy") or "")
    if pull.get("localImageID"):
        digest = f", digest {pull['localDigest']}" if pull.get("localDigest") else ""
        yield "local", f"image {pull['localImageID']}{digest}"
    if pull.get("why"):
        yield "why", str(pull["why"])
    yield from (("problem", text) for text in pull.get("problems") or ())
    yield from _candidate_rows(pull)
    if pull.get("remoteDigest"):
        yield "remote", f"digest {pull['remoteDigest']}"
    result = str(pull.get("result") or "under way")
    if pull.get("tookSeconds") is not None:
        result += f" after {seconds(pull['tookSeconds'])}"
        if pull.get("waitedSeconds", 0) >= 0.01:
            result += f" and {seconds(pull['waitedSeconds'])} in the queue"
    yield "result", result
    answers = [one.get("error") for one in pull.get("attempts") or ()]
    if pull.get("error") and answers != [pull["error"]]:
        yield "error", str(pull["error"])
    if pull.get("nextRetryAt"):
        yield "next retry", f"{at(pull['nextRetryAt'])}, or when credentials change"


def _candidate_rows(pull: Document) -> Iterator[tuple[str, str]]:
    answers: dict[int, Document] = {
        one["order"]: one for one in pull.get("attempts") or ()
    }
    candidates: list[Document] = pull.get("candidates") or []
    for candidate in candidates:
        order = candidate.get("order")
        what = f'{candidate["origin"]}, key "{candidate["key"]}"'
        label = f"tried {order}" if order in answers else "not tried"
        yield label, f"{what}: {candidate['why']}"
        if order in answers:
            yield "", _answer(answers[order])
    if answers and not any(one.get("order") for one in candidates):
        yield "tried 1", "anonymously: there are no credentials for it"
        yield "", _answer(answers[1])
    if pull.get("unrelatedCredentials"):
        count = pull["unrelatedCredentials"]
        yield "", f"{count} more {'is' if count == 1 else 'are'} for other registries"


def _answer(attempt: Document) -> str:
    return f"-> {attempt.get('error') or attempt.get('outcome')}"


# --- environment ---


def env_lines(found: Document, *, container: str = "") -> Iterator[str]:
    """Yield every variable of every container, or of one."""
    told = [
        one
        for one in found.get("environment") or ()
        if container in {"", one["container"]}
    ]
    if not told:
        yield "nothing is known: the Pod has no such container, or is gone"
    for number, one in enumerate(told):
        if number:
            yield ""
        beside = ", beside the one that runs" if one.get("running") else ""
        yield f"container {one['container']}, as it would be started now{beside}"
        rows = [_variable(variable) for variable in one["variables"]]
        yield build_table(("NAME", "VALUE", "FROM", "OVERRODE"), rows)


def _variable(variable: Document) -> tuple[str, str, str, str]:
    if "error" in variable:
        value = f"(error: {variable['error']})"
    elif "hidden" in variable:
        value = f"(hidden: {', '.join(map(_hidden, variable['hidden']))})"
    else:
        value = str(variable["value"]).replace("\n", "\\n")
    if variable.get("runningValue") is not None:
        value += f" (running: {variable['runningValue']})"
    elif variable.get("running") == "other":
        value += " (running: another value)"
    elif variable.get("running") == "absent":
        value += " (not in the running one)"
    source = source_text(variable["source"])
    if variable.get("uses"):
        source += f", with {', '.join(variable['uses'])}"
    overrode = "; ".join(map(source_text, variable.get("overrode") or ()))
    return variable["name"], value, source, overrode


def _hidden(name: str) -> str:
    return name if name in {"a file", "the running container"} else f"Secret {name}"


def source_text(source: Document) -> str:
    """Return where a variable comes from, in words."""
    name, key = source.get("name", ""), source.get("key", "")
    match source["kind"]:
        case "value":
            return "env"
        case "configMapKeyRef":
            return f"env, ConfigMap {name} key {key}"
        case "secretKeyRef":
            return f"env, Secret {name} key {key}"
        case "configMapRef":
            return f"envFrom, ConfigMap {name}"
        case "secretRef":
            return f"envFrom, Secret {name}"
        case "fieldRef":
            return f"env, field {source.get('fieldPath', '')}"
        case "resourceFieldRef":
            return f"env, resource {source.get('resource', '')}"
        case "fileKeyRef":
            where = f"{source.get('volumeName', '')}/{source.get('path', '')}"
            return f"env, file {where} key {key}"
        case "service":
            return f"Service {name}"
        case "gone":
            return "nothing that is there now"
        case kind:
            return str(kind)


# --- schedule ---


def schedule_lines(found: Document) -> Iterator[str]:
    """Yield why a Pod runs where it does."""
    yield f"verdict   {found['verdict']}"
    runtime_class: Document = found.get("runtimeClass") or {}
    if runtime_class:
        handler = f"handler {runtime_class.get('handler')}"
        text = handler if runtime_class.get("exists") else "it does not exist"
        yield f"class     {runtime_class['name']} ({text})"
    requests = found["requests"]
    yield f"requests  {_amounts(requests['containers'])}"
    if requests.get("overhead"):
        source = requests.get("overheadFrom", "")
        yield f"overhead  {_amounts(requests['overhead'])}, from {source}"
        yield f"together  {_amounts(requests['total'])}"
    constraints = found["constraints"]
    if constraints:
        yield ""
        rows = [(one["kind"], one["text"], one["from"]) for one in constraints]
        yield build_table(("CONSTRAINT", "WANTS", "FROM"), rows)
    yield ""
    yield build_table(("NODE", "FITS", "WHAT IT LACKS"), list(_node_rows(found)))


def _amounts(amounts: Document) -> str:
    return ", ".join(f"{name} {amount}" for name, amount in amounts.items()) or "none"


def _node_rows(found: Document) -> Iterator[tuple[str, str, str]]:
    for node in found["nodes"]:
        fits = "no" if node["lacks"] else "yes"
        first, *rest = node["lacks"] or [""]
        yield node["name"], f"{fits}, runs here" if node["here"] else fits, first
        for text in rest:
            yield "", "", text


# --- stops ---


def stop_lines(found: Document) -> Iterator[str]:
    """Yield every stop as a timeline of its grace period."""
    under_way = {stop["containerID"]: stop for stop in found.get("stopping") or ()}
    stops: list[Document] = []
    for row in found.get("stops") or ():
        so_far = {} if _is_over(row) else under_way.pop(row.get("containerID"), {})
        stops.append({**row, **so_far})
    stops += under_way.values()
    if not stops:
        yield "no stops are recorded"
    for number, stop in enumerate(stops):
        if number:
            yield ""
        yield from _stop(stop)


def _is_over(stop: Document) -> bool:
    return "tookSeconds" in stop or "result" in stop


def _stop(stop: Document) -> Iterator[str]:
    began = at(str(stop.get("beganAt") or stop.get("openedAt") or ""))
    after = ", to be started again" if stop.get("restart") else ""
    yield f"{stop.get('container')}  {stop.get('why')}  {began}{after}"
    if not _is_over(stop):
        yield f"  under way; over at {at(str(stop.get('deadlineAt', '')))}"
        for name, span_s, text in _phases(stop):
            yield f"  {name:<8} {seconds(span_s)}  {text}".rstrip()
        return
    if "tookSeconds" not in stop:
        yield f"  {stop['result']}"
        return
    grace_s = float(stop.get("graceSeconds") or 0)
    took_s = float(stop["tookSeconds"])
    shown = list(_phases(stop))
    whole_s = max(grace_s, took_s, sum(span for _, span, _ in shown), 0.001)
    begin_s = 0.0
    for name, span_s, text in shown:
        bar = draw_bar(begin_s, span_s, whole_s)
        yield f"  {name:<8} |{bar}| {seconds(span_s):>8}  {text}".rstrip()
        begin_s += span_s
    yield f"  {'grace':<8} |{draw_bar(0, grace_s, whole_s, '=')}| {seconds(grace_s):>8}"
    used = ", the hook used it up" if stop.get("hookUsedGrace") else ""
    if stop.get("resumedAt"):
        used += f", resumed after a restart at {at(str(stop['resumedAt']))}"
    yield (
        f"  ended by {stop.get('endedBy')} after {seconds(took_s)} of a grace period "
        f"of {seconds(grace_s)}{used}"
    )


def _phases(stop: Document) -> Iterator[tuple[str, float, str]]:
    """Yield what a stop's time went to: name, seconds, remark."""
    for name, span_s, text in (
        ("PreStop", stop.get("hookSeconds"), str(stop.get("hook") or "")),
        ("waiting", stop.get("waitSeconds"), "for containers that go first"),
        ("TERM", stop.get("termSeconds"), ""),
        ("KILL", stop.get("killSeconds"), ""),
    ):
        if isinstance(span_s, int | float) and span_s >= _SHORTEST_S:
            yield name, float(span_s), text


def draw_bar(begin: float, span: float, whole: float, mark: str = "#") -> str:
    """Return a bar within ``BAR`` columns; what has a length has a column."""
    first = min(round(begin / whole * BAR), BAR - 1)
    last = max(min(round((begin + span) / whole * BAR), BAR), first + (span > 0))
    return "." * first + mark * (last - first) + "." * (BAR - last)


# --- hooks ---


def hook_rows(hooks: Iterable[Document]) -> Iterator[Sequence[str]]:
    """Yield the deliveries as rows."""
    for hook in hooks:
        yield (
            at(hook["openedAt"]),
            str(hook.get("container") or ""),
            str(hook.get("hook") or ""),
            str(hook.get("handler") or ""),
            str(hook.get("attempt") or ""),
            str(hook.get("result") or "under way"),
            seconds(hook.get("tookSeconds")),
            str(hook.get("error") or ""),
        )


HOOK_HEADER: Final = (
    "AT",
    "CONTAINER",
    "HOOK",
    "HANDLER",
    "ATTEMPT",
    "RESULT",
    "TOOK",
    "ERROR",
)


# --- the Pod ---


def pod_lines(found: Document) -> Iterator[str]:
    """Yield all of it in short."""
    metadata = found["metadata"]
    yield f"pod         {metadata['namespace']}/{metadata['name']}"
    yield f"uid         {metadata.get('uid', '')}"
    yield f"node        {found.get('node') or 'none yet'}"
    if found.get("gone"):
        yield "state       gone; only records are left"
    admission: Document = found.get("admission") or {}
    if admission:
        text = "yes"
        if not admission["admitted"]:
            text = f"no, {admission['reason']}: {admission['message']}"
        yield f"admitted    {text}"
    runtime_class: Document = found.get("runtimeClass") or {}
    if runtime_class:
        handler = runtime_class.get("handler")
        text = f"handler {handler}" if handler else "the runtime's default handler"
        text = str(runtime_class.get("error") or text)
        yield f"class       {runtime_class.get('class') or 'none'} ({text})"
    for part, word in (("pulls", "result"), ("hooks", "result"), ("stops", "endedBy")):
        records = found.get(part) or []
        last = f", the last: {records[-1].get(word) or 'under way'}" if records else ""
        yield f"{part:<11} {len(records)}{last}"
    story: Document = found.get("story") or {}
    if story:
        yield f"stage       {story.get('stage')}"
        yield ""
        yield f"the node's last looks (of {len(story['syncs'])})"
        for sync in story["syncs"][-LOOKS:]:
            yield from _look(sync)


def _look(sync: Document) -> Iterator[str]:
    containers = (sync.get("observed") or {}).get("containers") or ()
    seen = [f"{one.get('name')} {str(one.get('state')).lower()}" for one in containers]
    actions: Document = sync.get("actions") or {}
    done = [
        _action(name, value)
        for name, value in actions.items()
        if not (name == "kill_pod" and actions.get("create_sandbox"))
    ]
    told = "; ".join(text for text in done if text) or "nothing to do"
    yield f"  {at(sync['at'])}  saw {', '.join(seen) or 'no containers'}: {told}"
    yield from (f"      {result}" for result in sync.get("results") or ())


def _action(name: str, value: object) -> str:
    """Return an action in words; empty for none."""
    match name, value:
        case (("kill_pod" | "create_sandbox"), True):
            return name.replace("_", " ")
        case (("start" | "kill" | "waiting"), [*items]) if items:
            names = [str(i.get("container") or i) for i in items if isinstance(i, dict)]
            return f"{name} {', '.join(names)}"
        case "reset", [*items] if items:
            return f"start over in place ({len(items)} containers)"
        case _:
            return ""
