"""Short times for tests on real nodes, and longer ones where the machine stood still for longer than the short ones."""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lessor import AcquireTimeout, Unavailable
from lessor.client import caller, calling, loop_caller

from .waiting import until

ENDS_S = 60
"""Within this time a client ends in tests. Users wait for a second or two: then the session ends by itself, later."""


def longer(shortest: float) -> tuple[float, float, float]:
    """Return a time in which all is done unless the machine stands still meanwhile, and then two that are longer."""
    return shortest, max(10 * shortest, 6.0), max(100 * shortest, 30.0)


def timed_out(acquire: Callable[[float], object], shortest: float = 0.2) -> AcquireTimeout:
    """Acquire what is not free, with a timeout, and return the error, which is to be definite (P9).

    A client that was not answered in time knows less than that. Then it is given longer.
    """
    told: list[Exception] = []
    for timeout in longer(shortest):
        with pytest.raises((AcquireTimeout, Unavailable)) as caught:
            acquire(timeout)
        if isinstance(caught.value, AcquireTimeout) and not caught.value.indefinite:
            return caught.value
        told.append(caught.value)
    raise AssertionError(f"it never knew for certain that it was not granted: {told}")


async def timed_out_awaited(acquire: Callable[[float], Awaitable[object]], shortest: float = 0.2) -> AcquireTimeout:
    """Do the same with a client of the asyncio face."""
    told: list[Exception] = []
    for timeout in longer(shortest):
        with pytest.raises((AcquireTimeout, Unavailable)) as caught:
            await acquire(timeout)
        if isinstance(caught.value, AcquireTimeout) and not caught.value.indefinite:
            return caught.value
        told.append(caught.value)
    raise AssertionError(f"it never knew for certain that it was not granted: {told}")


async def free_in_time(client: Any, name: str, shortest: float) -> bool:
    """Wait until a name is free, for a short time, or for longer if that was too short even for an answer."""
    for timeout in longer(shortest):
        try:
            return bool(await client.wait_free(name, timeout))
        except Unavailable:
            continue
    raise AssertionError("it was never answered")


def outlives(lease: Any, seconds: float) -> bool:
    """Wait until a lease has been renewed for so much longer; False if it was lost before."""
    first = lease.expire_time_unsafe()
    until(lambda: not lease.held or lease.expire_time_unsafe() > first + 1_000 * seconds, "it is renewed")
    return bool(lease.held)


class Since:
    """Bounds what is left of a time that began to run after this was made."""

    def __init__(self) -> None:
        """Begin now."""
        self._began = time.clock_gettime(time.CLOCK_BOOTTIME)

    def left(self, seconds: float, look: Callable[[], float], within: float = 1.0) -> bool:
        """Whether `look` says that of so many seconds no more is gone than can be, give or take `within`."""
        found = look()
        gone = time.clock_gettime(time.CLOCK_BOOTTIME) - self._began
        return seconds - gone - within < found <= seconds


@contextmanager
def unhurried_ends() -> Iterator[None]:
    """Have clients that are closed or collected give back what they hold however slow the machine is."""
    with pytest.MonkeyPatch.context() as patched:
        for module in (caller, calling, loop_caller):
            for name in ("CLOSE_TIMEOUT_MS", "END_TIMEOUT_MS"):
                patched.setattr(module, name, 1_000 * ENDS_S)
        yield


UNHURRIED = f"""
from lessor.client import caller as _1, calling as _2, loop_caller as _3
for _each in (_1, _2, _3):
    _each.CLOSE_TIMEOUT_MS = _each.END_TIMEOUT_MS = {1_000 * ENDS_S}
"""
"""The same for a program in a process of its own."""
