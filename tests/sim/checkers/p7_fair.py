"""P7: conflicting claims are granted in arrival order, at once when their turn comes, and nobody overtakes."""

from typing import TYPE_CHECKING

from lessor.core.entries import Entry
from lessor.core.lease_state import Outcome

from ..ledger import ENDINGS
from .base import Checker

if TYPE_CHECKING:
    from ..world import World


class Fair(Checker):
    """Keeps a queue of its own for every name."""

    promise = "P7"
    wide = False

    def __init__(self, world: "World") -> None:
        """Start with empty queues."""
        super().__init__(world)
        self.queues: dict[str, list[int]] = {}
        self.granted: dict[int, None] = {}

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Follow the events of a slot."""
        touched: dict[str, None] = {}
        for event in outcome.events:
            if not event.claim:
                continue
            name = "/".join(event.path)
            touched[name] = None
            queue = self.queues.setdefault(name, [])
            if event.kind == "queued":
                queue.append(event.claim)
            elif event.kind == "granted":
                if event.claim not in queue:
                    queue.append(event.claim)
                elif len(queue) > 1:
                    self.world.mark("a turn that came in a longer queue")
                if queue[0] != event.claim:
                    raise self.fail(f"claim {event.claim} on {name!r} is granted before claim {queue[0]}")
                self.granted[event.claim] = None
            elif event.kind in ENDINGS:
                if event.claim not in queue:
                    raise self.fail(f"claim {event.claim} on {name!r} ended ({event.kind}), which it had before")
                queue.remove(event.claim)
        for name in touched:
            queue = self.queues[name]
            if queue and queue[0] not in self.granted:
                raise self.fail(f"claim {queue[0]} is first on {name!r}, and waits")
