"""The learner: counts votes, learns what is chosen, applies it in slot order, and answers with the outcome.

Laws it keeps:
- it applies a slot only when a quorum accepted one value under one ballot there, or when the leader of the ballot
  under which this node itself accepted says that the slot is chosen, or when a peer that has applied it sent the value;
- it applies every slot once, in order, without a gap;
- it answers only for the ballot under which this node leads: no other command came through this node's gateway.
"""

from dataclasses import dataclass

from . import limits
from .ballot import NO_BALLOT, Ballot, quorum
from .effects import Address, Effects, Role
from .encoding import decode
from .entries import Batch, Lead, NoOp
from .errors import Corrupt, Malformed
from .events import Event
from .lease_state import LeaseState
from .messages import (
    Accepted,
    Behind,
    Chosen,
    Fetch,
    FetchSnapshot,
    Installed,
    Leadership,
    Learn,
    NextDeadline,
    Progress,
    ReplaceState,
    SaveState,
    SnapshotChunk,
    SnapshotNeeded,
    Tick,
    Vote,
    Watermark,
)
from .requests import Notice
from .results import Result

Message = (
    Learn | Accepted | Watermark | Chosen | Tick | Leadership | Behind | SnapshotNeeded | FetchSnapshot | SnapshotChunk
)


SERVED_KEPT_MS = 10 * limits.FETCH_RETRY_MS
"""A snapshot, which may be large, is kept for so long after its last piece was asked for."""


@dataclass(frozen=True, slots=True)
class Applied:
    """To the gateway: a batch of the leader of `ballot` was applied; what its commands are answered, by tag."""

    ballot: Ballot
    clock_ms: int
    answers: tuple[tuple[int, Result], ...]
    notices: tuple[Notice, ...]


@dataclass(frozen=True, slots=True)
class Events:
    """To the feed: what happened, in order."""

    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """To the gateway, for `lessor status`."""

    chosen_upto: int
    applied_upto: int
    clock_ms: int
    sessions: int
    held: int
    waiting: int
    revision: int
    namespaces: int = 0  # created
    semaphores: int = 0  # created
    pins: int = 0
    registers: int = 0
    lapsed: int = 0


@dataclass(frozen=True, slots=True)
class _Serving:
    """A snapshot that a node fetches piece by piece."""

    slot: int
    data: bytes
    asked_at_ms: int
    done: bool = False


