"""Recipes of the blocking face: units, re-entrant locks, elections; `lessor.recipes.aio` has the same, awaited."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from ..durations import Duration
from ..errors import ServiceBusy, Unavailable
from ..lease import gone
from ..wants import Name, units
from .rules import Kept, Leader, LeadershipChanged, changed, checked, leader_of, owners_may_differ, under, untold

if TYPE_CHECKING:
    from ..holding import OnLost
    from ..sync import Client, Lease

T = TypeVar("T")


class Semaphore:
    """Units of a semaphore: `limit` of them, or as many as it was created with (limit None).

    >>> pool = client.semaphore("licences", 3)
    >>> with pool as lease:                        # one unit
    ...     both = pool.acquire(2)
    ...     print(pool.try_acquire())
    ...     both.shrink(1)
    ...     print(pool.try_acquire() is not None)
    None
    True
    """

    def __init__(self, client: "Client", name: Name, limit: int | None = None, *, ttl: Duration | None = 30.0) -> None:
        """Use a semaphore; with a limit it appears with its first claim and vanishes with its last one."""
        checked(name, ttl)
        units(name, 1, limit)  # refuses what is none
        self._client = client
        self._name, self._limit, self._ttl = name, limit, ttl
        self._kept: Kept[Lease] = Kept(gone)

    def __repr__(self) -> str:
        """Show the name and the limit."""
        limit = "" if self._limit is None else f" limit={self._limit}"
        return f"<Semaphore {'/'.join(under(self._name))!r}{limit}>"

    def acquire(
        self,
        count: int = 1,
        *,
        timeout: Duration | None = None,
        data: bytes = b"",
        max_hold: Duration | None = None,
        on_lost: "OnLost | None" = None,
    ) -> "Lease":
        """Wait in line for `count` units. The errors are those of `Client.acquire`."""
        want = units(self._name, count, self._limit)
        lease = self._client.acquire(want, self._ttl, timeout=timeout, data=data, max_hold=max_hold, on_lost=on_lost)
        self._kept.push(flow(), lease)
        return lease

    def try_acquire(
        self,
        count: int = 1,
        *,
        data: bytes = b"",
        max_hold: Duration | None = None,
        on_lost: "OnLost | None" = None,
    ) -> "Lease | None":
        """Return `count` units if they are free now, else None."""
        want = units(self._name, count, self._limit)
        lease = self._client.try_acquire(want, self._ttl, data=data, max_hold=max_hold, on_lost=on_lost)
        if lease is not None:
            self._kept.push(flow(), lease)
        return lease

    def release(self) -> bool:
        """Give back what this thread has acquired last through this object; False if it was not held any more.

        Raises:
            BadRequest: it has acquired nothing.
        """
        return self._kept.pop(flow()).release()

    def __enter__(self) -> "Lease":
        """Wait in line for one unit."""
        lease = self._client.acquire(units(self._name, 1, self._limit), self._ttl)
        self._kept.push(flow(), lease, scoped=True)
        return lease

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back.

        Raises:
            LeaseLost: it was lost while the body ran.
        """
        self._kept.leave(flow()).__exit__(kind, error, trace)


class ReentrantLock:
    """A lock that a thread that has it enters again at once, with the same lease; its last exit releases it.

    >>> lock = client.reentrant_lock("ledger")
    >>> with lock as outer, lock as inner:
    ...     print(inner is outer, inner.held)
    True True
    >>> outer.held
    False
    """

    def __init__(self, client: "Client", name: Name, *, ttl: Duration | None = 30.0) -> None:
        """Make a lock; only what goes through this object is let in again."""
        checked(name, ttl)
        self._client = client
        self._name, self._ttl = name, ttl
        self._kept: Kept[Lease] = Kept(gone)

    def acquire(self, *, timeout: Duration | None = None) -> "Lease":
        """Return the lease that this thread has, or wait in line for it.

        For each there is one `release`. The lease's own `with` or `release` gives it back at once, however often this
        thread has it.

        Raises:
            LeaseLost: this thread had it and has lost it, so what goes on outside is without it, too.
        """
        lease = self._own(timeout)
        self._kept.push(flow(), lease)
        return lease

    def release(self) -> bool:
        """Undo one `acquire`; True if that gave the lease back.

        Raises:
            BadRequest: this thread has not acquired it.
        """
        lease = self._kept.pop(flow())
        return self._kept.top(flow()) is not lease and lease.release()

    def __enter__(self) -> "Lease":
        """Acquire."""
        lease = self._own(None)
        self._kept.push(flow(), lease, scoped=True)
        return lease

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release; only the last exit gives the lease back.

        Raises:
            LeaseLost: it was lost while the body ran.
        """
        lease = self._kept.leave(flow())
        if self._kept.top(flow()) is not lease:
            lease.__exit__(kind, error, trace)

    def _own(self, timeout: Duration | None) -> "Lease":
        lease = self._kept.top(flow())
        if lease is None:
            return self._client.acquire(self._name, self._ttl, timeout=timeout)
        lease.check()
        return lease


class Observation(Generic[T]):
    """What a look says, now and whenever it says something else; it may leave out what lasted only for a moment."""

    def __init__(self, client: "Client", name: Name, look: Callable[[], T]) -> None:
        """Made by what is observed."""
        self._watch = client.watch(name)
        self._look = look
        self._seen: list[T] = []
        self._stale = True

    def close(self) -> None:
        """End it, and any wait for it, at once."""
        self._watch.close()

    def __iter__(self) -> Self:
        """Return the observation itself."""
        return self

    def __next__(self) -> T:
        """Return what is so now, then wait for something else.

        Raises:
            Unavailable, ServiceBusy: the service was not reached; it may be asked for again, and nothing is missed.
        """
        if not self._seen:
            self._watch.__enter__()
            if self._watch.closed:
                raise StopIteration
        while True:
            if not self._stale:
                self._stale = owners_may_differ(next(self._watch))
                continue
            found = self._look()
            self._stale = False
            if [found] != self._seen:
                self._seen = [found]
                return found

    def __enter__(self) -> Self:
        """Return the observation itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


