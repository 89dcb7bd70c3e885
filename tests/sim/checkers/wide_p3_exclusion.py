"""P3 for the whole lease model: no two grants conflict, whatever their paths, modes and counts."""

from typing import TYPE_CHECKING

from lessor.client.records import LeaseRecord
from lessor.core.entries import Entry
from lessor.core.lease_state import Outcome
from lessor.core.resources import Resource
from lessor.core.results import SessionOpened

from .base import Checker
from .wide_view import Held, View, conflict, exclude, look

if TYPE_CHECKING:
    from ..client import SimClient
    from ..world import World


class WideExclusion(Checker):
    """Compares every grant with every other one, and with what the clients believe by their own deadlines."""

    promise = "P3"
    wide = True

    def __init__(self, world: "World") -> None:
        """Start with nothing granted."""
        super().__init__(world)
        self.granted: dict[int, tuple[str, tuple[Resource, ...]]] = {}
        self.attach: dict[int, int] = {}

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Look at everything that is held after a slot in which anything happened."""
        _, view = look(self.world)
        for _, result in outcome.answers:
            if isinstance(result, SessionOpened):
                self.attach[result.session] = result.attach
        if not outcome.events:
            return
        held = view.held
        what = conflict(view, held)
        if what:
            raise self.fail(f"after slot {slot} {what}")
        for one in held:
            if one.token:
                self.granted[one.token] = (one.namespace, one.resources)
        if any(event.kind == "granted" for event in outcome.events):
            self._look_at_beliefs(view, [one for one in held if not one.closed])

    def _look_at_beliefs(self, view: View, held: list[Held]) -> None:
        """Whoever held before must have stopped to believe so, by its own clock, before anybody else is granted."""
        live = {one.token: None for one in held}
        ghosts = [
            Held(f"client {client.number}, who believes to have token {record.token},", *granted, record.token)
            for client in self.world.clients
            for record in client.protocol.leases.values()
            if record.token not in live
            and client.believes(record)
            and not self._excused(client, record)
            and (granted := self.granted.get(record.token)) is not None
        ]
        what = conflict(view, held + ghosts) if ghosts else ""
        if what:
            raise self.fail(what)

    def _excused(self, client: "SimClient", record: LeaseRecord) -> bool:
        """Return whether somebody else has ended the lease or taken it over, which the holder may not know yet."""
        board, story = self.world.board, self.world.ledger.grants.get(record.token)
        if story is not None and (story.ending == "broken" or record.token in board.adopted):
            return True
        if self.attach.get(record.session, 0) > getattr(client.app, "attached", {}).get(record.session, 0):
            return True  # its session was stolen
        return story is not None and story.ending == "released" and record.token in self.world.released_by_others

    def client_turn(self, client: "SimClient") -> None:
        """What a client believes after a turn of its engine must be true."""
        for record in client.protocol.leases.values():
            story = self.world.ledger.grants.get(record.token)
            if story is not None and story.ended_us is None:
                continue
            if client.believes(record) and not self._excused(client, record):
                ended = "was never granted" if story is None else f"has ended ({story.ending})"
                raise self.fail(f"client {client.number} holds token {record.token}, which {ended}")


class WideClosed(Checker):
    """A name whose lease ended uncleanly is granted to nobody before the delay of its namespace is over."""

    promise = "P3"
    wide = True

    def __init__(self, world: "World") -> None:
        """Start with everything open."""
        super().__init__(world)
        self.closed: list[tuple[int, str, tuple[Resource, ...]]] = []

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Note what is closed, and compare what is granted with it."""
        before, after = look(self.world)
        # one that was shared or shrunk in the same slot was less when it ended than it had been before the slot
        amended = {event.claim for event in outcome.events if event.kind == "amended"}
        ended = {lapsed.claim: lapsed.resources for lapsed in after.lapses if lapsed.claim in amended}
        for event in outcome.events:
            claim = before.claims.get(event.claim)
            if event.kind in ("expired", "broken") and claim is not None and claim.token:
                # the namespace may have been altered or dropped in the same slot
                configs = [view.configs.get(event.namespace) for view in (before, after)]
                delay_ms = min(config.lock_delay_ms if config is not None else 0 for config in configs)
                if delay_ms:
                    self.world.mark("a name that was closed for a while")
                    resources = ended.get(event.claim, claim.resources)
                    self.closed.append((event.clock_ms + delay_ms, event.namespace, resources))
            elif event.kind == "granted" and event.claim in after.claims:
                self._must_be_open(event.clock_ms, event.namespace, after.claims[event.claim].resources)

    def _must_be_open(self, clock_ms: int, namespace: str, resources: tuple[Resource, ...]) -> None:
        self.closed = [one for one in self.closed if one[0] > clock_ms]
        for until_ms, where, what in self.closed:
            if where == namespace and any(exclude(mine, its) for mine in resources for its in what):
                raise self.fail(f"{resources} is granted at {clock_ms} ms, and is closed until {until_ms} ms")
