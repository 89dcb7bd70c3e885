"""A clock of one machine in a simulated world: it starts anywhere, and runs a little wrong."""

import random
from math import ceil

MS = 1000
"""Microseconds: true time is told in these, so that rounding to milliseconds is part of what is tested."""


class Clock:
    """A monotonic clock, as a function of true time."""

    __slots__ = ("_base_ms", "_from_us", "_rate")

    def __init__(self, now_us: int, base_ms: float, drift: float) -> None:
        """Start at `base_ms`; `drift` is by how much its rate is wrong."""
        self._from_us = now_us
        self._base_ms = base_ms
        self._rate = (1 + drift) / MS

    @classmethod
    def draw(cls, rng: random.Random, now_us: int, drift_ppm: int) -> "Clock":
        """Draw a clock whose rate is wrong within the bound, and often by just the bound."""
        drift = rng.choice((-1.0, -1.0, 0.0, 1.0, 1.0, rng.uniform(-1, 1))) * drift_ppm / 1_000_000
        return cls(now_us, rng.uniform(0, 1_000_000), drift)

    def now_ms(self, now_us: int) -> int:
        """Return what the clock shows."""
        return int(self._base_ms + (now_us - self._from_us) * self._rate)

    def exactly_ms(self, now_us: int) -> float:
        """Return what it would show if it showed fractions."""
        return self._base_ms + (now_us - self._from_us) * self._rate

    def when_us(self, at_ms: int) -> int:
        """Return the first moment in true time at which the clock shows `at_ms`."""
        base_ms, rate = self._base_ms, self._rate
        after_us = ceil((at_ms - base_ms) / rate)
        while base_ms + after_us * rate < at_ms:
            after_us += 1
        return self._from_us + after_us

    def stand_still(self, for_us: int) -> None:
        """Let true time pass without the clock: CLOCK_MONOTONIC while the machine is suspended."""
        self._from_us += for_us
