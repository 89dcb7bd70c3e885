"""Follows the event feeds of all nodes as one: in order, each event once, and whatever was missed is said.

The feeds tell the same events under the same dense revisions, so that the death of a node costs nothing: what one feed
did not bring another does. Only what none of them brought was missed, for instance while this reader was too slow.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import zmq

from ..core.effects import Role
from ..core.errors import Malformed
from ..core.events import Event
from ..transport import sockets
from ..transport.endpoints import of_role
from ..transport.feed import FeedSubscriber
from .status import ClusterStatus, ask_status

SILENCE_S = 2.0
"""After so long without an event the nodes are asked whether there was none."""

PATIENCE_S = 0.5
"""How long a gap stays open for the other feeds to close it: a follower tells an event a heartbeat later at most."""

ASK_TIMEOUT_S = 1.0
HELD_BACK_MAX = 10_000
"""Events that wait for a gap to close. With more of them the gap is given up at once."""


@dataclass(frozen=True, slots=True)
class Watching:
    """The feeds are followed: everything after `revision` will be told."""

    revision: int


@dataclass(frozen=True, slots=True)
class Missed:
    """The events from revision `first` to `last` did not come and will not come any more."""

    first: int
    last: int

    @property
    def count(self) -> int:
        """How many they are."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Trouble:
    """Nothing can be told for the moment, for this reason; `Watching` follows once that is over."""

    text: str


Told = Event | Watching | Missed | Trouble


class Watcher:
    """A reader of the feeds of the nodes at `endpoints`."""

    def __init__(self, endpoints: Sequence[str]) -> None:
        """Connect; what happens from the first answer of a node on is told by `events`."""
        self._endpoints = list(endpoints)
        self._context: sockets.Context = zmq.Context(io_threads=1)
        self._feed = FeedSubscriber(self._context, *[of_role(endpoint, Role.FEED) for endpoint in self._endpoints])
        self._last: int | None = None  # the revision told last, None before it is known where to begin
        self._held_back: dict[int, Event] = {}
        self._gap_until = 0.0
        self._trouble = ""

    def events(self) -> Iterator[Told]:
        """Yield what happens, without end."""
        asked_at = 0.0
        while True:
            now = time.monotonic()
            if self._last is None or now - asked_at >= SILENCE_S:
                yield from self._ask()
                asked_at = time.monotonic()
            wait = asked_at + SILENCE_S - time.monotonic()
            if self._trouble:
                wait, asked_at = min(wait, PATIENCE_S), 0.0
            if self._held_back:
                wait = min(wait, self._gap_until - time.monotonic())
            event = self._next(max(0.0, wait))
            if event is not None:
                asked_at = time.monotonic()
                yield from self._take(event)
            yield from self._give_up_gap()

    def close(self) -> None:
        """Leave the feeds."""
        self._feed.close()
        self._context.destroy(linger=0)

    def _next(self, wait: float) -> Event | None:
        try:
            return self._feed.next(int(wait * 1000))
        except Malformed:
            return None  # of another version; what it told counts as missed

    def _take(self, event: Event) -> Iterator[Told]:
        if self._last is None or event.revision <= self._last:
            return
        if not self._held_back:
            self._gap_until = time.monotonic() + PATIENCE_S
        self._held_back[event.revision] = event
        yield from self._tell()

    def _tell(self) -> Iterator[Told]:
        """Yield what follows without a gap on what was told."""
        assert self._last is not None
        while (event := self._held_back.pop(self._last + 1, None)) is not None:
            self._last += 1
            self._gap_until = time.monotonic() + PATIENCE_S
            yield event

    def _give_up_gap(self) -> Iterator[Told]:
        while self._held_back and (time.monotonic() >= self._gap_until or len(self._held_back) > HELD_BACK_MAX):
            assert self._last is not None
            first = min(self._held_back)
            yield Missed(self._last + 1, first - 1)
            self._last = first - 1
            yield from self._tell()

    # --- the nodes themselves ----------------------------------------------------------------------------------------

    def _ask(self) -> Iterator[Told]:
        """Ask the nodes where they are: to know where to begin, and whether silence means that nothing happens."""
        cluster = ask_status(self._endpoints, ASK_TIMEOUT_S)
        trouble = _trouble(cluster)
        if trouble:
            if trouble != self._trouble:
                yield Trouble(trouble)
            self._trouble = trouble
            return
        revision = max(answer.revision for answer in cluster.answers)
        if self._last is None:
            self._last = revision
            yield Watching(revision)
        elif revision < self._last:
            yield Trouble("the revisions start again: another cluster answers, or this one was made anew")
            self._last, self._held_back = revision, {}
            yield Watching(revision)
        else:
            if self._trouble:
                yield Watching(self._last)
            if revision > self._last:
                yield from self._await(revision)
        self._trouble = ""

    def _await(self, revision: int) -> Iterator[Told]:
        """Wait a little for events that the nodes have told of, and count them as missed if they do not come."""
        deadline = time.monotonic() + PATIENCE_S
        while self._last is not None and self._last < revision and (left := deadline - time.monotonic()) > 0:
            event = self._next(left)
            if event is not None:
                yield from self._take(event)
        yield from self._give_up_gap()
        if self._last is not None and self._last < revision and not self._held_back:
            yield Missed(self._last + 1, revision)
            self._last = revision


def _trouble(cluster: ClusterStatus) -> str:
    if not cluster.answers:
        return "no node answers"
    if not cluster.leader:
        return "no leader is known, and so nothing happens"
    return ""
