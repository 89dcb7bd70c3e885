"""Recipes of the asyncio face: the names of the blocking ones, awaited."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from ..durations import Duration
from ..errors import ServiceBusy, Unavailable
from ..lease import gone
from ..wants import Name, units
from .rules import Kept, Leader, LeadershipChanged, changed, checked, leader_of, owners_may_differ, under, untold

if TYPE_CHECKING:
    from ..aio import Client, Lease
    from ..aio_holding import OnLost

T = TypeVar("T")


class Semaphore:
    """Units of a semaphore: `limit` of them, or as many as it was created with (limit None).

    >>> async def example(client):
    ...     pool = client.semaphore("licences", 3)
    ...     async with pool as lease:                        # one unit
    ...         both = await pool.acquire(2)
    ...         print(await pool.try_acquire())
    ...         await both.shrink(1)
    ...         print(await pool.try_acquire() is not None)
    >>> run(example)
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

    async def acquire(
        self,
        count: int = 1,
        *,
        timeout: Duration | None = None,  # noqa: ASYNC109 - the service is told of it
        data: bytes = b"",
        max_hold: Duration | None = None,
        on_lost: "OnLost | None" = None,
    ) -> "Lease":
        """Wait in line for `count` units. The errors are those of `Client.acquire`."""
        want = units(self._name, count, self._limit)
        lease = await self._client.acquire(
            want, self._ttl, timeout=timeout, data=data, max_hold=max_hold, on_lost=on_lost
        )
        self._kept.push(flow(), lease)
        return lease

    async def try_acquire(
        self,
        count: int = 1,
        *,
        data: bytes = b"",
        max_hold: Duration | None = None,
        on_lost: "OnLost | None" = None,
    ) -> "Lease | None":
        """Return `count` units if they are free now, else None."""
        want = units(self._name, count, self._limit)
        lease = await self._client.try_acquire(want, self._ttl, data=data, max_hold=max_hold, on_lost=on_lost)
        if lease is not None:
            self._kept.push(flow(), lease)
        return lease

    async def release(self) -> bool:
        """Give back what this task has acquired last through this object; False if it was not held any more.

        Raises:
            BadRequest: it has acquired nothing.
        """
        return await self._kept.pop(flow()).release()

    async def __aenter__(self) -> "Lease":
        """Wait in line for one unit."""
        lease = await self._client.acquire(units(self._name, 1, self._limit), self._ttl)
        self._kept.push(flow(), lease, scoped=True)
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back.

        Raises:
            LeaseLost: it was lost while the body ran.
        """
        await self._kept.leave(flow()).__aexit__(kind, error, trace)


class ReentrantLock:
    """A lock that a task that has it enters again at once, with the same lease; its last exit releases it.

    >>> async def example(client):
    ...     lock = client.reentrant_lock("ledger")
    ...     async with lock as outer, lock as inner:
    ...         print(inner is outer, inner.held)
    ...     print(outer.held)
    >>> run(example)
    True True
    False
    """

    def __init__(self, client: "Client", name: Name, *, ttl: Duration | None = 30.0) -> None:
        """Make a lock; only what goes through this object is let in again."""
        checked(name, ttl)
        self._client = client
        self._name, self._ttl = name, ttl
        self._kept: Kept[Lease] = Kept(gone)

    async def acquire(self, *, timeout: Duration | None = None) -> "Lease":  # noqa: ASYNC109 - see above
        """Return the lease that this task has, or wait in line for it.

        For each there is one `release`. The lease's own `async with` or `release` gives it back at once, however often
        this task has it.

        Raises:
            LeaseLost: this task had it and has lost it, so what goes on outside is without it, too.
        """
        lease = await self._own(timeout)
        self._kept.push(flow(), lease)
        return lease

    async def release(self) -> bool:
        """Undo one `acquire`; True if that gave the lease back.

        Raises:
            BadRequest: this task has not acquired it.
        """
        lease = self._kept.pop(flow())
        return self._kept.top(flow()) is not lease and await lease.release()

    async def __aenter__(self) -> "Lease":
        """Acquire."""
        lease = await self._own(None)
        self._kept.push(flow(), lease, scoped=True)
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release; only the last exit gives the lease back.

        Raises:
            LeaseLost: it was lost while the body ran.
        """
        lease = self._kept.leave(flow())
        if self._kept.top(flow()) is not lease:
            await lease.__aexit__(kind, error, trace)

    async def _own(self, timeout: Duration | None) -> "Lease":  # noqa: ASYNC109
        lease = self._kept.top(flow())
        if lease is None:
            return await self._client.acquire(self._name, self._ttl, timeout=timeout)
        lease.check()
        return lease


