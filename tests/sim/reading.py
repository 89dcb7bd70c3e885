"""Reads the log for everybody in a simulated world: the same bytes once, since what they say is frozen."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from lessor.core import learner, lease_state
from lessor.core.encoding import decode

_read: dict[bytes, Any] = {}
"""What has been read in this world."""


def read(data: bytes) -> Any:
    """Return what an entry of the log, or a command in it, says."""
    found = _read.get(data)
    if found is None:
        found = _read[data] = decode(data)
    return found


@contextmanager
def reading_once() -> Iterator[None]:
    """Have every learner and every lease state of this process share what one of them has read."""
    _read.clear()
    with ExitStack() as stack:
        for module in (learner, lease_state):
            stack.enter_context(mock.patch.object(module, "decode", read))
        yield
