"""containerd's own gRPC API: one channel, in the namespace of Kubernetes."""

from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import Final, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from podyard.containerd.build import NAMESPACE

_Answer = TypeVar("_Answer", bound=Message)

_OPTIONS: Final = (
    ("grpc.default_authority", "localhost"),
    # The "min" backoff is gRPC's deadline of a connection attempt (20 s): left alone,
    # so that a busy runtime that is slow to greet is waited for.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    ("grpc.enable_http_proxy", 0),
)


class ContainerdError(Exception):
    """A call of containerd's own API failed.

    Attributes:
        call: the method's path.
        code: the gRPC status name, ``ALREADY_EXISTS``.
    """

    def __init__(self, message: str, *, call: str, code: str) -> None:
        super().__init__(message)
        self.call = call
        self.code = code


class ContainerdClient:
    """A channel to containerd; use it as an async context manager.

    Attributes:
        lease: id of a lease that protects what the calls make, or empty.
    """

    def __init__(self, socket: str) -> None:
        """Open lazily: the first call connects."""
        self._channel = grpc.aio.insecure_channel(f"unix://{socket}", options=_OPTIONS)
        self.lease = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the channel and every call on it."""
        await self._channel.close()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        own = (("containerd-namespace", NAMESPACE),)
        return (*own, ("containerd-lease", self.lease)) if self.lease else own

    async def call(
        self,
        path: str,
        request: Message,
        answer: type[_Answer],
        *,
        timeout_s: float = 120.0,
    ) -> _Answer:
        """Make one call.

        Raises:
            ContainerdError: the call failed; ``code`` says how.
        """
        method = self._channel.unary_unary(
            path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            reply = await method(request, timeout=timeout_s, metadata=self._metadata())
        except grpc.aio.AioRpcError as failure:
            raise _error(path, failure) from failure
        assert isinstance(reply, answer)
        return reply

    async def stream(
        self, path: str, request: Message, answer: type[_Answer]
    ) -> AsyncGenerator[_Answer, None]:
        """Iterate over a server's stream, without deadline.

        Raises:
            ContainerdError: the stream broke.
        """
        call = self._channel.unary_stream(
            path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )(request, metadata=self._metadata())
        try:
            async for item in call:
                yield item
        except grpc.aio.AioRpcError as failure:
            raise _error(path, failure) from failure
        finally:
            call.cancel()

    async def converse(
        self,
        path: str,
        requests: AsyncIterator[Message],
        answer: type[_Answer],
        *,
        timeout_s: float = 3600.0,
    ) -> None:
        """Send requests one by one, each after the answer to the one before.

        A server that refuses then does so between two messages of ours, and its
        status reaches us; writing on would only break the call.

        Raises:
            ContainerdError: the call failed; ``code`` says how.
        """
        call = self._channel.stream_stream(
            path,
            request_serializer=_serialize,
            response_deserializer=answer.FromString,
        )(timeout=timeout_s, metadata=self._metadata())
        try:
            async for request in requests:
                await call.write(request)
                await call.read()
            await call.done_writing()
            while await call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as failure:
            raise _error(path, failure) from failure
        finally:
            call.cancel()


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _error(path: str, failure: grpc.aio.AioRpcError) -> ContainerdError:
    name = failure.code().name
    return ContainerdError(failure.details() or name, call=path, code=name)
