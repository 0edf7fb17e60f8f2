"""What the RuntimeClass room hands to others."""


class RuntimeClassError(Exception):
    """The Pod's class does not exist.

    Attributes:
        message: the text of ``FailedCreatePodSandBox`` after its colon.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
