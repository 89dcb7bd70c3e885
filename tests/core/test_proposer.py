"""The proposer: every message in every stage by its rule, and who stands, who yields and who wins (P1, DESIGN §4)."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest

from lessor.core import limits
from lessor.core.ballot import NO_BALLOT, Ballot, quorum
from lessor.core.effects import Address, Effects, Role, Send
from lessor.core.messages import (
    Behind,
    Heartbeat,
    HeartbeatAnswer,
    Installed,
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
from lessor.core.proposer import Proposer, Stage

from ..support.proposers import (
    APPLIED,
    LED_BY,
    NO_OP,
    NODE,
    PROMISED,
    SCENES,
    START_MS,
    Scene,
    Watched,
    announced,
    ask,
    entries,
    follow,
    prepare,
    promise,
    reign,
    to_acceptor,
    to_proposer,
)

PEERS = (1, 3)
STRANGER = 9
SENDERS = (1, 2, 3, STRANGER)
# The own ballot has the counter 3 or 4, and so has the leader's: below, at and above both, by counter and by node.
BALLOTS = (NO_BALLOT, *(Ballot(counter, node) for counter in (2, 3, 4, 5) for node in (1, 2, 3)), Ballot(5, STRANGER))
LUCKS = (0.0, 0.3, 0.5, 0.999)
SIZES = (2, 3, 4, 5)

# --- every message in every stage ------------------------------------------------------------------------------------


def heartbeats() -> Iterator[Any]:
    return (Heartbeat(ballot, APPLIED + 5) for ballot in BALLOTS)


def heartbeat_answers() -> Iterator[Any]:
    return (HeartbeatAnswer(ballot, node, APPLIED) for ballot in BALLOTS for node in SENDERS)


def pre_votes() -> Iterator[Any]:
    return (PreVote(ballot, node) for ballot in BALLOTS for node in SENDERS)


def pre_vote_answers() -> Iterator[Any]:
    every = product(BALLOTS, SENDERS, (True, False), (NO_BALLOT, Ballot(4, 3), Ballot(8, 1)))
    return (PreVoteAnswer(*fields) for fields in every)


def promises() -> Iterator[Any]:
    votes = (Vote(APPLIED + 1, Ballot(1, 1), NO_OP),)
    truncated = (0, APPLIED, APPLIED + 1)
    for ballot, node, found, page, upto in product(BALLOTS, SENDERS, ((), votes), (0, APPLIED + 5), truncated):
        yield Promise(ballot, node, APPLIED + 1, found, page, upto)


def refusals() -> Iterator[Any]:
    return (Refuse(*fields) for fields in product(BALLOTS, SENDERS, (NO_BALLOT, Ballot(4, 3), Ballot(8, 1))))


def submits() -> Iterator[Any]:
    return (Submit(ballot, (b"x", b"y")) for ballot in BALLOTS)


def progresses() -> Iterator[Any]:
    return (Progress(slot, 0, ballot) for slot in (0, APPLIED, APPLIED + 1) for ballot in BALLOTS)


def locals_() -> Iterator[Any]:
    yield from (Installed(slot) for slot in (0, APPLIED, APPLIED + 1, APPLIED + 50))
    yield from (PeerLost(node) for node in SENDERS)
    yield Nudge()


class Rule:
    """What must follow from one message in one scene: what is said, and where the node stands then."""

    def __init__(self, scene: Scene, core: Proposer, message: Any) -> None:
        self.scene = scene
        self.sends: list[Send] = []
        self.stage, self.ballot, self.leader = core.stage, core.ballot, core.leader
        self.highest, self.applied = core.highest, core.applied_upto
        getattr(self, type(message).__name__.lower())(message)

    @property
    def stands(self) -> bool:
        """Whether a ballot of its own is in use: from phase 1 on."""
        return self.stage in (Stage.PREPARING, Stage.LEADER)

    def see(self, ballot: Ballot) -> None:
        self.highest = max(self.highest, ballot)

    def follow(self, leader: Ballot = NO_BALLOT) -> None:
        self.stage, self.leader, self.ballot = Stage.FOLLOWER, leader, NO_BALLOT
        self.sends += announced("follower", leader)

    def heartbeat(self, message: Heartbeat) -> None:
        """A peer's heartbeat is followed unless its ballot is below the one that leads or stands here."""
        if message.ballot.node not in PEERS:
            return
        if message.ballot < self.leader or (self.stands and message.ballot < self.ballot):
            self.sends.append(to_proposer(message.ballot.node, Refuse(message.ballot, NODE, self.highest)))
            return
        self.see(message.ballot)
        if self.stage is not Stage.FOLLOWER or self.leader != message.ballot:
            self.follow(message.ballot)
        self.sends.append(Send(Address(NODE, Role.LEARNER), Watermark(message.ballot, message.chosen_upto)))
        self.sends.append(to_proposer(message.ballot.node, HeartbeatAnswer(message.ballot, NODE, self.applied)))

    def heartbeatanswer(self, message: HeartbeatAnswer) -> None:
        """Counted in silence."""

    def prevote(self, message: PreVote) -> None:
        """Granted to a peer by who hears no other leader; while asking, to the higher ballot only."""
        if message.node not in PEERS:
            return
        granted = False
        if self.stage is Stage.FOLLOWER:
            granted = not self.scene.hears or message.node == self.leader.node
        elif self.stage is Stage.ASKING and message.ballot > self.ballot:
            granted = True
            self.follow()
        answer = PreVoteAnswer(message.ballot, NODE, granted, self.highest)
        self.sends.append(to_proposer(message.node, answer))

    def prevoteanswer(self, message: PreVoteAnswer) -> None:
        """One peer's grant of what was asked makes two of three: phase 1 begins, at the own acceptor only."""
        self.see(message.highest)
        if self.stage is Stage.ASKING and message.ballot == self.ballot and message.granted and message.node in PEERS:
            self.stage, self.ballot = Stage.PREPARING, Ballot(self.highest.counter + 1, NODE)
            self.see(self.ballot)
            self.sends.append(to_acceptor(NODE, Prepare(self.ballot, self.applied + 1)))

    def promise(self, message: Promise) -> None:
        """A member's promise of the own ballot: fail behind what is truncated, ask on, or lead with two of three."""
        if self.stage is not Stage.PREPARING or message.ballot != self.ballot or message.node == STRANGER:
            return
        if message.truncated_upto > self.applied:
            self.follow()
            behind = Behind(message.node, message.truncated_upto)
            self.sends.append(Send(Address(NODE, Role.LEARNER), behind))
            return
        first = message.node == NODE and self.scene.name == "preparing, before the own promise"
        if first:
            self.sends += [to_acceptor(peer, Prepare(self.ballot, self.applied + 1)) for peer in PEERS]
        if message.next_page:
            self.sends.append(to_acceptor(message.node, Prepare(self.ballot, message.next_page)))
        elif len({*self.scene.promises, message.node}) == 2:
            self.stage, self.leader = Stage.LEADER, self.ballot
            self.sends += announced("leader", self.ballot)

    def refuse(self, message: Refuse) -> None:
        """A refusal of the ballot in use ends it."""
        self.see(message.promised)
        if self.stands and message.ballot == self.ballot:
            self.follow()

    def submit(self, message: Submit) -> None:
        """Proposed at the tick, never before."""

    def progress(self, message: Progress) -> None:
        """Values chosen under a higher ballot than the one in use end it (decision 6)."""
        self.applied = max(self.applied, message.applied_upto)
        self.see(message.ballot)
        if self.stands and message.ballot > self.ballot:
            self.follow()

    def installed(self, message: Installed) -> None:
        """A snapshot names no ballots, so it ends whatever ballot is in use."""
        self.applied = max(self.applied, message.slot)
        if self.stands:
            self.follow()

    def peerlost(self, message: PeerLost) -> None:
        """Acted upon at the tick."""

    nudge = peerlost


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
@pytest.mark.parametrize(
    "messages",
    [
        heartbeats,
        heartbeat_answers,
        pre_votes,
        pre_vote_answers,
        promises,
        refusals,
        submits,
        progresses,
        locals_,
    ],
    ids=lambda messages: messages.__name__.strip("_"),
)
def test_p1_every_message_in_every_stage_does_what_its_rule_says(scene: Scene, messages: Any) -> None:
    watched = scene.build()
    for message in messages():
        if isinstance(message, Promise) and message.node != NODE and scene.name == "preparing, before the own promise":
            continue  # nobody was asked yet
        core = watched.core
        before = (core.stage, core.ballot, core.leader, core.highest, core.applied_upto)
        rule = Rule(scene, core, message)
        said = watched.step(message)
        what = f"{scene.name}: {message}"
        assert said == Effects([], rule.sends), what
        found = (core.stage, core.ballot, core.leader, core.highest, core.applied_upto)
        assert found == (rule.stage, rule.ballot, rule.leader, rule.highest, rule.applied), what
        if said.sends or found != before:  # otherwise it was ignored, and the next one would show if it was not
            watched = scene.build()


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_p1_what_is_not_meant_for_this_stage_leaves_no_trace(scene: Scene) -> None:
    watched = scene.build()
    own = watched.core.ballot
    others = [ballot for ballot in BALLOTS if ballot not in (own, NO_BALLOT)]
    idle: list[Any] = [PreVote(Ballot(9, STRANGER), STRANGER), PreVote(Ballot(9, NODE), NODE)]
    idle += [Heartbeat(Ballot(9, STRANGER), 99), Heartbeat(Ballot(9, NODE), 99), PeerLost(STRANGER), PeerLost(3)]
    idle += [Submit(ballot, (b"x",)) for ballot in others]
    idle += [HeartbeatAnswer(ballot, node, 0) for ballot in others for node in SENDERS]
    idle += [Promise(ballot, node, APPLIED + 1, (), 0, 99) for ballot in others for node in SENDERS]
    idle += [Promise(own, STRANGER, APPLIED + 1, (), 0, 99), PreVoteAnswer(own, STRANGER, True, NO_BALLOT)]
    idle += [PreVoteAnswer(own, node, False, NO_BALLOT) for node in SENDERS]
    idle += [Refuse(ballot, node, NO_BALLOT) for ballot in others for node in SENDERS]
    idle += [Progress(0, 0, NO_BALLOT)]
    if scene.stage not in (Stage.PREPARING, Stage.LEADER):
        idle += [Installed(0), Refuse(own, 1, NO_BALLOT)]
    if scene.stage is not Stage.LEADER:
        idle += [Submit(own, (b"x",)), HeartbeatAnswer(own, 1, 0)]
    before = str(vars(watched.core))
    for message in idle:
        assert watched.run(message) == [], f"{scene.name}: {message}"
        assert str(vars(watched.core)) == before, f"{scene.name}: {message}"


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_tick_is_never_asked_for_in_the_past_so_nobody_spins(scene: Scene) -> None:
    for luck, gap_ms in product(LUCKS, (0, 1, 29, 30, 31, 99, 100, 399, 401, 599, 600, 699, 700, 1_400, 9_999)):
        watched = scene.build()
        watched.tick(gap_ms, luck)  # the watch asserts it
        for _ in range(4):
            watched.tick(watched.core.wake_at_ms - watched.now_ms, luck)
        assert watched.core.wake_at_ms - watched.now_ms <= 1_400, "nobody sleeps longer than patience lasts"


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_monotonic_clock_that_goes_back_ends_the_node(scene: Scene) -> None:
    watched = scene.build()
    if watched.now_ms:
        with pytest.raises(AssertionError, match="went back"):
            watched.core.step(Tick(watched.now_ms - 1))