class Observation(Generic[T]):
    """What a look says, now and whenever it says something else; it may leave out what lasted only for a moment."""

    def __init__(self, client: "Client", name: Name, look: Callable[[], Awaitable[T]]) -> None:
        """Made by what is observed."""
        self._watch = client.watch(name)
        self._look = look
        self._seen: list[T] = []
        self._stale = True

    async def close(self) -> None:
        """End it, and any wait for it, at once."""
        await self._watch.close()

    def __aiter__(self) -> Self:
        """Return the observation itself."""
        return self

    async def __anext__(self) -> T:
        """Return what is so now, then wait for something else.

        Raises:
            Unavailable, ServiceBusy: the service was not reached; it may be asked for again, and nothing is missed.
        """
        if not self._seen:
            await self._watch.__aenter__()
            if self._watch.closed:
                raise StopAsyncIteration
        while True:
            if not self._stale:
                self._stale = owners_may_differ(await anext(self._watch))
                continue
            found = await self._look()
            self._stale = False
            if [found] != self._seen:
                self._seen = [found]
                return found

    async def __aenter__(self) -> Self:
        """Return the observation itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.close()


class Leadership:
    """To lead, until it is resigned or lost. Use it in `async with`, which tells of a loss at its end."""

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
    def lost(self) -> asyncio.Event:
        """An event that is set when the leadership is lost; not when it is resigned."""
        return self.lease.lost

    def check(self) -> None:
        """Return if this is the leader.

        Raises:
            LeaseLost: it is not any more.
        """
        self.lease.check()

    async def proclaim(self, value: bytes) -> None:
        """Tell all who look or observe another value.

        Raises:
            NotHeldError: this is not the leader any more.
        """
        await self.lease.update(value)

    async def resign(self) -> bool:
        """Let the next candidate lead; False if the leadership was lost before."""
        return await self.lease.release()

    async def __aenter__(self) -> Self:
        """Return the leadership itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Resign.

        Raises:
            LeaseLost: the leadership was lost while the body ran.
        """
        await self.lease.__aexit__(kind, error, trace)


class Election:
    """One of many candidates leads: the first in line, until it resigns, dies, or is lost.

    >>> async def example(client):
    ...     election = client.election("primary")
    ...     async with await election.campaign(b"10.0.0.1:80") as leadership:
    ...         await leadership.proclaim(b"10.0.0.1:81")
    ...         print((await election.leader()).value)
    ...     print(await election.leader())
    >>> run(example)
    b'10.0.0.1:81'
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

    async def campaign(
        self,
        value: bytes = b"",
        *,
        timeout: Duration | None = None,  # noqa: ASYNC109 - the service is told of it
        on_lost: "OnLost | None" = None,
    ) -> Leadership:
        """Wait in line until this leads, with `value` for others to see. The errors are those of `Client.acquire`."""
        lease = await self._client.acquire(self._name, self._ttl, timeout=timeout, data=value, on_lost=on_lost)
        return Leadership(lease)

    async def leader(self) -> Leader | None:
        """Return who leads now, None if nobody does."""
        return leader_of(await self._client.describe(self._name), self._name)

    def observe(self) -> Observation[Leader | None]:
        """Return an iterator over who leads, or with which value, from now on (None: nobody does); close it."""
        return Observation(self._client, self._name, self.leader)

    def stable(self) -> "StableLeadership":
        """Return a scope in which the leadership does not change: see `StableLeadership`."""
        return StableLeadership(self)


class StableLeadership:
    """A scope that is told when somebody else leads, or nobody (Juju's WithStableLeadership).

    `changed` is set then, `check` raises LeadershipChanged, and the task that runs the body is cancelled and the
    `async with` raises LeadershipChanged. What a leader proclaims is no change. It is told as far as the service can be
    reached; a leader has its `lost`, which needs nobody.

    >>> async def example(client):
    ...     leadership = await client.election("primary").campaign()
    ...     async with client.stable_leadership("primary") as scope:
    ...         print(scope.leader.token == leadership.token, scope.changed.is_set())
    >>> run(example)
    True False
    """

    def __init__(self, election: Election) -> None:
        """Made by `Election.stable`."""
        self._election = election
        self._observation: Observation[Leader | None] | None = None
        self._why: LeadershipChanged | None = None
        self.changed = asyncio.Event()
        self.leader: Leader | None = None
        self._follower: asyncio.Task[None] | None = None
        self._body: asyncio.Task[Any] | None = None
        self._before = 0
        self._fired = False

    def check(self) -> None:
        """Return if the same one leads.

        Raises:
            LeadershipChanged: another one does, or nobody, or it cannot be told any more.
        """
        if self._why is not None:
            raise self._why

    async def __aenter__(self) -> Self:
        """Find out who leads now."""
        observation = self._election.observe()
        self._why, self.changed, self._fired = None, asyncio.Event(), False
        try:
            self.leader = await anext(observation)
        except BaseException:
            await observation.close()
            raise
        self._observation = observation
        self._body = asyncio.current_task()
        self._before = self._body.cancelling() if self._body else 0
        self._follower = asyncio.create_task(self._follow(observation))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the scope.

        Raises:
            LeadershipChanged: the leadership has changed while the body ran; an error of the body goes first.
        """
        body, self._body = self._body, None  # nothing cancels it from now on
        if self._follower is not None:
            self._follower.cancel()
        if self._observation is not None:
            await self._observation.close()
        # a cancellation from elsewhere at the same time is not swallowed
        alone = self._fired and body is not None and body.uncancel() <= self._before
        if alone and isinstance(error, asyncio.CancelledError):
            raise self._why or changed(self.leader) from error
        if error is None:
            self.check()

    async def _follow(self, observation: Observation[Leader | None]) -> None:
        while self._why is None:
            try:
                found = await anext(observation)
            except (Unavailable, ServiceBusy):
                continue
            except StopAsyncIteration:
                return
            except Exception as error:  # noqa: BLE001 - the scope says so
                self._end(untold(error))
                return
            if _token(found) != _token(self.leader):
                self._end(changed(self.leader))

    def _end(self, why: LeadershipChanged) -> None:
        self._why = why
        self.changed.set()
        if self._body is not None:
            self._fired = True
            self._body.cancel(str(why))


def flow() -> object:
    """Return what tells this task apart from others."""
    return asyncio.current_task()


def _token(leader: Leader | None) -> int:
    return leader.token if leader is not None else 0
