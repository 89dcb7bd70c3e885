"""What one client asks that may end leases of its own, without any I/O: it does not go on to believe in them.

Law it keeps: from the moment of asking until it is certain that a lease was not ended, it is not held (P3). The service
pushes nothing to a session about what that has released itself, and any push may be late.
"""

from collections.abc import Callable
from typing import Any

from ..core.commands import Break, DeleteSemaphore, DropNamespace, Operation, Release, TokenHeld, Transact
from ..core.errors import LessorError
from ..core.results import Declined, Done, NotHeld, Released, Transacted
from .acquiring import Acquiring


class Ends(Acquiring):
    """The part of a protocol that ends leases otherwise than one by one."""

    def ask(self, operation: Operation, on_done: Callable[[Any], None], deadline_ms: int | None) -> None:
        """Begin what a user asks, whatever it is: no lease of this client that it may end is held from now on (P3)."""
        match operation:
            case Release(token):
                self.release_token(token, on_done, deadline_ms)
            case Transact():
                self.transact(operation, on_done, deadline_ms)
            case Break(token, reason):
                self._end_own(operation, [token], reason, on_done, deadline_ms)
            case DeleteSemaphore(namespace, path, force=True):
                self._end_own(
                    operation, self._leases.on(namespace, path), "the semaphore was deleted", on_done, deadline_ms
                )
            case DropNamespace(namespace, force=True):
                self._end_own(operation, self._leases.on(namespace), "its namespace was dropped", on_done, deadline_ms)
            case _:
                self.call(operation, on_done, deadline_ms)

    def transact(self, operation: Transact, on_done: Callable[[Any], None], deadline_ms: int | None) -> None:
        """Begin a transaction. Leases of this client that it may release are not held from now on (P3)."""
        released = [step.token for step in operation.steps if isinstance(step, Release)]
        self._end_own(operation, released, "", on_done, deadline_ms)

    def _end_own(
        self,
        operation: Operation,
        tokens: list[int],
        why: str,
        on_done: Callable[[Any], None],
        deadline_ms: int | None,
    ) -> None:
        """Begin what may end leases of this client. Only when it certainly did not happen are they held again."""

        def done(result: Any) -> None:
            undone = isinstance(result, Declined | NotHeld)
            undone = undone or (isinstance(result, LessorError) and not result.indefinite)
            self._leases.take_up(laid_down, released=not undone, vanished=_not_held(operation, result), broken=why)
            if not undone and not isinstance(result, Transacted | Released | Done):
                for lease in laid_down:
                    self._give_back(lease.token)
            on_done(result)

        laid_down = self._leases.lay_down(tokens)
        self.call(operation, done, deadline_ms)

    def release_token(self, token: int, on_done: Callable[[Any], None], deadline_ms: int | None) -> None:
        """Give back the grant of a token, which may well be that of a lease of this client (P3)."""
        lease = self._leases.find(token)
        if lease is not None:
            self.release(lease, on_done, deadline_ms)
        else:
            self.call(Release(token), on_done, deadline_ms)


def _not_held(operation: Operation, result: Any) -> int:
    """Return the token of which the service said in answer that it is not held, 0 if it said so of none."""
    if isinstance(operation, Transact) and isinstance(result, Declined):
        items: tuple[Any, ...] = operation.checks if result.part == "check" else operation.steps
        item = items[result.index] if result.index < len(items) else None
        return item.token if isinstance(item, TokenHeld | Release) else 0
    return operation.token if isinstance(operation, Break) and isinstance(result, NotHeld) else 0
