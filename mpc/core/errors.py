"""Exceptions of the protocols; those on values, shapes and dtypes come from the ring."""

from ring.errors import (
    ArgumentError,
    DataError,
    DtypeError,
    ProcessError,
    RangeError,
    ShapeError,
    SottoError,
)

__all__ = [
    "ABORTED",
    "AbortError",
    "AnswerError",
    "ArgumentError",
    "AuditError",
    "CertificateError",
    "ConfigurationError",
    "DataError",
    "DtypeError",
    "FrameError",
    "HandshakeError",
    "LaunchError",
    "LimitError",
    "MissingExtraError",
    "PartyError",
    "PeerClosedError",
    "PeerError",
    "PeerTimeoutError",
    "ProcessError",
    "RangeError",
    "RangeWarning",
    "RevealError",
    "SessionError",
    "ShapeError",
    "SottoError",
    "StockError",
    "TemporaryError",
    "WorkerError",
]


class PartyError(ArgumentError):
    """A party that is unknown, repeated or missing."""


class SessionError(SottoError, RuntimeError):
    """A session is closed or belongs to another thread or process, or an array to another session."""


class StockError(SessionError):
    """A stock that two parties cannot use: missing, damaged, copied, of something else, or by workers."""


class RangeWarning(UserWarning):
    """By the public bounds, a result may leave the ring's range, and nothing checks its values."""


class RevealError(SottoError, TypeError):
    """An operation that would reveal a secret without saying so."""


class MissingExtraError(SottoError, ImportError):
    """An optional package is not installed; names the extra that brings it."""


class ConfigurationError(ArgumentError):
    """A configuration file, certificate or key that is missing or wrong; names file and line."""


class TemporaryError(ConfigurationError):
    """A fault that may pass without a change here, such as an address that is taken."""


class PeerError(SessionError):
    """Another party, the provider or a client is lost, late or breaks the protocol; names it.

    The message holds names, rounds and steps, never values: it may be sent to the other parties.
    """


class PeerClosedError(PeerError, ConnectionError):
    """Another process closed the connection, or cannot be reached."""


class PeerTimeoutError(PeerError, TimeoutError):
    """Another process did not answer in time."""


class FrameError(PeerError):
    """A frame that is malformed, too large, out of order, or not what comes next."""


class HandshakeError(PeerError):
    """The processes do not agree on what they are about to run."""


ABORTED = "the session has ended: a check between the parties has failed"
"""All that anybody is told of a failed check: which one it was would tell a cheater something."""


class AbortError(PeerError):
    """In a session with ``security="malicious"``, somebody has deviated from the program.

    Always with the same text, at every party; nothing was revealed that depends on the deviation.
    """

    def __init__(self, *_: object) -> None:
        super().__init__(ABORTED)


class AnswerError(PeerError):
    """Watched parties have told a client different things, or have a model other than it has named."""


class AuditError(PeerError):
    """The provider has dealt other corrections than follow from the keys; names it, and for which ids."""


class LimitError(PeerError):
    """A client has asked for more than it may in an hour; names the party, the client and the limit.

    Attributes
    ----------
    retry_after : float or None
        Seconds after which the parties would take the same request; None if never, as it is too large.
    """

    def __init__(self, message: str, retry_after: float | None) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


class WorkerError(SottoError, RuntimeError):
    """A worker's part of a prediction failed, or was lost too often; names the party.

    All parties raise it together, and their session goes on.
    """


class CertificateError(HandshakeError):
    """A certificate is not accepted, of another process or by it: to try again would not help."""


class LaunchError(SessionError):
    """A process started by :func:`mpc.launch` has failed.

    Attributes
    ----------
    errors : dict of str to str
        The error of each process that failed, by party.
    """

    def __init__(self, message: str, errors: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.errors = dict(errors or {})
