"""What a start tells the person, and how it fails."""

from collections.abc import Callable

#: A finished step and the seconds it took.
Report = Callable[[str, float], None]


class StartError(Exception):
    """Podyard could not start; the message says why and what to do.

    Attributes:
        code: the program's exit code.
    """

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
