"""The proposer: stands for leadership, and as leader has batches chosen (Paxos Made Simple §3; pre-vote after Ongaro).

Laws it keeps:
- it never proposes under a ballot whose phase 1 it has not finished, and its own acceptor promised that ballot first,
  so that a restart cannot use a ballot twice;
- under one ballot it proposes one value per slot;
- a new leader first re-proposes what phase 1 found (a no-op in the gaps), then `Lead`, then its own batches;
- the milliseconds in its stamps never run faster than its monotonic clock, and stand still over a stall of its own.
"""

import enum
from collections import deque

from . import limits
from .ballot import NO_BALLOT, Ballot, quorum
from .effects import Address, Effects, Role
from .encoding import encode
from .entries import Batch, Lead, NoOp
from .messages import (
    Accept,
    Behind,
    Heartbeat,
    HeartbeatAnswer,
    Installed,
    Leadership,
    Nudge,
    PeerLost,
    Prepare,
    PreVote,
    PreVoteAnswer,
    Progress,
    Promise,
    Refuse,
    Submit,
    Tick,
    Vote,
    Watermark,
)

Message = (
    Submit
    | Progress
    | Installed
    | Tick
    | Nudge
    | PeerLost
    | Promise
    | Refuse
    | PreVote
    | PreVoteAnswer
    | Heartbeat
    | HeartbeatAnswer
)


class Stage(enum.Enum):
    """Where a proposer stands."""

    FOLLOWER = "follower"
    ASKING = "asking"  # pre-vote is out
    PREPARING = "preparing"  # phase 1 is out
    LEADER = "leader"


