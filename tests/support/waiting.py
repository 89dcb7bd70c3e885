"""Waiting for an event by asking again, with a deadline: the one place under tests/ that may sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(ask: Callable[[], T | None], what: str, *, timeout: float = 60.0, every: float = 0.02) -> T:
    """Ask until the answer is true and return it; after `timeout` seconds fail, naming what was waited for.

    The last question is asked when the time is over, so that nothing is missed by a machine that stands still.
    """
    deadline = time.monotonic() + timeout
    while True:
        over = time.monotonic() >= deadline
        if answer := ask():
            return answer
        if over:
            message = f"waited {timeout} s in vain: {what} (the last answer was {answer!r})"
            raise AssertionError(message)
        time.sleep(every)
