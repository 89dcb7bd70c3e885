"""Recipes of the asyncio face for several parties: the names of the blocking ones, awaited."""

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from ..durations import Duration, milliseconds
from ..errors import AcquireTimeout, Unavailable
from ..wants import Name, read
from .aio import Election, Observation, ReentrantLock, Semaphore, StableLeadership
from .rules import (
    ENDPOINTS,
    LEAVE_S,
    LOOK_S,
    SKIPPED,
    TRY_AGAIN_S,
    Deadline,
    Member,
    Share,
    Skipped,
    arrived,
    check_function,
    check_job,
    check_parties,
    check_ttl,
    checked,
    may_open,
    members_of,
    started,
    under,
)

if TYPE_CHECKING:
    from ..aio import Client, Lease
    from ..aio_holding import OnLost

P = ParamSpec("P")
R = TypeVar("R")


class Barrier:
    """Holds up whoever comes until so many are here, and then lets all of them go at once; again and again.

    Whoever dies while it waits counts as here until its lease has run out. Once all have gone nothing is left behind,
    unless the service was away as the last one gave up: the next round clears that up.

    >>> async def example(client):
    ...     barrier = client.barrier("loaded", 2)
    ...     print(sorted(await asyncio.gather(barrier.wait(), barrier.wait())))
    >>> run(example)
    [0, 1]
    """

    def __init__(self, client: "Client", name: Name, parties: int, *, ttl: Duration | None = 30.0) -> None:
        """Make a barrier for so many parties; all of them say the same number."""
        self._client = client
        self._parties = check_parties(parties)
        self._ttl = ttl
        self._gate, self._here = under(name, "gate"), under(name, "here")
        checked(self._gate, ttl)

    async def wait(self, timeout: Duration | None = None) -> int:  # noqa: ASYNC109
        """Wait until all are here; return how many were here before.

        Raises:
            AcquireTimeout: they were not in time; this one does not count as here any more.
            LeaseLost: the service has not heard of this one for too long, and does not count it.
        """
        deadline = Deadline(asyncio.get_running_loop().time, timeout)
        async with await self._client.acquire(read(*self._here), self._ttl, timeout=timeout) as place:
            async with self._client.lock(self._gate, self._ttl, timeout=deadline.left()) as gate:
                round_ = (await self._client.read_register(self._gate)).data or str(gate.token).encode()
                before = await self._arrived(round_)
                if not before:  # the first of a round writes down which one it is; the last one erases that
                    await gate.write(round_)
                since = await self._client.revision()
                await place.update(round_)
                if before + 1 >= self._parties:
                    await gate.erase()
                    return before
            await self._wait_for(round_, place, since, deadline)
        return before

    async def _wait_for(self, round_: bytes, place: "Lease", since: int, deadline: Deadline) -> None:
        async with self._client.watch(self._gate, since=since) as watch:
            while True:
                told = await watch.next(timeout=deadline.left_at_most(LOOK_S))
                if may_open(told) and await self._opened(round_):
                    return  # or `with place` says that it was not counted to the end
                place.check()
                if told is None and deadline.over:
                    await self._leave(round_, place)
                    return

    async def _leave(self, round_: bytes, place: "Lease") -> None:
        gate: Lease | None
        try:
            gate = await self._client.acquire(self._gate, self._ttl, timeout=LEAVE_S)
        except (AcquireTimeout, Unavailable):
            gate = await self._client.try_acquire(self._gate, self._ttl)
        if gate is None:
            opened = await self._opened(round_)
        else:
            async with gate:
                opened = await self._opened(round_)
                if not opened:
                    await place.release()
                    if not await self._arrived(round_):
                        await gate.erase()
        if opened:
            return
        # whoever has the gate may have counted this one, and open it for the others
        raise AcquireTimeout(f"not all {self._parties} parties came in time", indefinite=gate is None)

    async def _opened(self, round_: bytes) -> bool:
        return (await self._client.read_register(self._gate)).data != round_

    async def _arrived(self, round_: bytes) -> int:
        return arrived(await self._client.describe(self._here), self._here, round_)


