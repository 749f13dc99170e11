"""The one exception a reader can act on; programs show it without a traceback and end with exit code 2."""


class DetectorsError(Exception):
    """``<subject>: <found>, expected <expected>. <remedy>``"""

    def __init__(self, subject: object, found: str, expected: str, remedy: str) -> None:
        super().__init__(f"{subject}: {found}, expected {expected}. {remedy}")
