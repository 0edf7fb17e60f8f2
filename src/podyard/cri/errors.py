"""gRPC statuses become the error family of ``cri.services``, here and nowhere else."""

import grpc
import grpc.aio

from podyard.cri.services import (
    CRIError,
    CRINotFoundError,
    CRIUnavailableError,
    CRIUnimplementedError,
)

_KINDS: dict[grpc.StatusCode, type[CRIError]] = {
    grpc.StatusCode.NOT_FOUND: CRINotFoundError,
    grpc.StatusCode.UNAVAILABLE: CRIUnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: CRIUnavailableError,
    grpc.StatusCode.UNIMPLEMENTED: CRIUnimplementedError,
}


def to_cri_error(call: str, failure: grpc.aio.AioRpcError) -> CRIError:
    """Return the error of our family for a failed RPC.

    Args:
        call: the CRI method, ``RunPodSandbox``.
        failure: what the channel raised.
    """
    code = failure.code()
    kind = _KINDS.get(code, CRIError)
    return kind(call, code.name, failure.details() or "")
