"""Secure computation on additive shares modulo 2^64, with a crypto provider or two parties alone."""

import sotto_mpc

sotto_mpc.check(__name__)

from mpc.array.shared_array import SharedArray
from mpc.core.cost import Cost
from mpc.core.errors import (
    AbortError,
    AnswerError,
    ArgumentError,
    AuditError,
    CertificateError,
    ConfigurationError,
    DataError,
    DtypeError,
    FrameError,
    HandshakeError,
    LaunchError,
    LimitError,
    MissingExtraError,
    PartyError,
    PeerClosedError,
    PeerError,
    PeerTimeoutError,
    RangeError,
    RangeWarning,
    RevealError,
    SessionError,
    ShapeError,
    SottoError,
    StockError,
    TemporaryError,
    WorkerError,
)  # fmt: skip
from mpc.core.network import Network
from mpc.launch import launch
from mpc.session import Plan, Session
from mpc.split import join, split

__all__ = [
    "AbortError", "AnswerError", "ArgumentError", "AuditError", "CertificateError",
    "ConfigurationError", "Cost", "DataError", "DtypeError", "FrameError", "HandshakeError",
    "LaunchError", "LimitError", "MissingExtraError", "Network", "PartyError", "PeerClosedError",
    "PeerError", "PeerTimeoutError", "Plan", "RangeError", "RangeWarning", "RevealError", "Session",
    "SessionError", "ShapeError", "SharedArray", "SottoError", "StockError", "TemporaryError",
    "WorkerError", "join", "launch", "split",
]  # fmt: skip
