"""The learner that lacks something: when it fetches, from whom, and how a snapshot comes over (P1, P2, P10, P11)."""

from itertools import product

import pytest

from lessor.core import limits
from lessor.core.ballot import NO_BALLOT, Ballot
from lessor.core.effects import Address, Effects, Role, Send
from lessor.core.learner import Learner
from lessor.core.messages import (
    Behind,
    Chosen,
    Fetch,
    FetchSnapshot,
    Installed,
    Leadership,
    Learn,
    ReplaceState,
    SnapshotChunk,
    SnapshotNeeded,
    Tick,
    Watermark,
)

from ..support.learners import ME, MEMBERS, TERM, CheckedLearner, run_until_quiet, snapshot_after, state_after, vote

RETRY = limits.FETCH_RETRY_MS
OF_ME = Ballot(5, ME)
OF_THREE = Ballot(5, 3)
PEER = 1
"""Who serves the snapshots of these tests."""


def chunk_of(slot: int, offset: int, size: int, sender: int = PEER) -> SnapshotChunk:
    """A piece of the snapshot at a slot."""
    data = snapshot_after(slot)
    return SnapshotChunk(sender, slot, offset, len(data), data[offset : offset + size])


def ask(slot: int, offset: int, sender: int = PEER) -> list[Send]:
    return [Send(Address(sender, Role.LEARNER), FetchSnapshot(ME, slot, offset))]


def needing(upto: int = 9, now_ms: int = 1000) -> CheckedLearner:
    """A learner that has just been told that only a snapshot of `PEER` can help."""
    learner = CheckedLearner.at()
    learner.step(Watermark(TERM, upto))
    learner.step(Tick(now_ms))
    assert learner.step(SnapshotNeeded(PEER)) == ask(0, 0)
    return learner


def installed(slot: int) -> Effects:
    """What installing a snapshot asks for, when nothing follows that is known already."""
    told = [Send(Address(ME, role), Installed(slot)) for role in (Role.ACCEPTOR, Role.PROPOSER)]
    return Effects([ReplaceState()], told)


# --- gaps ------------------------------------------------------------------------------------------------------------


def test_a_gap_is_fetched_after_a_while_and_again_until_it_is_closed() -> None:
    """The vote may be on its way through this node's own journal; a request may be lost."""
    for applied, upto, ballot in product(range(3), range(6), (TERM, OF_THREE, OF_ME)):
        learner, since = CheckedLearner.at(applied), 1000
        learner.step(Watermark(ballot, upto))
        gap = upto > applied and ballot != OF_ME  # what this node itself proposed it knows without asking
        fetch = [Send(Address(ballot.node, Role.ACCEPTOR), Fetch(ME, applied + 1))]
        for after in (0, 1, RETRY - 1, RETRY, RETRY + 1, 2 * RETRY - 1, 2 * RETRY, 5 * RETRY, 5 * RETRY + 1):
            sends = learner.without_summary(Tick(since + after)).sends
            due = gap and after in {RETRY, 2 * RETRY, 5 * RETRY}
            assert sends == (fetch if due else []), (applied, upto, ballot, after)


def test_what_comes_of_a_fetch_brings_the_next_one_at_once() -> None:
    """Catch-up goes page by page, as fast as they come; when nothing is lacking it ends."""
    for upto, page in product(range(1, 9), range(1, 4)):
        learner = CheckedLearner.at()
        learner.step(Watermark(TERM, upto))
        learner.step(Tick(0))
        fetched = learner.told(Tick(RETRY), Fetch)
        while learner.applied_upto < upto:
            assert fetched == [Fetch(ME, learner.applied_upto + 1)]
            for slot in range(learner.applied_upto + 1, min(learner.applied_upto + page, upto) + 1):
                learner.step(Chosen(vote(slot)))
            fetched = learner.told(Tick(RETRY + 1), Fetch)
        assert fetched == []


