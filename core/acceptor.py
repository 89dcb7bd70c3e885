"""The acceptor: promises, accepts, and keeps the journal of what it accepted (Paxos Made Simple, §2.2, over slots).

Laws it keeps:
- its promise never falls, and it accepts nothing below it;
- what it says it has promised or accepted was written first (the shell commits the writes before it sends);
- in every slot that its learner has applied, its vote holds the chosen value: so it can serve catch-up.
"""

from collections.abc import Iterable

from . import limits
from .ballot import NO_BALLOT, Ballot
from .effects import Address, Effects, Role
from .messages import (
    Accept,
    Accepted,
    Chosen,
    Fetch,
    Fetched,
    Installed,
    Learn,
    Prepare,
    Progress,
    Promise,
    Refuse,
    SnapshotNeeded,
    Tick,
    Truncate,
    Vote,
    Watermark,
    WritePromise,
    WriteVote,
    WriteWatermark,
)

Message = Prepare | Accept | Fetch | Fetched | Progress | Installed | Tick


class Acceptor:
    """The pure core of one node's acceptor. Built from what its journal holds."""

    def __init__(
        self,
        node: int,
        members: tuple[int, ...],
        promised: Ballot = NO_BALLOT,
        votes: Iterable[Vote] = (),
        truncated_upto: int = 0,
        watermark: tuple[Ballot, int] = (NO_BALLOT, 0),
        applied_upto: int = 0,
    ) -> None:
        """Start from the journal's contents; `applied_upto` is what the lease state holds."""
        assert node in members
        self.node = node
        self.members = members
        self.promised = promised
        self.truncated_upto = truncated_upto
        self.watermark = watermark
        self.applied_upto = applied_upto
        self.votes: dict[int, Vote] = {}
        self._bytes = 0
        self._learner = Address(node, Role.LEARNER)
        for vote in votes:
            self._keep(vote)

    def step(self, message: Message) -> Effects:
        """Decide on one message."""
        effects = Effects()
        match message:
            case Accept():
                self._accept(message, effects)
            case Prepare():
                self._prepare(message, effects)
            case Progress():
                self._progress(message, effects)
            case Fetch():
                self._fetch(message, effects)
            case Fetched():
                self._fetched(message, effects)
            case Installed():
                self._truncate(message.slot, effects)
                self.applied_upto = max(self.applied_upto, message.slot)
            case Tick():
                pass
        return effects

    def recover(self) -> Effects:
        """Tell the learner, after a restart, what the journal holds beyond the lease state."""
        effects = Effects()
        for slot in sorted(slot for slot in self.votes if slot > self.applied_upto):
            effects.send(self._learner, Learn(self.votes[slot]))
        ballot, chosen_upto = self.watermark
        if chosen_upto > self.applied_upto:
            effects.send(self._learner, Watermark(ballot, chosen_upto))
        return effects

    # --- phases 1 and 2 ----------------------------------------------------------------------------------------------

    def _prepare(self, prepare: Prepare, effects: Effects) -> None:
        ballot = prepare.ballot
        if ballot.node not in self.members:
            return
        proposer = Address(ballot.node, Role.PROPOSER)
        if ballot < self.promised:
            effects.send(proposer, Refuse(ballot, self.node, self.promised))
            return
        self._promise(ballot, effects)
        votes, next_page = self._page(sorted(slot for slot in self.votes if slot >= prepare.from_slot))
        effects.send(proposer, Promise(ballot, self.node, prepare.from_slot, votes, next_page, self.truncated_upto))

    def _accept(self, accept: Accept, effects: Effects) -> None:
        ballot = accept.ballot
        if ballot.node not in self.members or accept.slot > self.applied_upto + limits.SLOTS_AHEAD_MAX:
            return
        if ballot < self.promised:
            effects.send(Address(ballot.node, Role.PROPOSER), Refuse(ballot, self.node, self.promised))
            return
        self._promise(ballot, effects)
        # a slot that is truncated is chosen, so any later ballot proposes its value: it may be acknowledged unread
        if accept.slot > self.truncated_upto:
            vote = self.votes.get(accept.slot)
            if vote is None or vote.ballot != ballot:
                vote = Vote(accept.slot, ballot, accept.entry)
                self._keep(vote)
                effects.write(WriteVote(vote))
            effects.send(self._learner, Learn(vote))
        if ballot.node != self.node:
            effects.send(Address(ballot.node, Role.LEARNER), Accepted(ballot, self.node, accept.slot))
            effects.send(self._learner, Watermark(ballot, accept.chosen_upto))
        if (ballot, accept.chosen_upto) > self.watermark:
            self.watermark = (ballot, accept.chosen_upto)
            effects.write(WriteWatermark(ballot, accept.chosen_upto))

    def _promise(self, ballot: Ballot, effects: Effects) -> None:
        if ballot > self.promised:
            self.promised = ballot
            effects.write(WritePromise(ballot))

    # --- catch-up ----------------------------------------------------------------------------------------------------

    def _fetch(self, fetch: Fetch, effects: Effects) -> None:
        if fetch.node not in self.members or fetch.node == self.node or fetch.from_slot > self.applied_upto:
            return
        run: list[int] = []
        for slot in range(max(fetch.from_slot, 1), self.applied_upto + 1):
            if slot not in self.votes or len(run) >= limits.PAGE_SLOTS:
                break
            run.append(slot)
        votes, _ = self._page(run)
        # a hole where everything is applied can only be what was truncated: then, too, a snapshot is the answer
        truncated = self.truncated_upto if votes else max(self.truncated_upto, fetch.from_slot)
        effects.send(Address(fetch.node, Role.ACCEPTOR), Fetched(self.node, votes, truncated))

    def _fetched(self, fetched: Fetched, effects: Effects) -> None:
        if not fetched.votes:
            effects.send(self._learner, SnapshotNeeded(fetched.node))
            return
        for vote in fetched.votes:
            if vote.slot <= self.truncated_upto:
                continue
            mine = self.votes.get(vote.slot)
            if mine is None or mine.ballot < vote.ballot:
                # a chosen value may be recorded as accepted: every later ballot proposes the same; and no lower one
                # may replace it from here on
                self._promise(vote.ballot, effects)
                self._keep(vote)
                effects.write(WriteVote(vote))
            effects.send(self._learner, Chosen(vote))

    def _progress(self, progress: Progress, effects: Effects) -> None:
        self.applied_upto = max(self.applied_upto, progress.applied_upto)
        if len(self.votes) <= limits.JOURNAL_RETAIN_SLOTS * 5 // 4 and self._bytes <= limits.JOURNAL_RETAIN_BYTES:
            return
        upto, count, size = self.truncated_upto, len(self.votes), self._bytes
        while upto < progress.saved_upto and (
            count > limits.JOURNAL_RETAIN_SLOTS or size > limits.JOURNAL_RETAIN_BYTES * 3 // 4
        ):
            upto += 1
            vote = self.votes.get(upto)
            if vote is not None:
                count -= 1
                size -= len(vote.entry)
        self._truncate(upto, effects)

    def _truncate(self, upto: int, effects: Effects) -> None:
        if upto <= self.truncated_upto:
            return
        for slot in [slot for slot in self.votes if slot <= upto]:
            self._bytes -= len(self.votes.pop(slot).entry)
        self.truncated_upto = upto
        effects.write(Truncate(upto))

    def _page(self, slots: list[int]) -> tuple[tuple[Vote, ...], int]:
        """Return the votes of as many of `slots` as fit in a page, and the first slot that did not fit (0: none)."""
        page: list[Vote] = []
        size = 0
        for slot in slots:
            if size >= limits.PAGE_BYTES or len(page) >= limits.PAGE_SLOTS:
                return tuple(page), slot
            page.append(self.votes[slot])
            size += len(self.votes[slot].entry)
        return tuple(page), 0

    def _keep(self, vote: Vote) -> None:
        before = self.votes.get(vote.slot)
        if before is not None:
            self._bytes -= len(before.entry)
        self.votes[vote.slot] = vote
        self._bytes += len(vote.entry)
