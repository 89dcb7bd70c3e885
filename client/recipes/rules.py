"""What the recipes of both faces share, without any I/O: what is asked under which name, and what the answers mean."""

import functools
import inspect
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from ...core import limits
from ...core.checks import check_path
from ...core.errors import BadRequest, LessorError
from ...core.events import DELETED, OWNERS_CHANGED, Event
from ..course import Told
from ..durations import Duration, milliseconds, ttl_milliseconds
from ..lease import LeaseView
from ..news import check_on_lost
from ..wants import Name, path_of, several

L = TypeVar("L")

LOOK_S: Final = 1.0
"""How often whoever waits for an event looks whether what he holds himself is still held."""

LEAVE_S: Final = 1.0
"""Who gives up at a barrier waits so long for its gate, to leave in order; the gate is held for moments only, unless
somebody has died there or holds the barrier's name."""

TRY_AGAIN_S: Final = 10.0
"""How often tasks are tried without a hint: a name may open without an event, as after a lock-delay."""


TRIES_AT_ONCE: Final = 16
"""Tasks that are tried at the same time, each by a thread of its own where a face needs one."""

ENDPOINTS: Final = ("LESSOR_ENDPOINTS", "tcp://127.0.0.1:7411")
"""Where a job finds the service if it is not told: the name of a variable, and what holds without it."""


class Skipped:
    """What a singleton returns that did not run, since another one ran or had run a moment before. It is false."""

    def __bool__(self) -> bool:
        """Return False."""
        return False

    def __repr__(self) -> str:
        """Show its name."""
        return "SKIPPED"


SKIPPED: Final = Skipped()