class Proposer:
    """The pure core of one node's proposer."""

    def __init__(self, node: int, members: tuple[int, ...], promised: Ballot, applied_upto: int) -> None:
        """Start as follower; `promised` is what this node's own acceptor has promised."""
        assert node in members
        self.node = node
        self.members = members
        self.peers = tuple(member for member in members if member != node)
        self.quorum = quorum(len(members))
        self._acceptors = tuple([Address(member, Role.ACCEPTOR) for member in (*self.peers, node)])  # its own the last
        self._proposers = tuple([Address(peer, Role.PROPOSER) for peer in self.peers])
        self._learner = Address(node, Role.LEARNER)
        self.stage = Stage.FOLLOWER
        self.highest = promised  # the highest ballot seen anywhere
        self.applied_upto = applied_upto
        self.now_ms = 0
        self.luck = 0.5
        # as follower
        self.leader = NO_BALLOT
        self._heard = False
        self._heard_at_ms: int | None = None  # None: before the first tick
        self._suspected = False  # the leader's connection broke, and it has not been heard since
        self._hinted = False  # ... since the last tick
        self._stand_at_ms = 0
        self._holds_back = 0.0  # since the last tick, it let another try first or failed: to wait so many spreads
        # as candidate
        self.ballot = NO_BALLOT  # the one that this node stands or leads under
        self._granted: dict[int, None] = {}
        self._own_promise = False
        self._from_slot = 0
        self._found: dict[int, Vote] = {}
        self._promised: dict[int, bool] = {}
        self._give_up_at_ms = 0
        self._ask_again_at_ms = 0
        # as leader
        self.elapsed_ms = 0
        self._counting = False  # from the first tick on: the time before it may lie before the end of phase 1
        self.next_slot = 0
        self._backlog: deque[bytes] = deque()
        self._pending: deque[bytes] = deque()
        self._in_flight: dict[int, tuple[bytes, int, int]] = {}  # by slot: entry, when first sent, when last sent
        self._nudged = False
        self._heartbeat_at_ms = 0
        self._answered: dict[int, None] = {}
        self._answered_at_ms: dict[int, int] = {}
        self.batches = 0
        self.batched_commands = 0

    def step(self, message: Message) -> Effects:
        """Decide on one message."""
        effects = Effects()
        match message:
            case Submit():
                self._submit(message)
            case Tick():
                self._tick(message, effects)
            case Progress():
                self._progress(message, effects)
            case Installed(slot):
                self.applied_upto = max(self.applied_upto, slot)
                if self.stage in (Stage.PREPARING, Stage.LEADER):
                    self._fail(effects)
            case Heartbeat():
                self._heartbeat(message, effects)
            case HeartbeatAnswer():
                if message.ballot == self.ballot and self.stage is Stage.LEADER:
                    self._answered[message.node] = None
            case Nudge():
                self._nudged = True
            case Promise():
                self._promise(message, effects)
            case Refuse():
                self._refuse(message, effects)
            case PreVote():
                self._pre_vote(message, effects)
            case PreVoteAnswer():
                self._pre_vote_answer(message, effects)
            case PeerLost():
                self._peer_lost(message)
        return effects

    # --- following ---------------------------------------------------------------------------------------------------

    def _heartbeat(self, heartbeat: Heartbeat, effects: Effects) -> None:
        ballot = heartbeat.ballot
        if ballot.node not in self.peers:
            return
        to = Address(ballot.node, Role.PROPOSER)
        if ballot < max(self.leader, self.ballot if self.stage in (Stage.PREPARING, Stage.LEADER) else NO_BALLOT):
            effects.send(to, Refuse(ballot, self.node, self.highest))
            return
        self._see(ballot)
        if self.stage is not Stage.FOLLOWER or self.leader != ballot:
            self._follow(ballot, effects)
        self._heard = True
        self._suspected = False
        effects.send(self._learner, Watermark(ballot, heartbeat.chosen_upto))
        effects.send(to, HeartbeatAnswer(ballot, self.node, self.applied_upto))

    def _follow(self, leader: Ballot, effects: Effects) -> None:
        """Become a follower: of `leader`, or of nobody yet (NO_BALLOT)."""
        self.stage = Stage.FOLLOWER
        self.leader = leader
        self.ballot = NO_BALLOT
        self._pending.clear()
        self._backlog.clear()
        self._in_flight.clear()
        self._found.clear()
        self._nudged = False
        self._announce(effects)

    def _announce(self, effects: Effects) -> None:
        role = {Stage.LEADER: "leader", Stage.FOLLOWER: "follower"}.get(self.stage, "candidate")
        leader = {Stage.LEADER: self.ballot, Stage.FOLLOWER: self.leader}.get(self.stage, NO_BALLOT)
        leadership = Leadership(role, leader, leader.node)
        for local in (Role.GATEWAY, Role.LEARNER, Role.EXPIRY_TIMER):
            effects.send(Address(self.node, local), leadership)

    def _peer_lost(self, lost: PeerLost) -> None:
        if self.stage is Stage.FOLLOWER and lost.node == self.leader.node:
            self._suspected = True
            self._hinted = True

    def _see(self, ballot: Ballot) -> None:
        self.highest = max(self.highest, ballot)

    # --- standing ----------------------------------------------------------------------------------------------------

    def _stand(self, effects: Effects) -> None:
        self.stage = Stage.ASKING
        self.ballot = Ballot(self.highest.counter + 1, self.node)
        self._granted = {self.node: None}
        self._give_up_at_ms = self.now_ms + limits.CANDIDACY_MS
        self._announce(effects)
        self._ask_again(effects)
        self._count_pre_votes(effects)

    def _ask_again(self, effects: Effects) -> None:
        """Ask those who have not answered: for a pre-vote, or for a promise."""
        self._ask_again_at_ms = self.now_ms + limits.ELECTION_RESEND_MS
        if self.stage is Stage.ASKING:
            for peer in self.peers:
                if peer not in self._granted:
                    effects.send(Address(peer, Role.PROPOSER), PreVote(self.ballot, self.node))
        elif self._own_promise:
            for peer in self.peers:
                if peer not in self._promised:
                    effects.send(Address(peer, Role.ACCEPTOR), Prepare(self.ballot, self._from_slot))

    def _pre_vote(self, ask: PreVote, effects: Effects) -> None:
        if ask.node not in self.peers:
            return
        match self.stage:
            case Stage.FOLLOWER:
                granted = not self._hears_a_leader_other_than(ask.node)
            case Stage.ASKING:
                granted = ask.ballot > self.ballot  # of two that ask at once, one must yield
            case _:
                granted = False
        if granted:
            # let the one who asks try first
            if self.stage is Stage.ASKING:
                self._follow(NO_BALLOT, effects)
            self._holds_back = 1.0
        answer = PreVoteAnswer(ask.ballot, self.node, granted, self.highest)
        effects.send(Address(ask.node, Role.PROPOSER), answer)

    def _hears_a_leader_other_than(self, node: int) -> bool:
        if self.leader in (NO_BALLOT, Ballot(self.leader.counter, node)) or self._suspected:
            return False
        return self._heard or (
            self._heard_at_ms is not None and self.now_ms - self._heard_at_ms < limits.ELECTION_TIMEOUT_MIN_MS
        )

    def _pre_vote_answer(self, answer: PreVoteAnswer, effects: Effects) -> None:
        self._see(answer.highest)
        if self.stage is Stage.ASKING and answer.ballot == self.ballot and answer.granted and answer.node in self.peers:
            self._granted[answer.node] = None
            self._count_pre_votes(effects)

    def _count_pre_votes(self, effects: Effects) -> None:
        if len(self._granted) < self.quorum:
            return
        self.stage = Stage.PREPARING
        # the answers may have shown higher ballots than the one that was asked about
        self.ballot = Ballot(self.highest.counter + 1, self.node)
        self._see(self.ballot)
        self._own_promise = False
        self._from_slot = self.applied_upto + 1
        self._found = {}
        self._promised = {}
        effects.send(Address(self.node, Role.ACCEPTOR), Prepare(self.ballot, self._from_slot))

    def _promise(self, promise: Promise, effects: Effects) -> None:
        if self.stage is not Stage.PREPARING or promise.ballot != self.ballot or promise.node not in self.members:
            return
        if promise.truncated_upto >= self._from_slot:
            # chosen slots that this node has not applied are forgotten there: it must catch up before it may lead
            self._fail(effects)
            effects.send(self._learner, Behind(promise.node, promise.truncated_upto))
            return
        for vote in promise.votes:
            found = self._found.get(vote.slot)
            if found is None or found.ballot < vote.ballot:
                self._found[vote.slot] = vote
        if promise.node == self.node and not self._own_promise:
            self._own_promise = True
            self._ask_again(effects)
        if promise.next_page:
            effects.send(Address(promise.node, Role.ACCEPTOR), Prepare(self.ballot, promise.next_page))
            return
        self._promised[promise.node] = True
        if len(self._promised) >= self.quorum:
            self._lead(effects)

    def _refuse(self, refuse: Refuse, effects: Effects) -> None:
        self._see(refuse.promised)
        if refuse.ballot == self.ballot and self.stage in (Stage.PREPARING, Stage.LEADER):
            self._fail(effects)

    def _fail(self, effects: Effects) -> None:
        """Give up the candidacy or the leadership, and stand again after a random while unless somebody leads."""
        self._holds_back = max(self._holds_back, 0.5)
        self._stand_at_ms = self.now_ms  # the tick adds the while, since `now_ms` may be long ago
        self._follow(NO_BALLOT, effects)

    # --- leading -----------------------------------------------------------------------------------------------------

    def _lead(self, effects: Effects) -> None:
        self.stage = Stage.LEADER
        self.leader = self.ballot
        self.elapsed_ms = 0
        self._counting = False
        self.next_slot = self._from_slot
        last = max(self._found, default=self._from_slot - 1)
        no_op = encode(NoOp())
        assert last >= self.applied_upto, "phase 1 finds every chosen slot that is not truncated"
        for slot in range(self._from_slot, last + 1):
            vote = self._found.get(slot)
            self._backlog.append(vote.entry if vote is not None else no_op)
        self._backlog.append(encode(Lead(self.ballot)))
        self._found = {}
        self._heartbeat_at_ms = self.now_ms
        self._answered = {}
        self._answered_at_ms = dict.fromkeys(self.peers, self.now_ms)
        self._announce(effects)

    def _submit(self, submit: Submit) -> None:
        # the gateway hears of a lost leadership by message and answers its clients itself
        if self.stage is Stage.LEADER and submit.ballot == self.ballot:
            assert all(len(command) <= limits.BATCH_BYTES_MAX for command in submit.commands), "the gateway bounds it"
            self._pending.extend(submit.commands)
            assert len(self._pending) <= limits.PROPOSER_QUEUE_MAX, "the gateway bounds what is in flight"

    def _progress(self, progress: Progress, effects: Effects) -> None:
        self.applied_upto = max(self.applied_upto, progress.applied_upto)
        self._see(progress.ballot)
        if self.stage in (Stage.PREPARING, Stage.LEADER) and progress.ballot > self.ballot:
            # somebody else has had values chosen, maybe others than this node proposed in those slots: to claim as the
            # leader of this ballot that they are chosen would have followers apply what they accepted from here
            self._fail(effects)
            return
        if self._in_flight:
            for slot in [slot for slot in self._in_flight if slot <= self.applied_upto]:
                del self._in_flight[slot]

    def _propose(self, effects: Effects) -> None:
        while len(self._in_flight) < limits.WINDOW_SLOTS:
            if self._backlog:
                if len(self._backlog) == 1 and self._in_flight:
                    # `Lead` waits until all before it is chosen. Else a third leader might find it behind a batch that
                    # the leader before wrote, cut off, after our phase 1: the same time would be counted twice.
                    return
                entry = self._backlog.popleft()
            elif self._pending or self._nudged:
                # both ends of the term were cut to whole milliseconds: without one less, the sum could be ahead of time
                entry = encode(Batch(self.ballot, max(0, self.elapsed_ms - 1), self._pack()))
                self._nudged = False
            else:
                return
            slot = self.next_slot
            self.next_slot += 1
            if slot <= self.applied_upto:
                continue  # found open in phase 1, chosen and applied since
            self._in_flight[slot] = (entry, self.now_ms, self.now_ms)
            self._send_accept(slot, entry, effects)

    def _pack(self) -> tuple[bytes, ...]:
        commands: list[bytes] = []
        size = 0
        while self._pending and len(commands) < limits.BATCH_COMMANDS_MAX:
            size += len(self._pending[0])
            if commands and size > limits.BATCH_BYTES_MAX:
                break
            commands.append(self._pending.popleft())
        self.batches += 1
        self.batched_commands += len(commands)
        return tuple(commands)

    def _send_accept(self, slot: int, entry: bytes, effects: Effects) -> None:
        accept = Accept(self.ballot, slot, entry, self.applied_upto)
        for acceptor in self._acceptors:
            effects.send(acceptor, accept)

    # --- time --------------------------------------------------------------------------------------------------------

    def _tick(self, tick: Tick, effects: Effects) -> None:
        gap_ms = tick.now_ms - self.now_ms
        assert gap_ms >= 0 or self._heard_at_ms is None, "a monotonic clock went back"
        self.now_ms, self.luck = tick.now_ms, tick.luck
        if self._heard_at_ms is None:
            self._heard_at_ms = self.now_ms
            # alone, there is nobody to wait for; otherwise give a running leader the time to be heard
            first_ms = limits.ELECTION_FIRST_MIN_MS + int(self.luck * limits.ELECTION_FIRST_SPREAD_MS)
            self._stand_at_ms = self.now_ms + (first_ms if self.peers else 0)
        if self._heard:
            self._heard = False
            self._heard_at_ms = self.now_ms
            self._stand_at_ms = self._patience()
        if self._hinted:
            self._hinted = False
            if self._suspected:
                self._stand_at_ms = self.now_ms + int(self.luck * limits.ELECTION_HINT_SPREAD_MS)
        self._hold_back()
        if self.stage is Stage.LEADER:
            self._tick_leader(gap_ms, effects)
        elif self.stage is Stage.FOLLOWER:
            if self.now_ms >= self._stand_at_ms:
                self._stand(effects)
        elif self.now_ms >= self._give_up_at_ms:
            self._fail(effects)
            self._hold_back()
        elif self.now_ms >= self._ask_again_at_ms:
            self._ask_again(effects)

    def _hold_back(self) -> None:
        if self._holds_back:
            until_ms = self.now_ms + int((self._holds_back + self.luck) * limits.ELECTION_RETRY_SPREAD_MS)
            self._stand_at_ms = max(self._stand_at_ms, until_ms)
            self._holds_back = 0.0

    def _patience(self) -> int:
        return self.now_ms + limits.ELECTION_TIMEOUT_MIN_MS + int(self.luck * limits.ELECTION_TIMEOUT_SPREAD_MS)

    def _tick_leader(self, gap_ms: int, effects: Effects) -> None:
        stalled = gap_ms > limits.LEADER_STALL_MS
        # nor does time count while nothing gets chosen: pings would wait behind the stamp that ends their sessions
        stuck = any(self.now_ms - first > limits.LEADER_STALL_MS for _, first, _ in self._in_flight.values())
        if self._counting and not stalled and not stuck:
            self.elapsed_ms += gap_ms
        self._counting = True
        for peer in self.peers:
            if stalled or peer in self._answered:
                self._answered_at_ms[peer] = self.now_ms
        self._answered = {}
        patience_ms = limits.ELECTION_TIMEOUT_MIN_MS + limits.ELECTION_TIMEOUT_SPREAD_MS
        hearing = 1 + sum(self.now_ms - at < patience_ms for at in self._answered_at_ms.values())
        if hearing < self.quorum:
            # cut off from the majority: whoever is out there may have another leader by now
            self._stand_at_ms = self._patience()
            self._follow(NO_BALLOT, effects)
            return
        if self.now_ms >= self._heartbeat_at_ms:
            self._heartbeat_at_ms = self.now_ms + limits.HEARTBEAT_MS
            heartbeat = Heartbeat(self.ballot, self.applied_upto)
            for proposer in self._proposers:
                effects.send(proposer, heartbeat)
        for slot, (entry, first_sent_ms, sent_ms) in self._in_flight.items():
            if self.now_ms - sent_ms >= limits.RETRANSMIT_MS:
                self._in_flight[slot] = (entry, first_sent_ms, self.now_ms)
                self._send_accept(slot, entry, effects)
        self._propose(effects)

    @property
    def patient(self) -> tuple[type, ...]:
        """What need not wake this role: that slots were applied, unless something waits for room in the window."""
        return () if self._backlog or self._pending or self._nudged else (Progress,)

    @property
    def wake_at_ms(self) -> int:
        """When on the node's monotonic clock this core wants its next tick, if no message comes before."""
        if self.stage is Stage.LEADER:
            return self._heartbeat_at_ms
        if self.stage is Stage.FOLLOWER:
            return self._stand_at_ms
        return min(self._give_up_at_ms, self._ask_again_at_ms)