# --- patience --------------------------------------------------------------------------------------------------------


def stands_after(watched: Watched, luck: float, at_most_ms: int = 2_000) -> int:
    """How long the follower waits from here on; a millisecond before it wants its tick, it must not have stood yet."""
    start_ms = watched.now_ms
    while watched.core.stage is Stage.FOLLOWER:
        assert watched.now_ms - start_ms <= at_most_ms, "never stands"
        watched.tick(max(0, watched.core.wake_at_ms - watched.now_ms - 1), luck)
        if watched.core.stage is Stage.FOLLOWER:
            watched.tick(1, luck)
    return watched.now_ms - start_ms


@pytest.mark.parametrize("luck", LUCKS)
@pytest.mark.parametrize("size", SIZES)
def test_a_node_that_starts_gives_a_running_leader_the_time_to_be_heard(size: int, luck: float) -> None:
    watched = Watched(tuple(range(1, size + 1)))
    assert watched.tick(START_MS, luck) == []
    assert watched.core.wake_at_ms == START_MS + 200 + int(luck * 300)
    assert stands_after(watched, luck) == 200 + int(luck * 300)


@pytest.mark.parametrize("luck", LUCKS)
def test_a_follower_stands_when_patience_ends_and_each_heartbeat_renews_it(luck: float) -> None:
    watched = Watched()
    follow(watched)
    watched.run(Heartbeat(LED_BY, APPLIED), Tick(START_MS + 100, luck))
    assert watched.core.wake_at_ms == watched.now_ms + 700 + int(luck * 700)
    watched.tick(690 + int(luck * 700), luck)
    watched.run(Heartbeat(LED_BY, APPLIED))
    watched.tick(9, luck)
    assert stands_after(watched, luck) == 700 + int(luck * 700)
    own = Ballot(LED_BY.counter + 1, NODE)
    assert (watched.core.stage, watched.core.ballot) == (Stage.ASKING, own)


