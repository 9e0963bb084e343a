"""The tree of errors, named by what the caller does next.

Library exceptions are mapped to these once, in `kube.client` and at the kubelet server's edge.
Every module may raise and catch them; nothing here knows Kubernetes or asyncio.
"""


class VnodeError(Exception):
    """Any failure vnode foresees. What is not one of these is a bug."""


class ConfigError(VnodeError):
    """The user's configuration cannot be used: print the one line, exit 2."""


class ApiError(VnodeError):
    """An apiserver refused or failed one request.

    `code` is the HTTP status (0: no answer), `reason` the `metav1.Status` reason ("" when there was none).
    """

    def __init__(self, message: str, code: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason


class NotFound(ApiError):
    """404: treat the object as absent."""


class Conflict(ApiError):
    """409: what we knew is old (or the name is taken, reason `AlreadyExists`); read again."""


class Gone(ApiError):
    """410: the history we asked for is lost; list again."""


class Rejected(ApiError):
    """The request itself is refused (400, 403, 405, 413, 415, 422): tell the user, look again later."""


class Unauthorized(Rejected):
    """401: the credential is not, or no longer, accepted."""


class Unavailable(ApiError):
    """No useful answer (refused, reset, timed out, 429, 5xx): back off, at least `after` seconds."""

    def __init__(self, message: str, code: int = 0, reason: str = "", after: float = 0.0) -> None:
        super().__init__(message, code, reason)
        self.after = after


class TooLong(Unavailable):
    """The answer is longer than we hold at once: ask for less of it."""


class Idle(Unavailable):
    """A stream said nothing for as long as its reader allows: the other end may be gone without a word."""
