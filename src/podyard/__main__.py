"""``python -m podyard`` and the ``podyard`` program."""

import gc
import sys

#: Objects made before the collector looks. A program that starts makes hundreds of
#: thousands that stay; looking through them again and again was a fifth of a start.
_GC_THRESHOLD = 200_000


def main() -> None:
    """Run the command line and exit with its code."""
    gc.set_threshold(_GC_THRESHOLD)
    # structlog loads rich, 60 modules, wherever an environment has it; ours is plain.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    from podyard.cli.main import run  # noqa: PLC0415 - after what makes it quick

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