def test_a_heartbeat_that_waited_unread_through_a_pause_still_counts() -> None:
    watched = Watched()
    follow(watched)
    watched.run(Heartbeat(LED_BY, APPLIED))
    watched.tick(60_000)
    assert watched.core.stage is Stage.FOLLOWER


@pytest.mark.parametrize("luck", LUCKS)
@pytest.mark.parametrize("lost", SENDERS)
def test_the_broken_connection_of_the_leader_makes_its_followers_stand_at_once(lost: int, luck: float) -> None:
    for sequence in product((PeerLost(lost), Heartbeat(LED_BY, APPLIED)), repeat=3):
        watched = Watched()
        follow(watched)
        watched.run(*sequence)
        watched.tick(50, luck)
        hinted = lost == LED_BY.node and isinstance(sequence[-1], PeerLost)
        wait_ms = int(luck * 30) if hinted else 700 + int(luck * 700)
        if any(isinstance(message, Heartbeat) for message in sequence) or hinted:
            assert stands_after(watched, luck) == wait_ms, f"{sequence}"
    watched = Watched()
    follow(watched)
    watched.run(PeerLost(LED_BY.node), Tick(START_MS + 1, 0.999), Heartbeat(LED_BY, APPLIED))
    watched.tick(1, luck)
    assert stands_after(watched, luck) == 700 + int(luck * 700), "a leader that speaks again is suspected no longer"


