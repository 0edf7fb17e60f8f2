"""What the environment room hands to others."""


class EnvironmentBuildError(Exception):
    """A variable cannot be had; the container waits as CreateContainerConfigError.

    Attributes:
        message: the waiting message, never with a secret value.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
