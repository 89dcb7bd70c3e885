"""The body of an `async with` that is cancelled when its lease is lost."""

import asyncio

from .lease import BaseLease
from .records import LeaseRecord
from .states import LeaseState


class Scope:
    """Cancels the task that runs a body, once, when the lease is lost, and takes that back at the body's end.

    As `asyncio.timeout` does: a cancellation from elsewhere at the same time is not swallowed.
    """

    def __init__(self, lease: BaseLease) -> None:
        """Begin with the task that runs now."""
        task = asyncio.current_task()
        assert task is not None, "an `async with` is run by a task"
        self._task = task
        self._before = task.cancelling()
        self._fired = False
        self._over = False
        lease._tell_first(self._changed)  # noqa: SLF001 - a part of the lease, not a user of it

    def end(self, error: BaseException | None) -> bool:
        """Learn how the body ended; True if it was cancelled because of the loss, and for no other reason."""
        self._over = True
        if not self._fired:
            return False
        return self._task.uncancel() <= self._before and isinstance(error, asyncio.CancelledError)

    def _changed(self, record: LeaseRecord) -> None:
        if record.state is LeaseState.LOST and not self._over and not self._fired:
            self._fired = True
            self._task.cancel(f"the lease of {'/'.join(record.path)!r} is lost: {record.reason}")
