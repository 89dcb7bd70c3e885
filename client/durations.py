"""Lengths of time as users give them: seconds, or a timedelta."""

import datetime as dt
from typing import Any

from ..core import limits
from ..core.checks import in_seconds
from ..core.errors import BadRequest

Duration = float | dt.timedelta
"""A length of time: seconds, or a timedelta."""


def milliseconds(duration: Duration, what: str = "duration", low_ms: int = 0, high_ms: int = limits.TTL_MS_MAX) -> int:
    """Return a length of time in milliseconds.

    Raises:
        BadRequest: it is none, or out of these bounds; the text says so in seconds, and shows what was given.
    """
    seconds: Any = duration.total_seconds() if isinstance(duration, dt.timedelta) else duration
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise BadRequest(f"a {what} is a number of seconds or a timedelta, not a {type(duration).__name__}")
    if not low_ms / 1000 <= seconds <= high_ms / 1000:
        raise BadRequest(f"a {what} is from {in_seconds(low_ms)} to {in_seconds(high_ms)}, not {duration!r:.80}")
    return round(seconds * 1000)  # 2.3 s are not to become 2299 ms


def ttl_milliseconds(ttl: Duration) -> int:
    """Return a ttl in milliseconds.

    Raises:
        BadRequest: it is none.
    """
    return milliseconds(ttl, "ttl", limits.TTL_MS_MIN, limits.TTL_MS_MAX)


def checked_gap(gap: dt.timedelta) -> dt.timedelta:
    """Return a safety gap as it is.

    Raises:
        BadRequest: it is no timedelta, or a negative one, which would be no gap but a loan.
    """
    given: Any = gap
    if not isinstance(given, dt.timedelta) or gap < dt.timedelta(0):
        raise BadRequest(f"a safety gap is a timedelta of 0 or more, not {gap!r:.80}")
    return gap
