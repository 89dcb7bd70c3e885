"""Lengths of time as users give them: seconds, or a timedelta."""

import datetime as dt
from typing import Any

from ..core import limits
from ..core.errors import BadRequest

Duration = float | dt.timedelta
"""A length of time: seconds, or a timedelta."""


def milliseconds(duration: Duration, longest_ms: int = limits.TTL_MS_MAX) -> int:
    """Return a length of time in milliseconds.

    Raises:
        BadRequest: it is none, or too long.
    """
    seconds: Any = duration.total_seconds() if isinstance(duration, dt.timedelta) else duration
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise BadRequest(f"a duration is a number of seconds or a timedelta, not a {type(duration).__name__}")
    if not 0 <= seconds <= longest_ms / 1000:
        raise BadRequest(f"a duration is from 0 to {longest_ms // 1000} seconds, not {duration!r}")
    return int(seconds * 1000)


def ttl_milliseconds(ttl: Duration) -> int:
    """Return a ttl in milliseconds.

    Raises:
        BadRequest: it is none.
    """
    if milliseconds(ttl) == 0:  # on the wire, 0 stands for no ttl at all
        raise BadRequest(f"a ttl is from {limits.TTL_MS_MIN} ms to {limits.TTL_MS_MAX} ms, not {ttl!r}")
    return milliseconds(ttl)