class DoubleBarrier:
    """All begin together, and nobody goes on before all have ended. In `async with`, or by `enter` and `leave`."""

    def __init__(self, client: "Client", name: Name, parties: int, *, ttl: Duration | None = 30.0) -> None:
        """Make a double barrier for so many parties."""
        self._begin = Barrier(client, under(name, "begin"), parties, ttl=ttl)
        self._end = Barrier(client, under(name, "end"), parties, ttl=ttl)

    async def enter(self, timeout: Duration | None = None) -> int:  # noqa: ASYNC109
        """Wait until all want to begin; as `Barrier.wait`."""
        return await self._begin.wait(timeout)

    async def leave(self, timeout: Duration | None = None) -> int:  # noqa: ASYNC109
        """Wait until all have ended; as `Barrier.wait`."""
        return await self._end.wait(timeout)

    async def __aenter__(self) -> Self:
        """Wait until all want to begin."""
        await self.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until all have ended, whether in an error or not."""
        await self.leave()


class Party:
    """Who is here.

    >>> async def example(client):
    ...     party = client.party("web-servers")
    ...     async with await party.join(b"10.0.0.1:80"):
    ...         print([member.data for member in await party.members()])
    ...     print(await party.members())
    >>> run(example)
    [b'10.0.0.1:80']
    []
    """

    def __init__(self, client: "Client", name: Name, *, ttl: Duration | None = 30.0) -> None:
        """Make a party, to join or to look at."""
        checked(name, ttl)
        self._client = client
        self._name, self._ttl = name, ttl

    async def join(self, data: bytes = b"", *, on_lost: "OnLost | None" = None) -> "Lease":
        """Be here, with data for others to see, until the lease is released or lost."""
        return await self._client.acquire(read(*under(self._name)), self._ttl, data=data, on_lost=on_lost)

    async def members(self) -> list[Member]:
        """Return who is here, in the order of their coming."""
        return members_of(await self._client.describe(self._name), self._name)

    def observe(self) -> Observation[list[Member]]:
        """Return an iterator over who is here, from now on; close it."""
        return Observation(self._client, self._name, self.members)


class Workers:
    """Up to `capacity` of the named tasks for this worker; the others are left to other workers.

    All that may be free are tried at once; what is granted beyond the capacity is released at once. Iterating yields
    the lease of each task that was won, waits while there is no room, and goes on when a lease was released or lost,
    here or elsewhere. One task takes them. (After YDB's example.)

    >>> async def example(client):
    ...     async with client.workers([f"job-{number}" for number in range(10)], capacity=4) as workers:
    ...         leases = [await anext(workers) for _ in range(4)]
    ...         print(len({lease.name for lease in leases}), await workers.take(timeout=0))
    ...     print([lease.held for lease in leases])
    >>> run(example)
    4 None
    [False, False, False, False]
    """

    def __init__(self, client: "Client", names: Iterable[Name], capacity: int, *, ttl: Duration | None = 30.0) -> None:
        """Share these tasks out with all workers that name them."""
        check_ttl(ttl)
        self._client = client
        self._ttl = ttl
        self._share = Share(names, capacity)
        self._watch = client.watch((), below=True)
        self._begun = False

    @property
    def held(self) -> list["Lease"]:
        """The leases of the tasks that this worker has."""
        return [lease for lease in self._share.held if lease.held]

    async def take(self, timeout: Duration | None = None) -> "Lease | None":  # noqa: ASYNC109
        """Return the lease of the next task that was won; None if there was none in time, or after `close`.

        Raises:
            Unavailable, ServiceBusy: as `Client.acquire`; ask again.
        """
        deadline = Deadline(asyncio.get_running_loop().time, timeout)
        if not self._begun:
            await self._watch.__aenter__()
            self._begun = True
        again = Deadline(asyncio.get_running_loop().time, TRY_AGAIN_S)
        while not self._is_closed():
            self._share.prune()
            await self._try(self._share.to_try())
            if self._is_closed():
                break
            if self._share.won:
                lease: Lease = self._share.won.popleft()
                return lease
            told = await self._watch.next(timeout=deadline.left_at_most(again.left_at_most(TRY_AGAIN_S)))
            if told is not None:
                self._share.told(told)
            elif deadline.over:
                return None
            if again.over:
                self._share.told(None)
                again = Deadline(asyncio.get_running_loop().time, TRY_AGAIN_S)
        await _release_all(self._share.held)  # also what was granted after `close` had looked
        return None

    def _is_closed(self) -> bool:
        return self._watch.closed

    async def _try(self, names: list[Name]) -> None:
        if not names:
            return
        tries = [asyncio.ensure_future(self._client.try_acquire(name, self._ttl)) for name in names]
        try:
            await asyncio.wait(tries)
        except BaseException:  # as of a cancellation
            for one in tries:
                one.cancel()
            await _release_all(_granted(tries))
            raise
        got = _granted(tries)
        await _release_all(self._share.take(got))
        failed = [error for one in tries if (error := one.exception())]
        if failed:
            self._share.told(None)  # what was not answered is tried again
            if not got:
                raise failed[0]

    async def close(self) -> None:
        """Release all tasks, and end any wait for one, at once."""
        await self._watch.close()
        await _release_all(self._share.held)

    def __aiter__(self) -> Self:
        """Return the workers themselves."""
        return self

    async def __anext__(self) -> "Lease":
        """Wait for the next task; it ends only by `close`."""
        lease = await self.take()
        if lease is None:
            raise StopAsyncIteration
        return lease

    async def __aenter__(self) -> Self:
        """Return the workers themselves."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release all tasks."""
        await self.close()


def _granted(tries: "Iterable[asyncio.Future[Lease | None]]") -> list["Lease"]:
    done = [one for one in tries if one.done() and not one.cancelled() and one.exception() is None]
    return [lease for one in done if (lease := one.result()) is not None]


async def _release_all(leases: Iterable["Lease"]) -> None:
    """Begin all releases before the first is waited for: no cancellation leaves one out."""
    loop = asyncio.get_running_loop()
    answers: list[asyncio.Future[Any]] = []
    for lease in list(leases):
        answers.append(loop.create_future())
        lease._begin_release(functools.partial(_set, answers[-1]))  # noqa: SLF001 - which users have no need of
    if answers:
        await asyncio.wait(answers)  # what was not answered goes on in the background, or ends by itself


def _set(answer: "asyncio.Future[Any]", value: Any) -> None:
    if not answer.done():
        answer.set_result(value)


def singleton(
    name: Name,
    *,
    client: "Client | None" = None,
    timeout: Duration | None = 0,
    min_hold: Duration = 0,
    ttl: Duration = 30.0,
    on_lost: "OnLost | None" = None,
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R | Skipped]]]:
    """Have a function run once at a time over all hosts, as for a job that many of them start.

    Args:
        name: of the job, and of its lease while it runs; the start is marked by the lease of the name with ".started".
        client: None: one for each call, to the endpoints in LESSOR_ENDPOINTS.
        timeout: how long to wait while it runs elsewhere, or has just run; then it is skipped, and SKIPPED returned.
        min_hold: after a start it does not start again for so long, however soon it ends or dies. Choose more than the
            clocks of the hosts differ, and less than the time between two runs.
        ttl: of the lease, which is renewed while the function runs.
        on_lost: as in `Client.acquire`; the call raises LeaseLost in any case, at its end.

    The task that runs the function is cancelled if the lease is lost.

    >>> async def example(client):
    ...     @client.singleton("nightly-report", min_hold=60)
    ...     async def report():
    ...         return "done"
    ...     print(await report(), await report())
    >>> run(example)
    done SKIPPED
    """
    check_job(name, ttl, timeout, min_hold, on_lost)

    def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R | Skipped]]:
        check_function(function, awaited=True)

        @functools.wraps(function)
        async def run(*arguments: P.args, **options: P.kwargs) -> R | Skipped:
            return await alone(lambda: function(*arguments, **options))

        return run

    async def alone(job: Callable[[], Awaitable[R]]) -> R | Skipped:
        from ..aio import connect  # noqa: PLC0415 - which offers this as a method of its clients

        if client is None:
            async with connect(os.environ.get(*ENDPOINTS)) as own:
                return await held(own, job)
        return await held(client, job)

    async def held(using: "Client", job: Callable[[], Awaitable[R]]) -> R | Skipped:
        deadline = Deadline(asyncio.get_running_loop().time, timeout)
        running = using.lock(under(name), ttl, timeout=timeout, on_lost=on_lost, cancel_on_loss=True)
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(running)
                if milliseconds(min_hold):
                    # nobody's but its ttl's: it outlives the job, this client and this process
                    await using.acquire(
                        started(name), min_hold, timeout=deadline.left(), detached=True, auto_renew=False
                    )
            except AcquireTimeout:
                return SKIPPED
            return await job()
        raise AssertionError("the stack hides no error")

    return decorate


