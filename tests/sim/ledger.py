"""What the log has brought about, in true time: every claim and every grant, from their beginning to their end."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lessor.core.commands import Command
from lessor.core.entries import Batch, Entry
from lessor.core.events import Event
from lessor.core.lease_state import Outcome

from .checkers.base import Checker
from .reading import read

if TYPE_CHECKING:
    from .world import World

ENDINGS = ("released", "expired", "broken", "cancelled", "timed_out")


@dataclass(slots=True)
class ClaimStory:
    """A claim, as the events tell it. Times are true; `ended_us` None: it still waits or holds."""

    claim: int
    name: str
    holder: str
    session: int
    token: int = 0
    granted_us: int = 0
    ended_us: int | None = None
    ending: str = ""


class Ledger(Checker):
    """Follows the events of the log as they happen for the first time anywhere; fails nothing."""

    def __init__(self, world: "World") -> None:
        """Start with nothing held."""
        super().__init__(world)
        self.claims: dict[int, ClaimStory] = {}
        self.grants: dict[int, ClaimStory] = {}
        self.by_holder: dict[str, list[ClaimStory]] = {}
        self.live: dict[str, dict[int, ClaimStory]] = {}  # by name and token: more than one only if P3 is broken
        self.commands: list[Command] = []  # of the slot that is being applied, if it has effect

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Take in one slot."""
        self.commands = []
        if isinstance(entry, Batch) and entry.term == self.world.referee.state.header.term:
            self.commands = [read(data) for data in entry.commands]
        for event in outcome.events:
            self._take(event)

    def _take(self, event: Event) -> None:
        if not event.claim:
            return
        story = self.claims.get(event.claim)
        if story is None:
            name = "/".join(event.path)
            story = self.claims[event.claim] = ClaimStory(event.claim, name, event.holder, event.session)
            self.by_holder.setdefault(event.holder, []).append(story)
        if event.kind == "granted":
            story.token, story.granted_us = event.token, self.world.now_us
            self.grants[event.token] = story
            self.live.setdefault(story.name, {})[event.token] = story
        elif event.kind in ENDINGS:
            story.ended_us, story.ending = self.world.now_us, event.kind
            if story.token:
                self.live[story.name].pop(story.token, None)
