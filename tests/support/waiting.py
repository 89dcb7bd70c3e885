"""Waiting for an event by asking again, with a deadline: the one place under tests/ that may sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(ask: Callable[[], T | None], what: str, *, timeout: float = 60.0, every: float = 0.02) -> T:
    """Ask until the answer is true and return it; after `timeout` seconds fail, naming what was waited for."""
    deadline = time.monotonic() + timeout
    while not (answer := ask()):
        if time.monotonic() >= deadline:
            message = f"waited {timeout} s in vain: {what} (the last answer was {answer!r})"
            raise AssertionError(message)
        time.sleep(every)
    return answer