def test_a_gap_that_comes_long_after_a_catch_up_is_given_its_time_like_any_other() -> None:
    """What was fetched once is no reason to fetch at once for ever: the vote may be on its way."""
    for pages in (1, 2):
        learner = CheckedLearner.at()
        learner.step(Watermark(TERM, pages))
        learner.step(Tick(0))
        for slot in range(1, pages + 1):
            learner.step(Chosen(vote(slot)))
        assert learner.told(Tick(RETRY), Fetch) == []
        learner.step(Tick(20 * RETRY))
        learner.step(Watermark(TERM, pages + 1))
        assert learner.told(Tick(30 * RETRY), Fetch) == [], "fetched at once"
        assert learner.told(Tick(31 * RETRY), Fetch) == [Fetch(ME, pages + 1)]


def test_a_gap_that_closes_by_itself_is_never_fetched() -> None:
    for upto in range(1, 5):
        learner = CheckedLearner.at()
        learner.step(Watermark(TERM, upto))
        learner.step(Tick(0))
        for slot in range(1, upto + 1):
            learner.step(Learn(vote(slot)))
        assert learner.told(Tick(RETRY), Fetch) == []
        learner.step(Watermark(TERM, upto + 1))
        assert learner.told(Tick(5 * RETRY), Fetch) == [], "a new gap begins when it is noticed"


@pytest.mark.parametrize("mark", [NO_BALLOT, TERM, OF_ME], ids=["no mark", "the mark of a peer", "its own mark"])
def test_a_candidate_that_was_shown_to_be_behind_catches_up_there(mark: Ballot) -> None:
    """It may not lead before (DESIGN §4). Whoever led when the last mark was heard may be dead, or be this node."""
    for applied, upto, behind in product(range(3), range(6), range(7)):
        learner, asked = CheckedLearner.at(applied), []
        if mark != NO_BALLOT:
            learner.step(Watermark(mark, upto))
        learner.step(Behind(3, behind))
        for retry in range(5):
            learner.step(Tick(1000 + retry * RETRY))
            asked += [send.to for send in learner.effects.sends if isinstance(send.message, Fetch)]
        assert (Address(3, Role.ACCEPTOR) in asked) == (behind > applied), (upto, applied, behind, asked)


def test_a_new_leader_is_asked_rather_than_who_was_ahead_before() -> None:
    """It has, or will have, every chosen slot; and it lives."""
    for upto, behind in product(range(1, 6), range(7)):
        learner = CheckedLearner.at()
        learner.step(Behind(3, behind))
        learner.step(Watermark(TERM, upto))
        learner.step(Tick(1000))
        sends = learner.without_summary(Tick(1000 + RETRY)).sends
        assert sends == [Send(Address(1, Role.ACCEPTOR), Fetch(ME, 1))], (upto, behind)


# --- serving a snapshot ----------------------------------------------------------------------------------------------


def test_a_snapshot_is_served_to_peers_in_pieces_that_make_up_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """P11: an offset beyond its end starts again, and who is no peer is not answered."""
    for size in (1, 7, 100, len(snapshot_after(2)) - 1, len(snapshot_after(2)), 10_000):
        monkeypatch.setattr(limits, "SNAPSHOT_CHUNK_BYTES", size)
        learner, total = CheckedLearner.at(2), len(snapshot_after(2))
        for asking in (0, ME, 4, 99):
            assert learner.step(FetchSnapshot(asking, 0, 0)) == []
        for slot, offset in product((0, 1, 2, 3, 10**9), (0, 1, size, total - 1, total, total + 1, 10**9)):
            learner.step(FetchSnapshot(PEER, 0, 0))
            start = offset if slot == 2 and offset < total else 0
            expected = Send(Address(PEER, Role.LEARNER), chunk_of(2, start, size, ME))
            assert learner.step(FetchSnapshot(PEER, slot, offset)) == [expected], (size, slot, offset)


def test_a_snapshot_that_is_being_fetched_stays_the_same_while_the_state_moves_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "SNAPSHOT_CHUNK_BYTES", 50)
    learner, offset = CheckedLearner.at(2), 0
    learner.step(FetchSnapshot(PEER, 0, 0))
    while offset < len(snapshot_after(2)):
        learner.step(Chosen(vote(learner.applied_upto + 1)))
        learner.step(Tick(offset))
        expected = Send(Address(PEER, Role.LEARNER), chunk_of(2, offset, 50, ME))
        assert learner.step(FetchSnapshot(PEER, 2, offset)) == [expected]
        offset += 50


