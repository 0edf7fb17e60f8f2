"""The channel to a runtime, where the runtime is slow to greet."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from podyard.cri.client import CriChannel, GrpcRuntimeService
from podyard.cri.proto import podyard_cri_pb2 as pb

#: Longer than gRPC's shortest deadline of a connection attempt, 0.1 s.
GREETING_TAKES_S = 0.5


class OneAnswer(grpc.GenericRpcHandler):
    """Answers ``Version`` and nothing else."""

    def service(self, handler_call_details):
        return grpc.unary_unary_rpc_method_handler(
            self._version,
            request_deserializer=pb.VersionRequest.FromString,
            response_serializer=pb.VersionResponse.SerializeToString,
        )

    async def _version(self, request, context) -> pb.VersionResponse:
        return pb.VersionResponse(runtime_name="slow")


@contextlib.asynccontextmanager
async def slow_to_greet(path: Path, behind: Path) -> AsyncIterator[None]:
    """Accept at once, and pass bytes on only after a while."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(GREETING_TAKES_S)
        inner_reader, inner_writer = await asyncio.open_unix_connection(behind)
        async with asyncio.TaskGroup() as group:
            group.create_task(copy(reader, inner_writer))
            group.create_task(copy(inner_reader, writer))

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield
    finally:
        server.close()


@pytest.fixture
async def slow_runtime(tmp_path: Path) -> AsyncIterator[Path]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((OneAnswer(),))
    server.add_insecure_port(f"unix://{tmp_path}/real.sock")
    await server.start()
    async with slow_to_greet(tmp_path / "slow.sock", tmp_path / "real.sock"):
        yield tmp_path / "slow.sock"
        await server.stop(grace=None)


async def test_a_busy_runtime_that_greets_late_is_waited_for(slow_runtime):
    channel = CriChannel(f"unix://{slow_runtime}")
    try:
        version = await GrpcRuntimeService(channel).version()
    finally:
        await channel.close()

    assert version.runtime_name == "slow"
