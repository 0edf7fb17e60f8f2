"""Generate the wire messages from the ``.proto`` files beside this script.

``python proto/generate.py`` writes ``*_pb2.py`` and ``*_pb2.pyi`` into the rooms
that own them; ``--check`` only tells whether they are up to date (exit code 1).
Needs the ``grpcio-tools`` package, which is a development tool.

protoc adds a check that refuses any protobuf runtime older than itself. The messages
here use nothing newer than the builder interface of protobuf 4, so that check is
taken out: an installed program must not depend on the newest protobuf there is.
"""

import re
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "src" / "podyard"
TARGETS = {
    "podyard_cri": SOURCE / "cri" / "proto",
    "podyard_containerd": SOURCE / "containerd" / "proto",
}
VERSION_CHECK = re.compile(
    r"^from google\.protobuf import runtime_version.*\n"
    r"|^_runtime_version\.ValidateProtobufRuntimeVersion\([^)]*\)\n",
    re.MULTILINE,
)


def generate(name: str, into: Path) -> None:
    """Run protoc for one file.

    Raises:
        SystemExit: protoc found a fault.
    """
    include = Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{HERE}", f"-I{include}", f"--python_out={into}"]
    code = protoc.main([*arguments, f"--pyi_out={into}", f"{name}.proto"])
    if code:
        raise SystemExit(code)
    module = into / f"{name}_pb2.py"
    module.write_text(VERSION_CHECK.sub("", module.read_text()))


def main() -> int:
    """Write the generated files, or compare them with those in the tree."""
    check = "--check" in sys.argv[1:]
    stale = []
    for name, target in TARGETS.items():
        with tempfile.TemporaryDirectory() as scratch:
            generate(name, Path(scratch))
            for made in sorted(Path(scratch).iterdir()):
                kept = target / made.name
                if kept.is_file() and kept.read_bytes() == made.read_bytes():
                    continue
                stale.append(kept.name)
                if not check:
                    target.mkdir(parents=True, exist_ok=True)
                    kept.write_bytes(made.read_bytes())
    if stale:
        print(("out of date: " if check else "written: ") + ", ".join(stale))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
