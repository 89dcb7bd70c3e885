"""The course of a watch, without any I/O: what is to be asked, when, and what is told, each event once and in order.

What happened is read from the service, which answers in order and says what it does not keep any more. The event feed
only tells that there is something to read. So nothing depends on the feed: what it loses costs time, never an event.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

from ..core import limits
from ..core.checks import check, check_flag
from ..core.events import Event
from . import asks
from .asks import Ask, Events
from .wants import Name, path_of
from .watch import Missed

Told = Event | Missed
"""What a watch tells."""

LOOK_AGAIN_S: Final = 5.0
"""So often the service is asked though the feed is silent: the feed of the only node that lives may be closed to us."""

LOOK_FIRST_S: Final = 0.1
"""A feed may have begun a moment too late for the first news, so the first looks come sooner, each twice as late."""

RETRY_S: Final = 0.5
"""How long after a question without an answer the next one is asked."""

READ_S: Final = 0.5
"""A question has at least so long for its answer, however soon whoever waits for news must know: else nobody who looks
again and again with a timeout of 0 would be told anything."""


class Course:
    """Where a watch stands. `revision` is where it goes on: all that happened up to there was handed out."""

    def __init__(self, namespace: str, name: Name | None, since: int | None, *, below: bool) -> None:
        """Begin after revision `since`; None: now."""
        self.namespace = "" if name is None else namespace
        self.path = () if name is None else path_of(name)
        check_flag("below", below)
        self.below = below or name is None
        self._name = name
        self._read = since  # up to where it was read; None before it is known what now is
        self._untold: deque[Told] = deque()
        self._hinted = 0
        self._catching_up = True
        self._look_after = LOOK_FIRST_S
        self.revision = since or 0
        check(self._ask_since(0 if since is None else since).operation)  # refused before anything is begun

    def __str__(self) -> str:
        """Say what is watched."""
        name = "everything" if self._name is None else repr("/".join(self.path))
        return f"{name} and below" if self.below and self._name is not None else name

    @property
    def due(self) -> bool:
        """Whether there is something to ask, as far as is known."""
        return self._catching_up or self._read is None or self._hinted > self._read

    @property
    def begun(self) -> bool:
        """Whether it is known from where on it tells."""
        return self._read is not None

    def ask(self) -> Ask[Events]:
        """Return what is to be asked."""
        return asks.latest_revision() if self._read is None else self._ask_since(self._read)

    def _ask_since(self, revision: int) -> Ask[Events]:
        return asks.events_since(self.namespace, self._name, revision, below=self.below)

    def take(self, page: Events) -> None:
        """Take in an answer."""
        if self._read is None:
            self._read = self.revision = page.revision
            self._catching_up = self._hinted > page.revision
            return
        if page.revision < self._read:
            # the revisions start again: this cluster was made anew, or restored from a backup
            self._read, self._hinted, self._catching_up = 0, 0, True
            return
        if page.missed > self._read:
            self._untold.append(Missed(self._read + 1, page.missed))
        self._untold += page.events
        full = len(page.events) >= limits.EVENT_PAGE_MAX or page.revision - self._read >= limits.LIST_LOOK_MAX
        self._catching_up = full or (self._catching_up and bool(page.events))
        self._read = page.revision

    def hint(self, events: Sequence[Event]) -> None:
        """Learn from the feed that something has happened."""
        concerning = [each for each in events if each.concerns(self.namespace, self.path, below=self.below)]
        self._hinted = max([self._hinted, *[event.revision for event in concerning]])

    def look(self) -> None:
        """Have the service asked, though nothing is known to have happened."""
        self._catching_up = True

    def look_after(self) -> float:
        """Return after how many seconds of silence to look, and grow more patient."""
        after = self._look_after
        self._look_after = min(2 * after, LOOK_AGAIN_S)
        return after

    def next(self) -> Told | None:
        """Return the next that is to be told, None if there is nothing."""
        if not self._untold:
            self.revision = self.revision if self._read is None else self._read
            return None
        told = self._untold.popleft()
        self.revision = told.last if isinstance(told, Missed) else told.revision
        return told