def test_a_snapshot_that_nobody_asks_for_is_forgotten() -> None:
    """P10: it may be large."""
    learner = CheckedLearner.at(2)
    learner.step(Tick(1000))
    learner.step(FetchSnapshot(PEER, 0, 0))
    learner.step(Tick(1000 + 10 * RETRY))
    assert learner.live._serving
    learner.step(Tick(1001 + 10 * RETRY))
    assert not learner.live._serving


def test_who_asks_from_the_start_again_and_again_is_served_a_newer_state_in_the_end() -> None:
    """A snapshot that is no help must not be served for ever to who needs a newer one."""
    for began in range(3):
        learner = CheckedLearner.at(began)
        learner.step(FetchSnapshot(PEER, 0, 0))
        for slot in range(began + 1, began + 4):
            learner.step(Chosen(vote(slot)))
        served = []
        for retry in range(1, 30):
            learner.step(Tick(retry * RETRY))
            served += learner.told(FetchSnapshot(PEER, 0, 0), SnapshotChunk)
        assert served[-1].slot == began + 3, f"still the one of slot {served[-1].slot}"


def test_two_followers_that_fetch_snapshots_at_once_both_get_them_while_the_state_moves_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each asks for pieces of its own; one must not take the other's away, or neither would ever end."""
    monkeypatch.setattr(limits, "SNAPSHOT_CHUNK_BYTES", 100)
    sender = CheckedLearner.at(5, node=PEER)
    followers = {node: CheckedLearner.at(0, node=node) for node in (2, 3)}
    asks: list[Send] = []
    for follower in followers.values():
        follower.step(Watermark(TERM, 9))
        asks += follower.step(SnapshotNeeded(PEER))
        sender.step(Chosen(vote(sender.applied_upto + 1)))
    for _ in range(100):
        answers = []
        for send in asks:
            answers += sender.step(send.message)
            sender.step(Chosen(vote(sender.applied_upto + 1)))
        asks = []
        for send in answers:
            assert isinstance(send.to, Address)
            asks += followers[send.to.node].step(send.message)
        asks = [send for send in asks if isinstance(send.message, FetchSnapshot)]
    for node, follower in followers.items():
        assert follower.applied_upto >= 5, f"node {node} is still at {follower.applied_upto} after a hundred rounds"
        assert follower.live.state.snapshot() == snapshot_after(follower.applied_upto)