# --- asking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_who_asks_disturbs_no_promise_and_asks_again_only_who_has_not_granted(size: int) -> None:
    members = tuple(range(1, size + 1))
    watched = Watched(members)
    watched.tick(START_MS)
    said = watched.tick(350)
    own = Ballot(PROMISED.counter + 1, NODE)
    peers = [member for member in members if member != NODE]
    asked = [to_proposer(peer, PreVote(own, NODE)) for peer in peers]
    assert said == announced("candidate") + asked
    assert watched.core.highest == PROMISED, "to ask uses no ballot"
    assert watched.tick(29) == []
    assert watched.tick(1) == asked
    if quorum(size) > 2:
        watched.run(PreVoteAnswer(own, 1, True, NO_BALLOT), PreVoteAnswer(own, 3, False, NO_BALLOT))
        assert watched.tick(30) == asked[1:]
    start_ms = watched.now_ms
    while watched.core.stage is Stage.ASKING:
        said = watched.tick(watched.core.wake_at_ms - watched.now_ms)
    assert watched.now_ms == START_MS + 350 + 600 > start_ms
    assert said == announced("follower"), "gives up, and says so"


@pytest.mark.parametrize("size", SIZES)
def test_phase_1_begins_when_a_majority_has_granted_whoever_they_are(size: int) -> None:
    members = tuple(range(1, size + 1))
    peers = [member for member in members if member != NODE]
    answers = (None, False, True)
    for given in product(answers, repeat=len(peers)):
        watched = Watched(members)
        ask(watched)
        asked = watched.core.ballot
        for peer, granted in zip(peers, given, strict=True):
            for _ in range(2):  # an answer that comes twice counts once
                if granted is not None:
                    watched.run(PreVoteAnswer(asked, peer, granted, NO_BALLOT))
        won = 1 + given.count(True) >= quorum(size)
        assert watched.core.stage is (Stage.PREPARING if won else Stage.ASKING), f"{given}"


