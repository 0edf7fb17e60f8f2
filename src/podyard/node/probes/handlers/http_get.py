"""``httpGet``: 200 to 399 is healthy."""

import asyncio
from typing import Final

from podyard.api.core_v1 import Handler
from podyard.lib.plain_http import Fetcher, FetchError, Target
from podyard.node.probes.build import build_output
from podyard.node.probes.handler import (
    Attempt,
    ProbeContext,
    ProbeFault,
    ProbeHandler,
    ProbeResult,
)

_USER_AGENT: Final = "kube-probe/1.36"
_HEALTHY: Final = ProbeResult(healthy=True)


def _prepare(context: ProbeContext, handler: Handler) -> Attempt:
    action = handler.http_get
    assert action is not None
    port = context.container.port_number(action.port)
    if port is None:
        raise ProbeFault(
            f'strconv.Atoi: parsing "{action.port}": invalid syntax: the container '
            "has no port of that name"
        )
    path = action.path if action.path.startswith("/") else f"/{action.path}"
    target = Target(action.scheme.lower(), action.host or context.pod_ip, port, path)
    fetcher = Fetcher(target, headers=action.headers, user_agent=_USER_AGENT)
    return lambda: _run(fetcher, context.probe.timeout_s)


async def _run(fetcher: Fetcher, timeout_s: float) -> ProbeResult:
    try:
        async with asyncio.timeout(timeout_s):
            answer = await fetcher.fetch()
    except TimeoutError:
        return ProbeResult(
            healthy=False,
            output=f'Get "{fetcher.target.url}": context deadline exceeded '
            "(Client.Timeout exceeded while awaiting headers)",
        )
    except FetchError as error:
        return ProbeResult(healthy=False, output=str(error))
    if not 200 <= answer.status < 400:
        return ProbeResult(
            healthy=False, output=f"HTTP probe failed with statuscode: {answer.status}"
        )
    if answer.left_host:
        body = build_output(answer.body)
        return ProbeResult(
            healthy=True,
            output=f"Probe terminated redirects, Response body: {body}",
            warning=True,
        )
    return _HEALTHY


PART: Final = ProbeHandler(
    field="httpGet",
    claims=lambda handler: handler.http_get is not None,
    prepare=_prepare,
)