class LeadershipChanged(LessorError):
    """Another one leads, or nobody, so what relied on the leadership has no ground any more."""


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads: his name, what he has proclaimed, and the fencing token of his leadership."""

    holder: str
    value: bytes
    token: int


@dataclass(frozen=True, slots=True)
class Member:
    """Who is here: his name, the data that he came with, and the token of his lease."""

    holder: str
    data: bytes
    token: int


def checked(name: Name, ttl: Duration | None) -> None:
    """Refuse a recipe that could never be carried out, on the line that makes it.

    Raises:
        BadRequest: nothing can have this name, or such a ttl.
    """
    check_path(path_of(name))
    check_ttl(ttl)


def check_ttl(ttl: Duration | None) -> None:
    """Refuse what no lease can have as its ttl.

    Raises:
        BadRequest: it is out of bounds.
    """
    if ttl is not None:
        ttl_milliseconds(ttl)


def check_job(name: Name, ttl: Duration | None, timeout: Duration | None, min_hold: Duration, on_lost: Any) -> None:
    """Refuse a job that could never run on the line that names it, and not in the night in which it is to run first.

    Raises:
        BadRequest: an argument is out of bounds.
    """
    checked(name, ttl)
    check_path(started(name))
    check_on_lost(on_lost)
    if timeout is not None:
        milliseconds(timeout, "timeout", 0, limits.WAIT_MS_MAX)
    if milliseconds(min_hold, "min_hold"):
        milliseconds(min_hold, "min_hold other than 0", limits.TTL_MS_MIN)


def check_function(function: Callable[..., Any], *, awaited: bool) -> None:
    """Refuse what the singleton of this face cannot run, where it is decorated.

    Raises:
        BadRequest: the call of a coroutine function or a generator only makes what is to run, and in the blocking face
            that would run after the lease was given back; the call of a plain function gives nothing to be awaited.
    """
    what = getattr(function, "__qualname__", repr(function))
    # a plain wrapper of a coroutine function hands on what is to be awaited, or has run it
    if awaited and not _is_awaited(inspect.unwrap(function)):
        raise BadRequest(f"{what} is no coroutine function; lessor.recipes has one for plain functions")
    later = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function) or _is_awaited(function)
    if not awaited and later:
        raise BadRequest(f"{what} is no plain function; lessor.recipes.aio has one for coroutines")


def _is_awaited(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def under(name: Name, *parts: str) -> tuple[str, ...]:
    """Return a path under a name."""
    return (*path_of(name), *parts)


def started(name: Name) -> tuple[str, ...]:
    """Return what is held while a job of this name is not to start again; it overlaps neither the name nor any below.

    Raises:
        BadRequest: it is no name.
    """
    path = path_of(name)
    if not path:
        raise BadRequest("a job has a name")
    return (*path[:-1], f"{path[-1]}.started")


def leader_of(views: Iterable[LeaseView], name: Name) -> Leader | None:
    """Return who leads, from the description of a name."""
    for view in _held(views, path_of(name)):
        return Leader(view.holder, view.data, view.token)
    return None


def changed(before: Leader | None) -> LeadershipChanged:
    """Return the error that says that another one leads than before."""
    return LeadershipChanged(f"{before.holder!r} does not lead any more" if before else "there is a leader now")


def untold(error: Exception) -> LeadershipChanged:
    """Return the error that says that a change would not be told any more."""
    why = LeadershipChanged(f"who leads cannot be told any more: {error!r}")
    why.__cause__ = error
    return why


def members_of(views: Iterable[LeaseView], name: Name) -> list[Member]:
    """Return who is here, in the order of their coming, from the description of a name."""
    return [Member(view.holder, view.data, view.token) for view in _held(views, path_of(name))]


def _held(views: Iterable[LeaseView], path: tuple[str, ...]) -> list[LeaseView]:
    return [view for view in views if not view.waiting and view.path == path]


def owners_may_differ(told: Told) -> bool:
    """Return whether it takes a look to know who holds what was watched."""
    return not isinstance(told, Event) or told.kind in OWNERS_CHANGED


def may_open(told: Told | None) -> bool:
    """Return whether it takes a look to know whether the gate of a barrier is open."""
    return told is not None and (not isinstance(told, Event) or told.kind in DELETED)


def arrived(views: Iterable[LeaseView], name: Name, round_: bytes) -> int:
    """Return how many have come in this round of a barrier."""
    return sum(member.data == round_ for member in members_of(views, name))


def check_parties(parties: Any) -> int:
    """Return how many parties a barrier is for.

    Raises:
        BadRequest: it is no such number.
    """
    return _count("the parties of a barrier are", parties)


def _count(what: str, number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise BadRequest(f"{what} a whole number from 1 on, not {number!r}")
    return number


class Deadline:
    """A moment until which several waits last in all, on whatever clock the face reads."""

    def __init__(self, now: Callable[[], float], timeout: Duration | None) -> None:
        """Begin now; None: without end."""
        self._now = now
        self._at = None if timeout is None else now() + milliseconds(timeout) / 1000

    def left(self) -> float | None:
        """Return the seconds that are left, None: without end."""
        return None if self._at is None else max(0.0, self._at - self._now())

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        return self.left() == 0.0

    def left_at_most(self, seconds: float) -> float:
        """Return for how long to wait now."""
        left = self.left()
        return seconds if left is None else min(seconds, left)


class Kept(Generic[L]):
    """The leases that flows of control (threads or tasks) have taken through one object, each its own.

    Those of a `with` are kept until its end. Any other that has been given back by other means, as by the lease's own
    `with` or `release`, counts no more.
    """

    def __init__(self, gone: Callable[[L], bool]) -> None:
        """Start with none; `gone` says of a lease whether it was given back."""
        self._gone = gone
        self._entries: list[tuple[Any, L, bool]] = []

    def push(self, flow: Any, lease: L, *, scoped: bool = False) -> None:
        """Keep a lease; `scoped`: until the end of a `with`."""
        self._forget()
        self._entries.append((flow, lease, scoped))

    def top(self, flow: Any) -> L | None:
        """Return the last lease of a flow that it has not given back."""
        kept = (lease for whose, lease, _ in reversed(self._entries) if whose == flow and not self._gone(lease))
        return next(kept, None)

    def pop(self, flow: Any) -> L:
        """Forget what a flow has acquired last, and return it. What a `with` has acquired is the `with`'s to give back.

        Raises:
            BadRequest: it has nothing that was acquired here.
        """
        self._forget()
        return self._take([entry for entry in self._entries if entry[0] == flow and not entry[2]])

    def leave(self, flow: Any) -> L:
        """Forget what the `with` of a flow that ends now has entered with (one of any flow, if it has none)."""
        scoped = [entry for entry in self._entries if entry[2]]
        return self._take([entry for entry in scoped if entry[0] == flow] or scoped)

    def _take(self, entries: list[tuple[Any, L, bool]]) -> L:
        if not entries:
            raise BadRequest("nothing was acquired here that could be released")
        self._entries.remove(entries[-1])
        return entries[-1][1]

    def _forget(self) -> None:
        for entry in [entry for entry in self._entries if self._gone(entry[1]) and not entry[2]]:
            with suppress(ValueError):  # in place, since other threads push, pop and forget, too
                self._entries.remove(entry)


class Share:
    """Which of many tasks to try for, so as to hold up to `capacity` of them, and which grants are too many."""

    def __init__(self, names: Iterable[Name], capacity: int, chance: random.Random | None = None) -> None:
        """Start with nothing; the tasks are tried in an order of chance, so that workers share them out."""
        self.capacity = _count("the capacity of a worker is", capacity)
        self._names = {path_of(name): name for name in several(names)}
        if not self._names:
            raise BadRequest("name at least one task")
        for path in self._names:
            check_path(path)
        order = list(self._names)
        (chance or random.SystemRandom()).shuffle(order)
        self._open = deque(order)  # not known to be held by anybody
        self.held: list[Any] = []
        self.won: deque[Any] = deque()

    def prune(self) -> None:
        """Forget what is not held any more."""
        for lease in [lease for lease in self.held if not lease.held]:
            self.held.remove(lease)
            if lease in self.won:
                self.won.remove(lease)
            self._reopen(lease.path)

    def to_try(self) -> list[Name]:
        """Return the tasks to try for now, all at once; none while there is no room."""
        if len(self.held) >= self.capacity:
            return []
        mine = {lease.path for lease in self.held}
        paths = [path for path in self._open if path not in mine]
        self._open.clear()
        return [self._names[path] for path in paths]

    def take(self, leases: Sequence[Any]) -> list[Any]:
        """Keep the first grants that there is room for, and return those that are too many."""
        extra = []
        for lease in leases:
            if len(self.held) < self.capacity:
                self.held.append(lease)
                self.won.append(lease)
            else:
                extra.append(lease)
                self._reopen(lease.path)
        return extra

    def told(self, told: Told | None) -> None:
        """Learn from the watch what may be free now; None: nothing has happened for a while."""
        if not isinstance(told, Event):
            for path in self._names:
                self._reopen(path)
        elif told.kind in OWNERS_CHANGED and told.kind != "granted":
            for path in (told.path, *told.others):
                self._reopen(path)

    def _reopen(self, path: tuple[str, ...]) -> None:
        if path in self._names and path not in self._open:
            self._open.append(path)
