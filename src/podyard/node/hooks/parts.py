"""What the hook room hands to others."""

from typing import Final

#: A Pod's annotation: what tells a handler which delivery it is, comma-separated.
#: ``headers`` adds two headers to httpGet hooks, ``arguments`` two arguments to exec
#: hooks.
DELIVERY_ANNOTATION: Final = "podyard.dev/hook-delivery"
ID_HEADER: Final = "Podyard-Hook-Delivery-Id"
ATTEMPT_HEADER: Final = "Podyard-Hook-Attempt"
#: The file in a container's log directory that exec hooks' output goes to.
LOG_NAME: Final = "hooks.log"


class HookError(Exception):
    """A hook failed.

    Attributes:
        message: the detailed text (``Exec lifecycle hook ([…]) for Container … ``);
            it goes to the waiting message, never into an event.
        summary: the same without anything the hook has put out, for the records.
    """

    def __init__(self, message: str, *, summary: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.summary = summary or message


class HookInterruptedError(HookError):
    """The runtime died under the delivery; whether the hook ran is not known."""
