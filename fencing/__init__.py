"""Fencing for real resources: guards that refuse a holder that was overtaken while it stood still.

>>> gate = TokenGate()
>>> gate.admit("nightly-report", 7)
>>> gate.admit("nightly-report", 6)
Traceback (most recent call last):
    ...
lessor.fencing.gate.StaleToken: token 6 for 'nightly-report' is stale: 7 has been seen
"""

from .file import FileGate, FileGuard, guarded_write
from .gate import Gate, GuardBusy, StaleToken, TokenGate, resource_of
from .http import (
    TOKEN_HEADER,
    AsyncFencingMiddleware,
    FencingMiddleware,
    Presented,
    parse_token,
    token_headers,
)
from .sql import NoTransaction, SqlGate, SqlGuard

__all__ = [
    "TOKEN_HEADER",
    "AsyncFencingMiddleware",
    "FencingMiddleware",
    "FileGate",
    "FileGuard",
    "Gate",
    "GuardBusy",
    "NoTransaction",
    "Presented",
    "SqlGate",
    "SqlGuard",
    "StaleToken",
    "TokenGate",
    "guarded_write",
    "parse_token",
    "resource_of",
    "token_headers",
]
