"""The mounter of all volumes whose content is files we write."""

from collections.abc import Awaitable, Callable
from dataclasses import field
from datetime import UTC, datetime

from podyard.lib.clock import SystemClock
from podyard.lib.values import dataclass
from podyard.node.volumes.atomic import DATA_LINK, write_payload
from podyard.node.volumes.build import Payload, PayloadError, fingerprint
from podyard.node.volumes.mounts import ensure_tmpfs
from podyard.node.volumes.parts import MountedVolume, SetUpError, VolumeContext


@dataclass(frozen=True, slots=True)
class Gathered:
    """Files, and when they must be gathered anew without a change.

    Attributes:
        files: by path.
        refresh_at_s: monotonic seconds; ``None`` is never.
    """

    files: Payload = field(repr=False)
    refresh_at_s: float | None = None


class PayloadMounter:
    """Writes files atomically into a directory or a tmpfs of the volume's own.

    Args:
        context: the volume.
        gather: makes the files; may raise PayloadError or SetUpError.
        in_memory: keep them on a tmpfs, never on disk.
    """

    def __init__(
        self,
        context: VolumeContext,
        gather: Callable[[], Awaitable[Gathered]],
        *,
        in_memory: bool,
    ) -> None:
        self._context = context
        self._gather = gather
        self._in_memory = in_memory
        self._gathered = Gathered({})

    @property
    def refresh_at_s(self) -> float | None:
        """When the files must be gathered anew without a change."""
        return self._gathered.refresh_at_s

    async def prepare(self) -> bytes:
        """Gather the files.

        Raises:
            SetUpError: something is missing.
        """
        try:
            self._gathered = await self._gather()
        except PayloadError as error:
            raise SetUpError(str(error)) from error
        return fingerprint(
            self._gathered.files, salt=f"{self._context.fs_group} {self._in_memory}"
        )

    def set_up(self) -> None:
        """Write the files."""
        path = self._context.path
        if self._in_memory:
            ensure_tmpfs(path, secret=True)
        elif not path.is_dir():
            path.mkdir(mode=0o777, parents=True, exist_ok=True)
            path.chmod(0o777)
        write_payload(
            path,
            self._gathered.files,
            stamp=_stamp(SystemClock().now()),
            fs_group=self._context.fs_group,
        )

    def is_set_up(self) -> bool:
        """Return whether earlier files are there."""
        return (self._context.path / DATA_LINK).is_symlink()

    def mounted(self) -> MountedVolume:
        """Return the directory; read-only, whatever a mount says."""
        return MountedVolume(
            self._context.volume.name,
            str(self._context.path),
            read_only=True,
            selinux_relabel=True,
        )


def _stamp(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y_%m_%d_%H_%M_%S.%f")
