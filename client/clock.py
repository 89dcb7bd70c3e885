"""The client's own clock, and the anchor that ties the lease clock of the service to it (DESIGN §5)."""

import math
import time
from typing import Final

from ..core import limits

MARGIN: Final = 2 * limits.CLOCK_RATE_DRIFT_PPM / 1_000_000
"""Two clocks, each wrong by the stated bound and in opposite directions, part by this share of the time that passes."""


def now_ms() -> int:
    """Return milliseconds on a clock that no one sets and that does not stand still while the machine sleeps.

    Linux's monotonic clock does stand still then, and a holder would wake up believing that it still holds; so
    CLOCK_BOOTTIME is read where there is one.
    """
    return _read_ns() // 1_000_000


def _boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


_read_ns = _boottime_ns if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic_ns


def asleep_ms() -> int:
    """Return for how many milliseconds in all the machine has been asleep; 0 where no clock tells."""
    return (_read_ns() - _read_awake_ns()) // 1_000_000


_read_awake_ns = time.monotonic_ns


class Anchor:
    """Knows, of every moment on the lease clock, a moment on the client's clock that certainly comes no later.

    An answer stamped `clock` to a request sent at `sent` shows that at `sent` the lease clock was not beyond `clock`.
    It never runs faster than real time, so it reaches `expires_at` no earlier than `sent + (expires_at - clock)`, less
    the drift margin. Each answer may bring a better anchor; none makes it worse.
    """

    def __init__(self) -> None:
        """Start without any answer."""
        self._offset_ms: float | None = None
        self._latest: tuple[int, int] = (0, 0)

    def learn(self, sent_ms: int, received_ms: int, clock_ms: int) -> None:
        """Take an answer in: when its request was first sent, when it came, and the lease clock in it."""
        # a lease clock that shows whole milliseconds may have almost one more
        offset = sent_ms - 1 - clock_ms * (1 - MARGIN)
        if self._offset_ms is None or offset > self._offset_ms:
            self._offset_ms = offset
        if clock_ms >= self._latest[1]:
            self._latest = (received_ms, clock_ms)

    @property
    def known(self) -> bool:
        """Whether any answer has come."""
        return self._offset_ms is not None

    def safe_until_ms(self, expires_at_ms: int) -> int:
        """Return until when, on the client's clock, something that expires at `expires_at_ms` is safe to rely on."""
        if self._offset_ms is None:
            return 0
        return math.floor(self._offset_ms + expires_at_ms * (1 - MARGIN))

    def over_after_ms(self, expires_at_ms: int) -> int:
        """Return when it should be over, as seen by others: an estimate, since the lease clock may stand still."""
        received_ms, clock_ms = self._latest
        return received_ms + int((expires_at_ms - clock_ms) * (1 + MARGIN)) + 1

    @property
    def clock_ms(self) -> int:
        """The lease clock in the newest answer."""
        return self._latest[1]
