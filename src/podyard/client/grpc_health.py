"""The gRPC health check, for probes.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md: method
``grpc.health.v1.Health/Check``, request ``{1: service}``, response ``{1: status}``.
The two messages have one field each, so they are read and written by hand.
"""

from typing import Final

import grpc
import grpc.aio

_METHOD: Final = "/grpc.health.v1.Health/Check"
_STATUS: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


async def check_health(
    host: str, port: int, service: str, timeout_s: float
) -> str | None:
    """Ask one server, in clear.

    Args:
        host: the address.
        port: the port.
        service: the service's name; empty for the whole server.
        timeout_s: seconds for everything.

    Returns:
        ``None`` where it is serving, else what is wrong.
    """
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    options = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        check = channel.unary_unary(
            _METHOD, request_serializer=_write_request, response_deserializer=_read
        )
        try:
            status = await check(service, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return _describe(error, address, service, timeout_s)
    if status == "SERVING":
        return None
    return f'service unhealthy (responded with "{status}")'


def _write_request(service: str) -> bytes:
    name = service.encode()
    if not name:
        return b""
    return b"\x0a" + _varint(len(name)) + name


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read(body: bytes) -> str:
    # proto3 leaves a zero out: an empty body is UNKNOWN.
    if len(body) >= 2 and body[0] == 0x08 and body[1] < len(_STATUS):
        return _STATUS[body[1]]
    return _STATUS[0]


def _describe(
    error: grpc.aio.AioRpcError, address: str, service: str, timeout_s: float
) -> str:
    text = error.details() or str(error.code())
    match error.code():
        case grpc.StatusCode.UNIMPLEMENTED:
            return (
                "error: this server does not implement the grpc health protocol "
                f"(grpc.health.v1.Health): {text}"
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"timeout: health rpc did not complete within {timeout_s:g}s"
        case grpc.StatusCode.UNAVAILABLE:
            return (
                f'timeout: failed to connect service "{address}" within '
                f"{timeout_s:g}s: {text}"
            )
        case _:
            return f'error: health rpc for service "{service}" failed: {text}'
