"""Programs that a Podyard starts on uvloop, while gRPC is busy."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

SCRIPT = """
import asyncio, collections, os, sys
from podyard.app.daemon import without_grpc_fork_handlers

assert "grpc" not in sys.modules, "the daemon has imported it too early"
with without_grpc_fork_handlers():
    import podyard.app.standalone
import grpc, grpc.aio, uvloop

class Nothing(grpc.GenericRpcHandler):
    def service(self, details):
        async def answer(request, context):
            return b""
        return grpc.unary_unary_rpc_method_handler(answer)

async def be_busy(call):
    while True:
        await call(b"")

async def main():
    server = grpc.aio.server()
    server.add_insecure_port(f"unix:{sys.argv[1]}")
    server.add_generic_rpc_handlers((Nothing(),))
    await server.start()
    call = grpc.aio.insecure_channel(f"unix:{sys.argv[1]}").unary_unary("/a/b")
    busy = [asyncio.ensure_future(be_busy(call)) for _ in range(2)]
    codes = collections.Counter()
    for _ in range(150):
        child = await asyncio.create_subprocess_exec(
            "true", stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        await child.stdout.read()
        codes[await child.wait()] += 1
    print(dict(codes), flush=True)
    os._exit(0)

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""


def test_no_child_crashes_before_it_begins(tmp_path):
    pytest.importorskip("uvloop")

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "s")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.stdout.strip() == "{0: 150}", done.stderr[-2000:]