class Learner:
    """The pure core of one node's learner; it owns the lease state."""

    def __init__(self, node: int, members: tuple[int, ...], state: LeaseState) -> None:
        """Start from a saved lease state (which says up to which slot it was applied)."""
        assert node in members
        self.node = node
        self.members = members
        self.quorum = quorum(len(members))
        self.state = state
        self.saved_upto = state.applied_upto
        self.leading = NO_BALLOT
        self.watermark = (NO_BALLOT, 0)
        self.highest = NO_BALLOT
        self._open: dict[int, Vote] = {}  # what this node's acceptor has accepted, not applied yet
        self._counts: dict[int, dict[Ballot, dict[int, None]]] = {}  # who accepted under which ballot
        self._chosen: dict[int, Vote] = {}  # known as chosen, waiting for the slots before
        self._behind: Behind | None = None
        self._gap_since_ms: int | None = None
        self._fetched = False
        self._now_ms = 0
        self._saved_at_ms = 0
        self._told_deadline_ms = 0
        self._told_progress = state.applied_upto
        self._told_saved = state.applied_upto
        self._told_summary = Summary(0, 0, 0, 0, 0, 0, 0)
        self._told_summary_at_ms = -limits.SUMMARY_EVERY_MS
        self._serving: dict[int, _Serving] = {}  # by the node that asks
        self._assembling: tuple[int, int, int, bytearray] | None = None  # node, slot, total, what has come
        self._asked_snapshot_at_ms = 0
        self.complaint = ""
        """What an operator should know of, until the shell has told it."""
        self._gateway = Address(node, Role.GATEWAY)
        self._proposer = Address(node, Role.PROPOSER)
        self._acceptor = Address(node, Role.ACCEPTOR)
        self._timer = Address(node, Role.EXPIRY_TIMER)
        self._feed = Address(node, Role.FEED)

    def step(self, message: Message) -> Effects:
        """Decide on one message."""
        effects = Effects()
        match message:
            case Learn(vote):
                if vote.slot > self.applied_upto:
                    self._open[vote.slot] = vote
                    self._count(vote.slot, vote.ballot, self.node)
                    self._apply_what_is_chosen(effects)
            case Accepted(ballot, node, slot):
                if (
                    self.applied_upto < slot <= self.applied_upto + limits.SLOTS_COUNTED_AHEAD_MAX
                    and node in self.members
                ):
                    self._count(slot, ballot, node)
                    self._apply_what_is_chosen(effects)
            case Watermark(ballot, chosen_upto):
                self._advance_watermark(ballot, chosen_upto)
                self._apply_what_is_chosen(effects)
            case Chosen(vote):
                if vote.slot > self.applied_upto:
                    self._chosen[vote.slot] = vote
                    self._fetched = True
                    self._apply_what_is_chosen(effects)
            case Tick():
                self._tick(message, effects)
            case Leadership():
                self.leading = message.ballot if message.leader == self.node else NO_BALLOT
                self._told_deadline_ms = 0
            case Behind():
                self._behind = message
            case SnapshotNeeded(node):
                if self._assembling is None:
                    self._assembling = (node, 0, 0, bytearray())
                    self._ask_snapshot(effects)
            case FetchSnapshot():
                self._serve_snapshot(message, effects)
            case SnapshotChunk():
                self._take_chunk(message, effects)
        return effects

    @property
    def applied_upto(self) -> int:
        """The last slot whose entry the lease state holds."""
        return self.state.header.applied_upto

    # --- learning ----------------------------------------------------------------------------------------------------

    def _count(self, slot: int, ballot: Ballot, node: int) -> None:
        self._counts.setdefault(slot, {}).setdefault(ballot, {})[node] = None

    def _advance_watermark(self, ballot: Ballot, chosen_upto: int) -> None:
        if ballot > self.watermark[0]:
            self._behind = None  # who leads now has every chosen slot, and lives
        self.watermark = max(self.watermark, (ballot, chosen_upto))

    def _known(self, slot: int) -> Vote | None:
        """Return the chosen value of a slot, if this node can know it."""
        chosen = self._chosen.get(slot)
        if chosen is not None:
            return chosen
        vote = self._open.get(slot)
        if vote is None:
            return None
        ballot, upto = self.watermark
        if slot <= upto and vote.ballot == ballot:
            return vote
        if len(self._counts.get(slot, {}).get(vote.ballot, ())) >= self.quorum:
            return vote
        return None

    def _apply_what_is_chosen(self, effects: Effects) -> None:
        while (vote := self._known(self.applied_upto + 1)) is not None:
            self._apply(vote, effects)
            self._open.pop(vote.slot, None)
            self._counts.pop(vote.slot, None)
            self._chosen.pop(vote.slot, None)

    def _apply(self, vote: Vote, effects: Effects) -> None:
        try:
            entry = decode(vote.entry)
        except Malformed as error:
            raise Corrupt(f"the chosen entry of slot {vote.slot} cannot be read: {error}") from error
        if not isinstance(entry, Batch | Lead | NoOp):
            raise Corrupt(f"the chosen entry of slot {vote.slot} is a {type(entry).__name__}")
        self.highest = max(self.highest, vote.ballot)
        answering = isinstance(entry, Batch) and entry.term == self.leading != NO_BALLOT
        outcome = self.state.apply(vote.slot, entry, answering=answering)
        if isinstance(entry, Batch) and answering:
            applied = Applied(entry.term, self.state.clock_ms, tuple(outcome.answers), tuple(outcome.notices))
            effects.send(self._gateway, applied)
        if outcome.events:
            effects.send(self._feed, Events(tuple(outcome.events)))

    # --- time: what is told, saved and fetched at the end of each batch ----------------------------------------------

    def _tick(self, tick: Tick, effects: Effects) -> None:
        self._now_ms = tick.now_ms
        self._save(effects)
        self._tell(effects)
        self._catch_up(effects)
        if self._serving:
            wanted_since = self._now_ms - SERVED_KEPT_MS
            self._serving = {to: one for to, one in self._serving.items() if one.asked_at_ms >= wanted_since}

    def _tell(self, effects: Effects) -> None:
        applied_upto = self.applied_upto
        if applied_upto != self._told_progress:
            self._told_progress = applied_upto
            effects.send(self._proposer, Progress(applied_upto, self.saved_upto, self.highest))
        if self.saved_upto != self._told_saved:
            self._told_saved = self.saved_upto
            effects.send(self._acceptor, Progress(applied_upto, self.saved_upto, self.highest))
        if self._now_ms - self._told_summary_at_ms >= limits.SUMMARY_EVERY_MS and self._summary_is_due():
            self._told_summary = self.summary()
            self._told_summary_at_ms = self._now_ms
            effects.send(self._gateway, self._told_summary)
        if self.leading != NO_BALLOT:
            clock, deadline, told = self.state.clock_ms, self.state.next_deadline_ms(), self._told_deadline_ms
            # a later deadline need not be told: when the earlier one is due, the clock passes it and this comes again
            if (deadline and (not told or deadline < told)) or (told and told <= clock):
                self._told_deadline_ms = deadline
                effects.send(self._timer, NextDeadline(clock, deadline))

    @property
    def patient(self) -> tuple[type, ...]:
        """What need not wake this role: its own acceptor's vote, while it is the first to be heard of in its slot."""
        waits = self.quorum > 1 and not self._counts and self._chosen_upto() <= self.applied_upto
        return (Learn,) if waits else ()

    @property
    def wake_at_ms(self) -> int | None:
        """When on the node's monotonic clock this core wants its next tick, if no message comes before."""
        due = []
        if self.state.header.applied_upto > self.saved_upto:
            due.append(self._saved_at_ms + limits.SAVE_EVERY_MS)
        if self._summary_is_due():
            due.append(self._told_summary_at_ms + limits.SUMMARY_EVERY_MS)
        if self._assembling is not None:
            due.append(self._asked_snapshot_at_ms + limits.FETCH_RETRY_MS)
        elif self._gap_since_ms is not None:
            due.append(self._gap_since_ms + limits.FETCH_RETRY_MS)
        due += [serving.asked_at_ms + SERVED_KEPT_MS + 1 for serving in self._serving.values()]
        return min(due) if due else None

    def _summary_is_due(self) -> bool:
        told = self._told_summary
        return told.applied_upto != self.applied_upto or told.chosen_upto != self._chosen_upto()

    def _chosen_upto(self) -> int:
        return max(self.applied_upto, self.watermark[1])

    def summary(self) -> Summary:
        """Return the figures that `lessor status` shows."""
        state = self.state
        return Summary(
            self._chosen_upto(),
            self.applied_upto,
            state.clock_ms,
            state.sessions,
            state.held,
            state.waiting,
            state.revision,
            len(state.namespaces.shelf),
            len(state.semaphores.shelf),
            len(state.pins.shelf),
            len(state.registers.shelf),
            len(state.lapses),
        )

    def _save(self, effects: Effects) -> None:
        unsaved = self.applied_upto - self.saved_upto
        due = unsaved and self._now_ms - self._saved_at_ms >= limits.SAVE_EVERY_MS
        if due or unsaved >= limits.SAVE_EVERY_SLOTS:
            self._saved_at_ms = self._now_ms
            self.saved_upto = self.applied_upto
            effects.write(SaveState())

    # --- catch-up ----------------------------------------------------------------------------------------------------

    def _catch_up(self, effects: Effects) -> None:
        applied_upto = self.applied_upto
        (_, node), upto = self.watermark
        if self._behind is not None and applied_upto < self._behind.chosen_upto:
            # newer word than the watermark, whose leader may be dead or this node itself before a restart
            node, upto = self._behind.node, self._behind.chosen_upto
        if applied_upto >= upto or node == self.node:
            self._gap_since_ms = None
            self._assembling = None
            self._fetched = False
            return
        if self._assembling is not None:
            if self._now_ms - self._asked_snapshot_at_ms >= limits.FETCH_RETRY_MS:
                if self._assembling[0] != node:
                    self._assembling = (node, 0, 0, bytearray())  # from whoever leads now, from the start
                self._ask_snapshot(effects)
            return
        if self._gap_since_ms is None and not self._fetched:
            # the vote may be on its way through this node's own journal: do not fetch at once
            self._gap_since_ms = self._now_ms
        elif self._fetched or self._now_ms - (self._gap_since_ms or 0) >= limits.FETCH_RETRY_MS:
            self._fetched = False
            self._gap_since_ms = self._now_ms
            effects.send(Address(node, Role.ACCEPTOR), Fetch(self.node, applied_upto + 1))

    def _ask_snapshot(self, effects: Effects) -> None:
        assert self._assembling is not None
        node, slot, _, parts = self._assembling
        self._asked_snapshot_at_ms = self._now_ms
        offset = len(parts) if slot else self.applied_upto
        effects.send(Address(node, Role.LEARNER), FetchSnapshot(self.node, slot, offset))

    def _serve_snapshot(self, ask: FetchSnapshot, effects: Effects) -> None:
        if ask.node not in self.members or ask.node == self.node:
            return
        serving = self._serving.get(ask.node)
        # A snapshot may take long to make. So nobody who has not come to the end of one gets a newer one: questions
        # that were repeated meanwhile would each have another made, and none would ever be fetched.
        if serving is None or (ask.slot == 0 and (serving.done or serving.slot <= ask.offset)):
            same = (other for other in self._serving.values() if other.slot == self.applied_upto)
            found = next(same, None)
            data = found.data if found is not None else self.state.snapshot()
            serving = _Serving(self.applied_upto, data, 0)
        offset = ask.offset if ask.slot == serving.slot != 0 and ask.offset < len(serving.data) else 0
        piece = serving.data[offset : offset + limits.SNAPSHOT_CHUNK_BYTES]
        done = offset + len(piece) >= len(serving.data)
        self._serving[ask.node] = _Serving(serving.slot, serving.data, self._now_ms, done)
        chunk = SnapshotChunk(self.node, serving.slot, offset, len(serving.data), piece)
        effects.send(Address(ask.node, Role.LEARNER), chunk)

    def _take_chunk(self, chunk: SnapshotChunk, effects: Effects) -> None:
        if self._assembling is None or chunk.node != self._assembling[0]:
            return
        if chunk.total > limits.SNAPSHOT_BYTES_MAX:
            most = limits.SNAPSHOT_BYTES_MAX
            self.complaint = f"node {chunk.node} has a snapshot of {chunk.total} bytes; more than {most} are not taken"
        if chunk.slot <= self.applied_upto or not chunk.data or chunk.total > limits.SNAPSHOT_BYTES_MAX:
            self._assembling = None
            return
        node, slot, _, parts = self._assembling
        if chunk.slot != slot:
            parts = bytearray()
        if chunk.offset != len(parts):
            return
        parts += chunk.data
        self._assembling = (node, chunk.slot, chunk.total, parts)
        if len(parts) < chunk.total:
            self._ask_snapshot(effects)
            return
        self._assembling = None
        self._install(chunk.slot, bytes(parts), effects)

    def _install(self, slot: int, data: bytes, effects: Effects) -> None:
        try:
            state = LeaseState.restore(data)
        except Malformed as error:
            self.complaint = f"the snapshot at slot {slot} cannot be read: {error}"
            return  # the retry asks for another one
        if state.applied_upto != slot or slot <= self.applied_upto:
            return
        self.state = state
        self.saved_upto = slot
        self._open = {old: vote for old, vote in self._open.items() if old > slot}
        self._counts = {old: votes for old, votes in self._counts.items() if old > slot}
        self._chosen = {old: vote for old, vote in self._chosen.items() if old > slot}
        effects.write(ReplaceState())
        effects.send(self._acceptor, Installed(slot))
        effects.send(self._proposer, Installed(slot))
        self._told_progress = self._told_saved = slot
        self._fetched = True
        self._apply_what_is_chosen(effects)
