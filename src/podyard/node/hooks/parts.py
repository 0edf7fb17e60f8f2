"""What the hook room hands to others."""


class HookError(Exception):
    """A hook failed.

    Attributes:
        message: the detailed text (``Exec lifecycle hook ([…]) for Container … ``);
            it goes to the waiting message, never into an event.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