# --- taking a snapshot -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 40, 100, 10_000])
def test_a_snapshot_is_installed_when_its_last_piece_came_and_all_who_must_know_are_told(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1: the same state byte for byte; then acceptor and proposer learn of it, after it was written (P2)."""
    monkeypatch.setattr(limits, "SNAPSHOT_CHUNK_BYTES", size)
    learner, total = needing(), len(snapshot_after(4))
    for offset in range(0, total, size):
        learner.step(chunk_of(4, offset, size))
        if offset + size < total:
            assert learner.effects == Effects([], ask(4, offset + size))
            assert learner.applied_upto == 0
    assert learner.effects == installed(4)
    assert learner.live.state.snapshot() == snapshot_after(4) == learner.tables
    assert learner.live.saved_upto == 4
    assert learner.told(Tick(1001), Fetch) == [Fetch(ME, 5)], "what follows is fetched at once"


def test_what_was_known_beyond_a_snapshot_is_applied_with_it_and_what_was_below_is_forgotten() -> None:
    """P1, for every set of slots known as chosen before it comes."""
    for known in product((False, True), repeat=5):
        learner = needing()
        slots = [slot for slot, is_known in enumerate(known, 2) if is_known]
        for slot in slots:
            learner.step(Chosen(vote(slot)))
        learner.step(chunk_of(3, 0, 10_000))
        upto = 3
        while upto + 1 in slots:
            upto += 1
        assert learner.applied_upto == upto, slots
        assert learner.live.state.snapshot() == snapshot_after(upto)
        assert sorted(learner.live._chosen) == [slot for slot in slots if slot > upto]
        assert learner.effects.writes == [ReplaceState()]
        assert learner.effects.sends[:2] == installed(3).sends


@pytest.mark.parametrize("fault", ["none", "lost ask", "lost piece", "repeated ask", "repeated piece", "moved on"])
@pytest.mark.parametrize("size", [60, 150])
def test_a_snapshot_comes_over_whatever_happens_to_one_of_its_messages(
    fault: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1, for each message of the transfer in turn; at worst it starts again after a while."""
    monkeypatch.setattr(limits, "SNAPSHOT_CHUNK_BYTES", size)
    for place in range(2 * len(snapshot_after(3)) // size + 2):
        learners = {PEER: CheckedLearner.at(3, node=PEER), ME: needing()}
        count = 0

        def on_way(send: Send, place: int = place, learners: dict[int, CheckedLearner] = learners) -> list[Send]:
            nonlocal count
            count += 1
            struck = count == place + 1
            is_ask = isinstance(send.message, FetchSnapshot)
            if struck and fault == "moved on":  # another life, with a newer state and no snapshot at hand
                learners[PEER] = CheckedLearner.at(6, node=PEER)
            if struck and fault == ("lost ask" if is_ask else "lost piece"):
                return []
            return [send, send] if struck and fault == ("repeated ask" if is_ask else "repeated piece") else [send]

        sends = ask(0, 0)
        for retry in range(1, 6):
            run_until_quiet(learners, sends, on_way)
            if learners[ME].applied_upto:
                break
            sends = learners[ME].step(Tick(1000 + retry * RETRY))
        learner = learners[ME]
        assert learner.applied_upto in ((3, 6) if fault == "moved on" else (3,)), (place, learner.applied_upto)
        assert learner.live.state.snapshot() == snapshot_after(learner.applied_upto)


def test_a_piece_that_does_not_fit_is_ignored_or_ends_the_transfer_and_the_next_one_succeeds() -> None:
    """P11: from another node, of an old slot, out of place, empty, or of an absurd size; nothing is installed by it."""
    good, total, most = snapshot_after(4), len(snapshot_after(4)), limits.SNAPSHOT_BYTES_MAX
    offsets = (0, 1, 99, 100, 101, total, 10**12)
    for sender, slot, offset, whole in product((0, ME, 3, 99, PEER), (0, 4, 5), offsets, (1, total, most, most + 1)):
        for data in (b"", b"\xff", good[offset : offset + 9]):
            learner, piece = needing(), SnapshotChunk(sender, slot, offset, whole, data)
            learner.step(chunk_of(4, 0, 100))
            learner.step(piece)
            assert learner.applied_upto == 0, piece
            assert learner.effects.writes == [], piece
            fits = (slot, offset) in {(4, 100), (5, 0)}  # the next of this snapshot, or the first of another
            absurd = slot == 0 or not data or whole > most
            if sender != PEER or absurd or not fits:
                assert learner.effects == Effects(), piece
            if sender != PEER or not (fits or absurd):
                assert learner.step(chunk_of(4, 100, 1)) == ask(4, 101), piece
            for retry in range(1, 6):  # the transfer still ends well, if need be from the start
                sends = learner.step(Tick(1000 + retry * RETRY))
                if any(isinstance(send.message, Fetch) for send in sends):
                    sends = learner.step(SnapshotNeeded(PEER))
                for asked in [send.message for send in sends if isinstance(send.message, FetchSnapshot)]:
                    learner.step(chunk_of(4, asked.offset if asked.slot == 4 else 0, 10_000))
            assert learner.applied_upto == 4, piece


def test_an_operator_is_told_why_a_node_cannot_catch_up() -> None:
    """P10: a snapshot that is too large, or that cannot be read, is asked for again for ever."""
    learner = needing()
    learner.step(SnapshotChunk(PEER, 4, 0, limits.SNAPSHOT_BYTES_MAX + 1, b"\xff"))
    assert str(limits.SNAPSHOT_BYTES_MAX + 1) in learner.live.complaint
    learner = needing()
    learner.step(SnapshotChunk(PEER, 4, 0, 1, b"\xff"))
    assert "cannot be read" in learner.live.complaint
    learner = needing()
    learner.step(chunk_of(4, 0, 10_000))
    assert (learner.applied_upto, learner.live.complaint) == (4, "")


def test_a_piece_that_was_not_asked_for_is_ignored() -> None:
    """P11: nothing unasked replaces the state."""
    for applied, slot, sender in product(range(4), range(6), MEMBERS):
        learner = CheckedLearner.at(applied)
        assert learner.step(chunk_of(slot, 0, 10_000, sender)) == []
        assert learner.live.state.snapshot() == snapshot_after(applied)


def test_a_snapshot_that_is_not_newer_or_not_of_its_slot_is_not_installed() -> None:
    """P1: the state never goes back, and never stands at another slot than it says."""
    for applied, slot, says in product(range(4), range(6), range(6)):
        learner = CheckedLearner.at(applied)
        learner.step(Watermark(TERM, 9))
        learner.step(SnapshotNeeded(PEER))
        data = snapshot_after(slot)
        learner.step(SnapshotChunk(PEER, says, 0, len(data), data))
        if says == slot > applied:
            assert learner.effects == installed(slot)
        else:
            assert learner.effects == Effects(), (applied, slot, says)
        assert learner.live.state.snapshot() == snapshot_after(slot if says == slot > applied else applied)


def test_no_damaged_snapshot_stops_the_node() -> None:
    """P11: every byte of one changed, and every shorter one; what is installed nevertheless is of the slot it says."""
    good = snapshot_after(3)
    damaged = [good[:place] for place in range(1, len(good))]
    for place, byte in enumerate(good):
        damaged += [good[:place] + bytes([byte ^ mask]) + good[place + 1 :] for mask in (1, 0x20, 0x80, 0xFF)]
    refused = 0
    for data in damaged:
        learner = CheckedLearner.at()
        learner.step(Watermark(TERM, 9))
        learner.step(SnapshotNeeded(PEER))
        learner.step(SnapshotChunk(PEER, 3, 0, len(data), data))
        assert learner.applied_upto in {0, 3}
        refused += learner.applied_upto == 0
    assert refused > len(damaged) // 2


def test_a_leader_or_who_lacks_nothing_ends_a_transfer_that_it_began() -> None:
    """A late word that a snapshot is needed costs one request at most."""
    for mark, applied in product(((NO_BALLOT, 0), (TERM, 2), (OF_ME, 9)), (2, 3)):
        learner = CheckedLearner.at(applied)
        learner.step(Leadership("follower", TERM, PEER))
        learner.step(Watermark(*mark))
        learner.step(SnapshotNeeded(PEER))
        assert learner.told(Tick(1000), FetchSnapshot) == []
        assert learner.told(Tick(1000 + 5 * RETRY), FetchSnapshot) == []
        assert learner.step(chunk_of(5, 0, 10_000)) == []


def test_an_unanswered_request_is_repeated_where_it_stood_or_from_the_start_to_a_new_leader() -> None:
    for leader in (PEER, 3):
        learner = needing()
        learner.step(chunk_of(4, 0, 100))
        learner.step(Watermark(Ballot(6, leader), 12))
        assert learner.told(Tick(999 + RETRY), FetchSnapshot) == []
        repeated = ask(4, 100, PEER) if leader == PEER else ask(0, 0, leader)
        assert learner.without_summary(Tick(1000 + RETRY)) == Effects([], repeated)
        if leader != PEER:
            late = learner.step(chunk_of(4, 100, 100))
            assert late == [], "a piece of the transfer that was given up"
        learner.step(chunk_of(4, 100 if leader == PEER else 0, 10_000, leader))
        assert learner.applied_upto == 4


def test_a_learner_belongs_to_its_members() -> None:
    with pytest.raises(AssertionError):
        Learner(9, MEMBERS, state_after(0))