class Leadership:
    """To lead, until it is resigned or lost. Use it in `with`, which tells of a loss at its end."""

    def __init__(self, lease: "Lease") -> None:
        """Made by `Election.campaign`."""
        self.lease = lease

    @property
    def token(self) -> int:
        """The fencing token: larger than that of every leader before."""
        return self.lease.token

    @property
    def held(self) -> bool:
        """Whether this is certainly the leader still."""
        return self.lease.held

    @property
    def lost(self) -> threading.Event:
        """An event that is set when the leadership is lost; not when it is resigned."""
        return self.lease.lost

    def check(self) -> None:
        """Return if this is the leader.

        Raises:
            LeaseLost: it is not any more.
        """
        self.lease.check()

    def proclaim(self, value: bytes) -> None:
        """Tell all who look or observe another value.

        Raises:
            NotHeldError: this is not the leader any more.
        """
        self.lease.update(value)

    def resign(self) -> bool:
        """Let the next candidate lead; False if the leadership was lost before."""
        return self.lease.release()

    def __enter__(self) -> Self:
        """Return the leadership itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Resign.

        Raises:
            LeaseLost: the leadership was lost while the body ran.
        """
        self.lease.__exit__(kind, error, trace)


class Election:
    """One of many candidates leads: the first in line, until it resigns, dies, or is lost.

    >>> election = client.election("primary")
    >>> with election.campaign(b"10.0.0.1:80") as leadership:
    ...     leadership.proclaim(b"10.0.0.1:81")
    ...     print(election.leader().value)
    b'10.0.0.1:81'
    >>> print(election.leader())
    None
    """

    def __init__(self, client: "Client", name: Name, *, ttl: Duration | None = 30.0) -> None:
        """Make an election, which all who know its name take part in."""
        checked(name, ttl)
        self._client = client
        self._name, self._ttl = name, ttl

    def __repr__(self) -> str:
        """Show the name."""
        return f"<Election {'/'.join(under(self._name))!r}>"

    def campaign(
        self, value: bytes = b"", *, timeout: Duration | None = None, on_lost: "OnLost | None" = None
    ) -> Leadership:
        """Wait in line until this leads, with `value` for others to see. The errors are those of `Client.acquire`."""
        lease = self._client.acquire(self._name, self._ttl, timeout=timeout, data=value, on_lost=on_lost)
        return Leadership(lease)

    def leader(self) -> Leader | None:
        """Return who leads now, None if nobody does."""
        return leader_of(self._client.describe(self._name), self._name)

    def observe(self) -> Observation[Leader | None]:
        """Return an iterator over who leads, or with which value, from now on (None: nobody does); close it."""
        return Observation(self._client, self._name, self.leader)

    def stable(self) -> "StableLeadership":
        """Return a scope in which the leadership does not change: see `StableLeadership`."""
        return StableLeadership(self)


class StableLeadership:
    """A scope that is told when somebody else leads, or nobody (Juju's WithStableLeadership).

    `changed` is set then, `check` raises LeadershipChanged, and so does the end of the `with`. What a leader proclaims
    is no change. It is told as far as the service can be reached; a leader has its `lost`, which needs nobody.

    >>> leadership = client.election("primary").campaign()
    >>> with client.stable_leadership("primary") as scope:
    ...     print(scope.leader.token == leadership.token, scope.changed.is_set())
    True False
    """

    def __init__(self, election: Election) -> None:
        """Made by `Election.stable`."""
        self._election = election
        self._observation: Observation[Leader | None] | None = None
        self._why: LeadershipChanged | None = None
        self.changed = threading.Event()
        self.leader: Leader | None = None

    def check(self) -> None:
        """Return if the same one leads.

        Raises:
            LeadershipChanged: another one does, or nobody, or it cannot be told any more.
        """
        if self._why is not None:
            raise self._why

    def __enter__(self) -> Self:
        """Find out who leads now."""
        observation = self._election.observe()
        self._why, self.changed = None, threading.Event()
        try:
            self.leader = next(observation)
        except BaseException:
            observation.close()
            raise
        self._observation = observation
        threading.Thread(target=self._follow, args=(observation,), name="lessor-stable", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the scope.

        Raises:
            LeadershipChanged: the leadership has changed while the body ran; an error of the body goes first.
        """
        if self._observation is not None:
            self._observation.close()
        if error is None:
            self.check()

    def _follow(self, observation: Observation[Leader | None]) -> None:
        while observation is self._observation:
            try:
                found = next(observation)
            except (Unavailable, ServiceBusy):
                continue
            except StopIteration:
                return
            except Exception as error:  # noqa: BLE001 - the scope says so
                why = untold(error)
            else:
                if _token(found) == _token(self.leader):
                    continue
                why = changed(self.leader)
            if observation is self._observation:  # else it is that of a scope that has ended
                self._why = why
                self.changed.set()
            return


def flow() -> int:
    """Return what tells this thread apart from others."""
    return threading.get_ident()


def _token(leader: Leader | None) -> int:
    return leader.token if leader is not None else 0