class Recipes:
    """The recipes as methods of a client."""

    def semaphore(self, name: Name, limit: int | None = None, *, ttl: Duration | None = 30.0) -> Semaphore:
        """Return a semaphore, to acquire and release units of: see `lessor.recipes.Semaphore`."""
        return Semaphore(_client(self), name, limit, ttl=ttl)

    def reentrant_lock(self, name: Name, *, ttl: Duration | None = 30.0) -> ReentrantLock:
        """Return a lock that whoever has it enters again at once: see `lessor.recipes.ReentrantLock`."""
        return ReentrantLock(_client(self), name, ttl=ttl)

    def election(self, name: Name, *, ttl: Duration | None = 30.0) -> Election:
        """Return an election, to campaign in or to observe: see `lessor.recipes.Election`."""
        return Election(_client(self), name, ttl=ttl)

    def stable_leadership(self, name: Name) -> StableLeadership:
        """Return a scope that is told when the leadership changes: see `lessor.recipes.StableLeadership`."""
        return Election(_client(self), name).stable()

    def barrier(self, name: Name, parties: int, *, ttl: Duration | None = 30.0) -> Barrier:
        """Return a barrier for so many parties: see `lessor.recipes.Barrier`."""
        return Barrier(_client(self), name, parties, ttl=ttl)

    def double_barrier(self, name: Name, parties: int, *, ttl: Duration | None = 30.0) -> DoubleBarrier:
        """Return a barrier to begin and to end at together: see `lessor.recipes.DoubleBarrier`."""
        return DoubleBarrier(_client(self), name, parties, ttl=ttl)

    def party(self, name: Name, *, ttl: Duration | None = 30.0) -> Party:
        """Return a party, to join or to look at: see `lessor.recipes.Party`."""
        return Party(_client(self), name, ttl=ttl)

    def workers(self, names: Iterable[Name], capacity: int, *, ttl: Duration | None = 30.0) -> Workers:
        """Return a worker that takes up to `capacity` of the named tasks: see `lessor.recipes.Workers`."""
        return Workers(_client(self), names, capacity, ttl=ttl)

    def singleton(
        self,
        name: Name,
        *,
        timeout: Duration | None = 0,
        min_hold: Duration = 0,
        ttl: Duration = 30.0,
        on_lost: "OnLost | None" = None,
    ) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R | Skipped]]]:
        """Have a function run once at a time over all hosts: see `lessor.recipes.singleton`."""
        return singleton(name, client=_client(self), timeout=timeout, min_hold=min_hold, ttl=ttl, on_lost=on_lost)


def _client(recipes: Any) -> Any:
    return recipes