def test_p1_the_ballot_of_phase_1_is_above_every_ballot_that_was_ever_seen() -> None:
    for seen, promised in product(BALLOTS, BALLOTS):
        for told in (
            PreVoteAnswer(NO_BALLOT, 1, False, seen),
            Refuse(NO_BALLOT, 1, seen),
            Progress(0, 0, seen),
            Heartbeat(seen, 0),
        ):
            watched = Watched(promised=promised)
            watched.run(Tick(START_MS), told)
            prepare(watched)
            heard = seen if not isinstance(told, Heartbeat) or seen.node in PEERS else NO_BALLOT
            assert watched.core.ballot == Ballot(max(promised, heard).counter + 1, NODE), f"{told} after {promised}"
            assert watched.core.highest == watched.core.ballot


def test_p1_a_ballot_is_used_once_however_often_a_node_stands() -> None:
    watched = Watched()
    used = []
    for end in (Installed(0), Refuse, None) * 3:
        prepare(watched)
        used.append(watched.core.ballot)
        assert watched.tick(30) == [], "each time the own acceptor promises first"
        watched.run(promise(watched, NODE))
        if end is None:
            watched.tick(10_000)
        else:
            watched.run(end(used[-1], 1, NO_BALLOT) if end is Refuse else end)
        assert watched.core.stage is Stage.FOLLOWER
    assert used == sorted(set(used))


def test_of_two_that_ask_at_once_exactly_one_yields() -> None:
    for first, second in product(BALLOTS, BALLOTS):
        one, two = Watched(promised=first), Watched(node=3, promised=second)
        for each in (one, two):
            ask(each)
        asks = PreVote(one.core.ballot, NODE), PreVote(two.core.ballot, 3)
        answers = one.run(asks[1])[-1].message, two.run(asks[0])[-1].message
        assert [answer.granted for answer in answers].count(True) == 1, f"{asks}"
        one.run(answers[1])
        two.run(answers[0])
        stages = {one.core.stage, two.core.stage}
        assert stages == {Stage.FOLLOWER, Stage.PREPARING}, f"{asks}: one tries and one waits"


