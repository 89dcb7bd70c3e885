"""Follows the event feeds of all nodes as one: in order, each event once, and whatever was missed is said.

The feeds tell the same events under the same dense revisions, so that the death of a node costs nothing: what one feed
did not bring another does. Only what none of them brought was missed, for instance while this reader was too slow.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
BEHIND_MAX = 3
"""So often may all nodes that answer be behind what was told: a new leader or a lone follower may need a moment."""

HELD_BACK_MAX = 10_000
"""Events that wait for a gap to close. With more of them the gap is given up at once."""


@dataclass(frozen=True, slots=True)
class Watching:
    """The feeds are followed: whatever happens from now on will be told."""


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


class Order:
    """Puts what several feeds tell into one order, without any I/O: each event once, and every gap named."""

    def __init__(self, last: int) -> None:
        """Begin after revision `last`."""
        self.last = last
        self.gap_until: float | None = None
        self._held_back: dict[int, Event] = {}

    def take(self, event: Event, now: float) -> list[Told]:
        """Take an event, and return what can be told now."""
        if event.revision <= self.last:
            return []
        self._held_back[event.revision] = event
        told = self._follow_up(now)
        if len(self._held_back) > HELD_BACK_MAX:
            told += self._skip(now)
        return told

    def give_up(self, now: float) -> list[Told]:
        """Return what can be told because the time for closing a gap is over."""
        return self._skip(now) if self.gap_until is not None and now >= self.gap_until else []

    def know(self, revision: int) -> list[Told]:
        """Learn that events up to `revision` were told, and will not come any more if they have not come by now."""
        told: list[Told] = []
        while self._held_back and self.last < revision:
            told += self._skip(0.0)
        if self.last < revision:
            told.append(Missed(self.last + 1, revision))
            self.last = revision
        return told

    def _skip(self, now: float) -> list[Told]:
        first = min(self._held_back)
        missed = Missed(self.last + 1, first - 1)
        self.last = first - 1
        return [missed, *self._follow_up(now)]

    def _follow_up(self, now: float) -> list[Told]:
        """Return what follows without a gap on what was told."""
        told: list[Told] = []
        while (event := self._held_back.pop(self.last + 1, None)) is not None:
            self.last += 1
            told.append(event)
        if not self._held_back:
            self.gap_until = None
        elif told or self.gap_until is None:
            self.gap_until = now + PATIENCE_S
        return told


class Watcher:
    """A reader of the feeds of the nodes at `endpoints`."""

    def __init__(self, endpoints: Sequence[str]) -> None:
        """Connect; what happens from the first answer of a node on is told by `events`."""
        self._endpoints = list(endpoints)
        self._context: sockets.Context = sockets.make_context(len(self._endpoints))
        self._feed = FeedSubscriber(self._context, *[of_role(endpoint, Role.FEED) for endpoint in self._endpoints])
        self._order: Order | None = None  # None before the first event; what came before that was not missed
        self._watching = False
        self._trouble = ""
        self._behind = 0  # how often in a row no node had come as far as what was told

    def events(self) -> Iterator[Told]:
        """Yield what happens, without end."""
        ask_at = 0.0
        # so that what happens after the first look at the nodes is not missed
        self._feed.wait_connected(int(PATIENCE_S * 1000))
        while True:
            if time.monotonic() >= ask_at:
                yield from self._ask()
                ask_at = time.monotonic() + (PATIENCE_S if self._trouble else SILENCE_S)
            wait_until = ask_at
            if self._order is not None and self._order.gap_until is not None:
                wait_until = min(wait_until, self._order.gap_until)
            event = self._next(wait_until)
            if event is not None:
                ask_at = time.monotonic() + SILENCE_S
                yield from self._take(event)
            if self._order is not None:
                yield from self._order.give_up(time.monotonic())

    def close(self) -> None:
        """Leave the feeds."""
        self._feed.close()
        sockets.end_context(self._context)

    def _take(self, event: Event) -> list[Told]:
        if self._order is None:
            self._order = Order(event.revision - 1)
        return self._order.take(event, time.monotonic())

    def _next(self, until: float) -> Event | None:
        try:
            return self._feed.next(max(0, int((until - time.monotonic()) * 1000)))
        except Malformed:
            return None  # of another version; what it told counts as missed

    def _ask(self) -> Iterator[Told]:
        """Ask the nodes where they are: to know where to begin, and whether silence means that nothing happens."""
        cluster = ask_status(self._endpoints, ASK_TIMEOUT_S)
        before, self._trouble = self._trouble, _trouble(cluster)
        if self._trouble:
            if self._trouble != before:
                yield Trouble(self._trouble)
            return
        revision = max(answer.revision for answer in cluster.answers)
        self._behind = self._behind + 1 if self._order is not None and revision < self._order.last else 0
        if self._behind >= BEHIND_MAX:
            yield Trouble("the revisions start again: another cluster answers, or this one was made anew")
            self._order, self._behind, self._watching = None, 0, False
        if before or not self._watching:
            self._watching = True
            yield Watching()
        if self._order is None:
            return
        # what the nodes have told of may still be on its way
        deadline = time.monotonic() + PATIENCE_S
        while self._order.last < revision and time.monotonic() < deadline:
            event = self._next(deadline)
            if event is not None:
                yield from self._take(event)
        yield from self._order.know(revision)


def _trouble(cluster: ClusterStatus) -> str:
    if not cluster.answers:
        return "no node answers"
    if not cluster.leader:
        return "no leader is known, and so nothing happens"
    return ""
