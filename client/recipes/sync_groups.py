"""Recipes of the blocking face for several parties: barriers, parties, shared work, scheduled jobs."""

import functools
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from ..caller import Outcome
from ..durations import Duration, milliseconds
from ..errors import AcquireTimeout, ClientClosed, ServiceBusy, Unavailable
from ..wants import Name, read
from .rules import (
    ENDPOINTS,
    LEAVE_S,
    LOOK_S,
    SKIPPED,
    TRIES_AT_ONCE,
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
from .sync import Election, Observation, ReentrantLock, Semaphore, StableLeadership

if TYPE_CHECKING:
    from ..holding import OnLost
    from ..sync import Client, Lease

P = ParamSpec("P")
R = TypeVar("R")


class Barrier:
    """Holds up whoever comes until so many are here, and then lets all of them go at once; again and again.

    Whoever dies while it waits counts as here until its lease has run out. Once all have gone nothing is left behind,
    unless the service was away as the last one gave up: the next round clears that up.

    >>> barrier = client.barrier("loaded", 2)
    >>> other = threading.Thread(target=barrier.wait)
    >>> other.start()
    >>> barrier.wait(timeout=30) in (0, 1)
    True
    >>> other.join()
    """

    def __init__(self, client: "Client", name: Name, parties: int, *, ttl: Duration | None = 30.0) -> None:
        """Make a barrier for so many parties; all of them say the same number."""
        self._client = client
        self._parties = check_parties(parties)
        self._ttl = ttl
        self._gate, self._here = under(name, "gate"), under(name, "here")
        checked(self._gate, ttl)

    def wait(self, timeout: Duration | None = None) -> int:
        """Wait until all are here; return how many were here before.

        Raises:
            AcquireTimeout: they were not in time; this one does not count as here any more.
            LeaseLost: the service has not heard of this one for too long, and does not count it.
        """
        deadline = Deadline(time.monotonic, timeout)
        with self._client.acquire(read(*self._here), self._ttl, timeout=timeout) as place:
            with self._client.lock(self._gate, self._ttl, timeout=deadline.left()) as gate:
                round_ = self._client.read_register(self._gate).data or str(gate.token).encode()
                before = self._arrived(round_)
                if not before:  # the first of a round writes down which one it is; the last one erases that
                    gate.write(round_)
                since = self._client.revision()
                place.update(round_)
                if before + 1 >= self._parties:
                    gate.erase()
                    return before
            self._wait_for(round_, place, since, deadline)
        return before

    def _wait_for(self, round_: bytes, place: "Lease", since: int, deadline: Deadline) -> None:
        with self._client.watch(self._gate, since=since) as watch:
            while True:
                told = watch.next(timeout=deadline.left_at_most(LOOK_S))
                if may_open(told) and self._opened(round_):
                    return  # or `with place` says that it was not counted to the end
                place.check()
                if told is None and deadline.over:
                    self._leave(round_, place)
                    return

    def _leave(self, round_: bytes, place: "Lease") -> None:
        gate: Lease | None
        try:
            gate = self._client.acquire(self._gate, self._ttl, timeout=LEAVE_S)
        except (AcquireTimeout, Unavailable):
            gate = self._client.try_acquire(self._gate, self._ttl)
        if gate is None:
            opened = self._opened(round_)
        else:
            with gate:
                opened = self._opened(round_)
                if not opened:
                    place.release()
                    if not self._arrived(round_):
                        gate.erase()
        if opened:
            return
        # whoever has the gate may have counted this one, and open it for the others
        raise AcquireTimeout(f"not all {self._parties} parties came in time", indefinite=gate is None)

    def _opened(self, round_: bytes) -> bool:
        return self._client.read_register(self._gate).data != round_

    def _arrived(self, round_: bytes) -> int:
        return arrived(self._client.describe(self._here), self._here, round_)


class DoubleBarrier:
    """All begin together, and nobody goes on before all have ended. In `with`, or by `enter` and `leave`.

    >>> double = client.double_barrier("step 1", 2)
    >>> def work():
    ...     with double:
    ...         pass
    >>> other = threading.Thread(target=work)
    >>> other.start()
    >>> with double:
    ...     print("both work")
    both work
    >>> other.join()
    """

    def __init__(self, client: "Client", name: Name, parties: int, *, ttl: Duration | None = 30.0) -> None:
        """Make a double barrier for so many parties."""
        self._begin = Barrier(client, under(name, "begin"), parties, ttl=ttl)
        self._end = Barrier(client, under(name, "end"), parties, ttl=ttl)

    def enter(self, timeout: Duration | None = None) -> int:
        """Wait until all want to begin; as `Barrier.wait`."""
        return self._begin.wait(timeout)

    def leave(self, timeout: Duration | None = None) -> int:
        """Wait until all have ended; as `Barrier.wait`."""
        return self._end.wait(timeout)

    def __enter__(self) -> Self:
        """Wait until all want to begin."""
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until all have ended, whether in an error or not."""
        self.leave()


class Party:
    """Who is here.

    >>> party = client.party("web-servers")
    >>> with party.join(b"10.0.0.1:80"):
    ...     print([member.data for member in party.members()])
    [b'10.0.0.1:80']
    >>> party.members()
    []
    """

    def __init__(self, client: "Client", name: Name, *, ttl: Duration | None = 30.0) -> None:
        """Make a party, to join or to look at."""
        checked(name, ttl)
        self._client = client
        self._name, self._ttl = name, ttl

    def join(self, data: bytes = b"", *, on_lost: "OnLost | None" = None) -> "Lease":
        """Be here, with data for others to see, until the lease is released or lost."""
        return self._client.acquire(read(*under(self._name)), self._ttl, data=data, on_lost=on_lost)

    def members(self) -> list[Member]:
        """Return who is here, in the order of their coming."""
        return members_of(self._client.describe(self._name), self._name)

    def observe(self) -> Observation[list[Member]]:
        """Return an iterator over who is here, from now on; close it."""
        return Observation(self._client, self._name, self.members)


class Workers:
    """Up to `capacity` of the named tasks for this worker; the others are left to other workers.

    All that may be free are tried at once; what is granted beyond the capacity is released at once. Iterating yields
    the lease of each task that was won, waits while there is no room, and goes on when a lease was released or lost,
    here or elsewhere. One thread takes them. (After YDB's example.)

    >>> with client.workers([f"job-{number}" for number in range(10)], capacity=4) as workers:
    ...     leases = [next(workers) for _ in range(4)]
    ...     print(len({lease.name for lease in leases}), workers.take(timeout=0))
    4 None
    >>> [lease.held for lease in leases]
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

    def take(self, timeout: Duration | None = None) -> "Lease | None":
        """Return the lease of the next task that was won; None if there was none in time, or after `close`.

        Raises:
            Unavailable, ServiceBusy: as `Client.acquire`; ask again.
        """
        deadline = Deadline(time.monotonic, timeout)
        if not self._begun:
            self._watch.__enter__()
            self._begun = True
        again = Deadline(time.monotonic, TRY_AGAIN_S)
        while not self._is_closed():
            self._share.prune()
            self._try(self._share.to_try())
            if self._is_closed():
                break
            if self._share.won:
                lease: Lease = self._share.won.popleft()
                return lease
            told = self._watch.next(timeout=deadline.left_at_most(again.left_at_most(TRY_AGAIN_S)))
            if told is not None:
                self._share.told(told)
            elif deadline.over:
                return None
            if again.over:
                self._share.told(None)
                again = Deadline(time.monotonic, TRY_AGAIN_S)
        _release_all(self._share.held)  # also what was granted after `close` had looked
        return None

    def _is_closed(self) -> bool:
        return self._watch.closed

    def _try(self, names: list[Name]) -> None:
        if not names:
            return
        tries: list[Future[Lease | None]] = []
        try:
            with ThreadPoolExecutor(min(len(names), TRIES_AT_ONCE)) as pool:
                tries += [pool.submit(self._client.try_acquire, name, self._ttl) for name in names]
            got = _granted(tries)
            _release_all(self._share.take(got))
        except BaseException:  # as of Ctrl-C
            _release_all(_granted(tries))
            raise
        failed = [error for one in tries if (error := one.exception())]
        if failed:
            self._share.told(None)  # what was not answered is tried again
            if not got:
                raise failed[0]

    def close(self) -> None:
        """Release all tasks, and end any wait for one, at once."""
        self._watch.close()
        _release_all(self._share.held)

    def __iter__(self) -> Self:
        """Return the workers themselves."""
        return self

    def __next__(self) -> "Lease":
        """Wait for the next task; it ends only by `close`."""
        lease = self.take()
        if lease is None:
            raise StopIteration
        return lease

    def __enter__(self) -> Self:
        """Return the workers themselves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release all tasks."""
        self.close()


def _granted(tries: list["Future[Lease | None]"]) -> list["Lease"]:
    done = [one for one in tries if one.done() and not one.cancelled() and one.exception() is None]
    return [lease for one in done if (lease := one.result()) is not None]


def _release_all(leases: Iterable["Lease"]) -> None:
    """Begin all releases before the first is waited for: no Ctrl-C leaves one out."""
    answers = []
    for lease in list(leases):
        answers.append(Outcome())
        lease._begin_release(answers[-1].set)  # noqa: SLF001 - which users have no need of
    for answer in answers:
        with suppress(Unavailable, ServiceBusy, ClientClosed):  # it goes on in the background, or ends by itself
            answer.wait()


def singleton(
    name: Name,
    *,
    client: "Client | None" = None,
    timeout: Duration | None = 0,
    min_hold: Duration = 0,
    ttl: Duration = 30.0,
    on_lost: "OnLost | None" = None,
) -> Callable[[Callable[P, R]], Callable[P, R | Skipped]]:
    """Have a function run once at a time over all hosts, as for a job that many of them start.

    Args:
        name: of the job, and of its lease while it runs; the start is marked by the lease of the name with ".started".
        client: None: one for each call, to the endpoints in LESSOR_ENDPOINTS.
        timeout: how long to wait while it runs elsewhere, or has just run; then it is skipped, and SKIPPED returned.
        min_hold: after a start it does not start again for so long, however soon it ends or dies. Choose more than the
            clocks of the hosts differ, and less than the time between two runs.
        ttl: of the lease, which is renewed while the function runs.
        on_lost: as in `Client.acquire`; the call raises LeaseLost in any case, at its end.

    >>> @client.singleton("nightly-report", min_hold=60)
    ... def report():
    ...     return "done"
    >>> report(), report()
    ('done', SKIPPED)
    """
    check_job(name, ttl, timeout, min_hold, on_lost)

    def decorate(function: Callable[P, R]) -> Callable[P, R | Skipped]:
        check_function(function, awaited=False)

        @functools.wraps(function)
        def run(*arguments: P.args, **options: P.kwargs) -> R | Skipped:
            return alone(lambda: function(*arguments, **options))

        return run

    def alone(job: Callable[[], R]) -> R | Skipped:
        from ..sync import connect  # noqa: PLC0415 - which offers this as a method of its clients

        if client is None:
            with connect(os.environ.get(*ENDPOINTS)) as own:
                return held(own, job)
        return held(client, job)

    def held(using: "Client", job: Callable[[], R]) -> R | Skipped:
        deadline = Deadline(time.monotonic, timeout)
        running = using.lock(under(name), ttl, timeout=timeout, on_lost=on_lost)
        with ExitStack() as stack:
            try:
                stack.enter_context(running)
                if milliseconds(min_hold):
                    # nobody's but its ttl's: it outlives the job, this client and this process
                    using.acquire(started(name), min_hold, timeout=deadline.left(), detached=True, auto_renew=False)
            except AcquireTimeout:
                return SKIPPED
            return job()
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
    ) -> Callable[[Callable[P, R]], Callable[P, R | Skipped]]:
        """Have a function run once at a time over all hosts: see `lessor.recipes.singleton`."""
        return singleton(name, client=_client(self), timeout=timeout, min_hold=min_hold, ttl=ttl, on_lost=on_lost)


def _client(recipes: Any) -> Any:
    return recipes