@pytest.mark.parametrize("luck", LUCKS)
@pytest.mark.parametrize(
    "scene",
    [scene for scene in SCENES if scene.stage in (Stage.FOLLOWER, Stage.ASKING) and not scene.hears],
    ids=lambda scene: scene.name,
)
def test_who_grants_lets_the_other_try_first(scene: Scene, luck: float) -> None:
    watched = scene.build()
    watched.tick(0 if watched.now_ms else START_MS, luck)
    if watched.core.stage is Stage.FOLLOWER or scene.stage is Stage.ASKING:
        watched.run(PreVote(Ballot(9, 3), 3))
        assert watched.core.stage is Stage.FOLLOWER
        waited_ms = stands_after(watched, luck)
        assert waited_ms >= 150 + int(luck * 150), "the time of a round trip and two commits"


@pytest.mark.parametrize("gap_ms", [100, 200, 500, 1_000])
def test_who_grants_yields_from_then_on_however_long_it_slept_before(gap_ms: int) -> None:
    watched = Watched()
    watched.run(Tick(START_MS, 0.999))
    watched.run(PreVote(Ballot(9, 3), 3))  # came `gap_ms` after the last tick
    watched.tick(gap_ms, 0.999)
    assert watched.core.stage is Stage.FOLLOWER, "stands against the one that it has just let go first"
    assert watched.core.wake_at_ms >= watched.now_ms + limits.ELECTION_RETRY_SPREAD_MS


def test_a_hint_in_the_same_batch_does_not_undo_the_yielding() -> None:
    for batch in ([PeerLost(1), PreVote(Ballot(9, 3), 3)], [PreVote(Ballot(9, 3), 3), PeerLost(1)]):
        watched = Watched()
        follow(watched)
        said = watched.run(*batch)
        granted = [send.message.granted for send in said]
        watched.tick(1, 0.0)
        yields = watched.core.stage is Stage.FOLLOWER
        assert granted == [yields], f"{batch}: stands against the one that it has just let go first"


@pytest.mark.parametrize("silent_ms", [700, 701, 1_000])
def test_a_follower_that_slept_through_the_silence_grants_when_it_is_asked_again_at_the_latest(silent_ms: int) -> None:
    watched = Watched()
    watched.run(Tick(START_MS), Heartbeat(LED_BY, APPLIED), Tick(START_MS, 0.999))
    asked = PreVote(Ballot(9, 3), 3)
    said = watched.run(asked)  # nothing came for so long, so nothing woke it before this
    said += watched.tick(silent_ms, 0.999) + watched.run(asked)
    assert said[-1] == to_proposer(3, PreVoteAnswer(asked.ballot, NODE, True, LED_BY))


@pytest.mark.parametrize("gap_ms", [0, 99, 5_000])
@pytest.mark.parametrize("stage", [prepare, reign], ids=["candidate", "leader"])
def test_who_fails_waits_a_random_while_from_then_on(stage: Callable[[Watched], None], gap_ms: int) -> None:
    for luck in LUCKS:
        watched = Watched()
        stage(watched)
        watched.tick(0, luck)
        watched.run(Refuse(watched.core.ballot, 1, Ballot(9, 1)))  # came `gap_ms` after the last tick
        watched.tick(gap_ms, luck)
        assert watched.core.stage is Stage.FOLLOWER, f"luck {luck}: stands at once against who deposed it"
        assert watched.core.wake_at_ms == watched.now_ms + int((0.5 + luck) * 150), f"luck {luck}"


# --- phase 1 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_p1_the_own_acceptor_promises_before_any_peer_is_asked(size: int) -> None:
    members = tuple(range(1, size + 1))
    watched = Watched(members)
    prepare(watched)
    asked = Prepare(watched.core.ballot, APPLIED + 1)
    for _ in range(15):
        assert watched.tick(30) == [], "however long the own acceptor takes"
    peers = [to_acceptor(peer, asked) for peer in members if peer != NODE]
    assert watched.run(promise(watched, NODE)) == peers
    assert watched.tick(29) == []
    assert watched.tick(1) == peers, "asks again"
    if quorum(size) > 2:
        watched.run(promise(watched, 1))
        assert watched.tick(30) == peers[1:], "asks again who has not answered"


