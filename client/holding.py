"""What the blocking face holds: a lease, and the lock that acquires one with each `with`."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from ..core.checks import check
from ..core.results import Released
from . import asks
from .asks import Ask, Register, T
from .base import renewal_milliseconds, shown
from .durations import Duration
from .errors import ClientClosed, ServiceBusy, Unavailable
from .lease import BaseLease
from .states import LeaseState
from .wants import Name

if TYPE_CHECKING:
    from .sync import Client

OnLost = Callable[["Lease"], object] | Literal["terminate", "kill"]
"""What is done when a lease is lost: a call, in a thread of its own; or SIGTERM or SIGKILL to this process."""


class Lease(BaseLease):
    """A lease that this client holds. Use it in `with`, or call `release` when the work is done.

    >>> lease = client.acquire("x", ttl=30)
    >>> lease.held, lease.remaining() > 25, lease.state.value
    (True, True, 'held')
    >>> lease.renew(60)
    >>> lease.release(), lease.held, lease.state.value
    (True, False, 'released')
    """

    @property
    def lost(self) -> threading.Event:
        """An event that is set when the lease is lost; not when it is released."""
        event: threading.Event = self._event()
        return event

    @property
    def ended(self) -> threading.Event:
        """An event that is set when the lease is over, however: lost or released. What work waits for, or looks at."""
        event: threading.Event = self._end_event()
        return event

    def on_change(self, callback: Callable[["Lease", LeaseState], object]) -> None:
        """Have `callback(lease, state)` called with each change of `state` from now on.

        In a thread of its own, one call after the other, in the order of the changes. An error in it is logged. A lease
        that is over by now is told of at once.

        >>> told = []
        >>> with client.lock("x") as lease:
        ...     lease.on_change(lambda lease, state: told.append(state))
        """
        self._on_change(callback)

    def renew(self, ttl: Duration | None = None) -> None:
        """Extend the lease to `ttl` from now (None: by its own ttl); it never shortens.

        Raises:
            LeaseLost: it is not held any more.
            Unavailable: no answer came; indefinite, but the lease is held at least as long as before.
            BadRequest: the ttl is out of bounds, or the lease has none.
        """
        ttl_ms = renewal_milliseconds(self.token, ttl)
        self._check_ours()
        if not self._record.over:
            self._caller.ask(lambda done, deadline: self._protocol.renew(self._record, ttl_ms, done, deadline))
        if self._record.over:
            raise self._is_lost()

    def release(self) -> bool:
        """Give the lease back; True if it was held until now, False if it had been lost or released before.

        Names the grant by its token, so that a release that comes late cannot touch the next holder.

        Raises:
            Unavailable: no answer came. The client counts the lease as released all the same, and goes on releasing it
                in the background; until it gets through, others may see it as held.
        """
        self._given_back = True
        if self._is_not_ours():
            return False
        held = self.held
        result = self._caller.ask(lambda done, deadline: self._protocol.release(self._record, done, deadline))
        return held and isinstance(result, Released)

    def shrink(self, count: int) -> None:
        """Keep only `count` units of the semaphore; whoever waits may have the others at once.

        Raises:
            CannotGrow: that is not less, or no units are held.
            NotHeldError: the lease is not held any more.

        >>> with client.lock(lessor.units("seats", 3, limit=4)) as lease:
        ...     lease.shrink(1)
        ...     lease.resources[0].count
        1
        """
        ask = asks.shrink(self._record.claim, count)
        with self._shrinking(count, to_read=False):
            self._take_status(self._asked(ask))

    def share(self) -> None:
        """Hold only to read from now on what was held to write; readers who wait come in at once.

        Raises:
            NotHeldError: the lease is not held any more.

        >>> with client.lock("catalogue") as lease:
        ...     lease.share()
        ...     print(client.try_acquire(lessor.read("catalogue")).held)
        True
        """
        ask = asks.share(self._record.claim)
        with self._shrinking(None, to_read=True):
            self._take_status(self._asked(ask))

    def update(self, data: bytes) -> None:
        """Replace the data that is kept with the lease, for others to see.

        Raises:
            NotHeldError: the lease is not held any more.

        >>> with client.lock("x", data=b"step 1") as lease:
        ...     lease.update(b"step 2")
        ...     client.describe("x")[0].data
        b'step 2'
        """
        self._take_status(self._asked(asks.update(self._record.claim, data)))
        self._record.data = data

    def write(self, data: bytes, name: Name | None = None, *, version: int | None = None) -> Register:
        """Write the fenced register of `name`, which the lease must cover (None: of the lease's own).

        Args:
            data: what it shall hold.
            name: or path.
            version: that it must have now, 0 for none yet; None for whatever it is.

        Raises:
            VersionConflict: it has another version; nothing was written.
            NotHeldError: the lease is not held any more, by the word of the service.
            NotCovered: the lease does not cover `name` with a claim to write.

        >>> with client.lock("state") as lease:
        ...     first = lease.write(b"day 5", version=0)
        ...     second = lease.write(b"day 6", version=first.version)
        ...     lease.erase(version=second.version)
        True
        """
        path = self._record.path if name is None else name
        return self._asked(asks.write_register(self.namespace, path, self.token, data, version))

    def erase(self, name: Name | None = None, *, version: int | None = None) -> bool:
        """Remove the fenced register of `name`; False if there was none. The errors are those of `write`."""
        path = self._record.path if name is None else name
        return self._asked(asks.erase_register(self.namespace, path, self.token, version))

    def _asked(self, ask: Ask[T]) -> T:
        check(ask.operation)
        self._check_ours()
        result = self._caller.ask(lambda done, deadline: self._protocol.call(ask.operation, done, deadline))
        return ask.read(result)

    def __enter__(self) -> Self:
        """Return the lease itself.

        Raises:
            LeaseLost: it is not held any more; the body is not entered.
        """
        self.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lease. An error of the body is not hidden by one of the release.

        Raises:
            LeaseLost: it was lost while the body ran, so that some of it was done without the lease.
        """
        lost = self._lost_in_its_body()
        try:
            self.release()
        except (Unavailable, ServiceBusy, ClientClosed):
            pass  # it ends by itself with its ttl or its session; the work that it guarded is done
        if lost is not None and error is None:
            raise lost


class Lock:
    """A lock by name: each `with` acquires a lease, and never enters without it."""

    def __init__(self, client: "Client", arguments: dict[str, Any]) -> None:
        """Made by `Client.lock`."""
        self._client = client
        self._arguments = arguments
        self._leases: list[tuple[int, Lease]] = []  # of each thread

    def __repr__(self) -> str:
        """Show what it acquires."""
        return f"<Lock {shown(self._arguments['name'])}>"

    def __enter__(self) -> Lease:
        """Wait for the lease, and return it.

        Raises:
            AcquireTimeout, Unavailable, ServiceBusy, BadRequest: as `Client.acquire`; the body is not entered.
        """
        lease = self._client.acquire(**self._arguments)
        self._leases.append((threading.get_ident(), lease))
        return lease

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lease.

        Raises:
            LeaseLost: it was lost while the body ran.
        """
        mine = [entry for entry in self._leases if entry[0] == threading.get_ident()]
        entry = (mine or self._leases)[-1]  # one that was entered elsewhere, if none was here
        self._leases.remove(entry)
        entry[1].__exit__(kind, error, trace)