@pytest.mark.parametrize("size", SIZES)
def test_p1_nobody_leads_before_a_majority_has_promised_to_the_last_page(size: int) -> None:
    members = tuple(range(1, size + 1))
    peers = [member for member in members if member != NODE]
    for own, *given in product((0, APPLIED + 5), *[(None, 0, APPLIED + 5)] * len(peers)):
        watched = Watched(members)
        prepare(watched)
        for node, page in zip((NODE, *peers), (own, *given), strict=True):
            for _ in range(2):  # a promise that comes twice counts once
                if page is not None:
                    watched.run(promise(watched, node, next_page=page))
        leads = (own, *given).count(0) >= quorum(size)
        assert watched.core.stage is (Stage.LEADER if leads else Stage.PREPARING), f"{own}, {given}"


def test_p1_who_is_behind_what_others_have_truncated_catches_up_instead_of_leading() -> None:
    for node, truncated in product((1, NODE, 3), range(APPLIED - 1, APPLIED + 3)):
        watched = Watched()
        prepare(watched)
        if node != NODE:
            watched.run(promise(watched, NODE))
        said = watched.run(promise(watched, node, truncated=truncated))
        behind = Send(Address(NODE, Role.LEARNER), Behind(node, truncated))
        if truncated > APPLIED:
            assert said == [*announced("follower"), behind]
            assert watched.core.stage is Stage.FOLLOWER
        else:
            assert behind not in said
            assert watched.core.stage is (Stage.PREPARING if node == NODE else Stage.LEADER)


def test_p1_a_candidate_gives_up_in_time_and_tries_again_under_another_ballot() -> None:
    watched = Watched()
    prepare(watched)
    ballot, since_ms = watched.core.ballot, watched.now_ms
    watched.run(promise(watched, NODE))
    said: list[Send] = []
    while watched.core.stage is Stage.PREPARING:
        said = watched.tick(watched.core.wake_at_ms - watched.now_ms)
    assert watched.now_ms == since_ms + 600
    assert said == announced("follower")
    assert watched.run(Promise(ballot, 1, APPLIED + 1, (), 0, 0)) == [], "too late"
    prepare(watched)
    assert watched.core.ballot > ballot


def test_a_lone_node_leads_at_its_first_tick() -> None:
    for now_ms, luck in product((0, 1, 10**9), LUCKS):
        watched = Watched((NODE,))
        said = watched.step(Tick(now_ms, luck))
        own = Ballot(PROMISED.counter + 1, NODE)
        asked = to_acceptor(NODE, Prepare(own, APPLIED + 1))
        assert said == Effects([], [*announced("candidate"), asked]), "no wait and no pre-vote"
        assert watched.run(promise(watched, NODE)) == announced("leader", own)
        assert list(entries(watched.tick(3))) == [APPLIED + 1]


@pytest.mark.parametrize("size", [1, *SIZES])
def test_each_change_of_place_is_announced_to_gateway_learner_and_timer(size: int) -> None:
    members = tuple(range(1, size + 1))
    watched = Watched(members, node=1)
    watched.tick(START_MS)
    said = watched.tick(0 if size == 1 else 350)
    own = watched.core.ballot
    if size > 1:
        assert said[:3] == announced("candidate", node=1)
        watched.run(*[PreVoteAnswer(own, peer, True, NO_BALLOT) for peer in members[1:]])
    for node in members[: quorum(size)]:
        said = watched.run(promise(watched, node))
    assert said == announced("leader", watched.core.ballot, node=1)
    said = watched.run(Refuse(watched.core.ballot, 1, Ballot(9, 9)))
    assert said == announced("follower", node=1)
    if size > 1:
        above = Ballot(10, 2)
        assert watched.run(Heartbeat(above, 0))[:3] == announced("follower", above, node=1)
        assert not [send for send in watched.run(Heartbeat(above, 0)) if send in announced("follower", above, node=1)]
