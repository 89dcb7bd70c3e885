"""The leader: what it adopts, when it says `Lead`, how it packs, repeats, stamps and steps down (P1, P4)."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from lessor.core import limits
from lessor.core.ballot import NO_BALLOT, Ballot, quorum
from lessor.core.effects import Address, Role
from lessor.core.encoding import encode
from lessor.core.entries import Batch, Entry, Lead, NoOp
from lessor.core.messages import (
    Accept,
    Heartbeat,
    HeartbeatAnswer,
    Installed,
    Nudge,
    Prepare,
    PreVote,
    PreVoteAnswer,
    Progress,
    Refuse,
    Submit,
    Tick,
    Vote,
)
from lessor.core.proposer import Stage

from ..support.proposers import (
    APPLIED,
    NODE,
    START_MS,
    Watched,
    accepts,
    announced,
    apply,
    entries,
    lead,
    leader,
    prepare,
    promise,
    reign,
    to_acceptor,
    to_proposer,
)

LOW, HIGH = Ballot(1, 1), Ballot(2, 3)
FIRST = APPLIED + 1
SIZES = (1, 2, 3, 4, 5)
STALL = limits.LEADER_STALL_MS


def value(name: str) -> Batch:
    return Batch(LOW, 5, (name.encode(),))


def vote(slot: int, ballot: Ballot, name: str) -> Vote:
    return Vote(slot, ballot, encode(value(name)))


def drain(watched: Watched) -> list[tuple[int, Entry]]:
    """Let each slot be chosen as soon as it is proposed, until nothing more comes; return what was, in order."""
    said: list[tuple[int, Entry]] = []
    while found := entries(watched.tick()):
        said += found.items()
        apply(watched, max(found))
    return said


# --- what phase 1 found ----------------------------------------------------------------------------------------------


def adopted(ballot: Ballot, votes: list[Vote]) -> list[tuple[int, Entry]]:
    """The rule: in each slot the value of the highest ballot, a no-op in the gaps, and then `Lead`."""
    last = max((each.slot for each in votes), default=APPLIED)
    log: list[tuple[int, Entry]] = []
    for slot in range(FIRST, last + 1):
        there = [each for each in votes if each.slot == slot]
        best = max(there, key=lambda each: each.ballot, default=None)
        log.append((slot, value("low" if best.ballot == LOW else "high") if best else NoOp()))
    return [*log, (last + 1, Lead(ballot))]


def test_p1_a_new_leader_adopts_the_value_of_the_highest_ballot_in_each_slot() -> None:
    kinds = (None, (LOW, "low"), (HIGH, "high"))
    for journals in product(product(kinds, repeat=3), repeat=2):  # of two acceptors
        given = [
            [vote(FIRST + at, *kind) for at, kind in enumerate(journal) if kind is not None] for journal in journals
        ]
        for order in ((NODE, 3), (NODE, 1)):
            watched = Watched()
            prepare(watched)
            for node, votes in zip(order, given, strict=True):
                watched.run(promise(watched, node, votes))
            assert drain(watched) == adopted(watched.core.ballot, given[0] + given[1]), f"{journals}"


def pages(votes: list[Vote]) -> Iterator[list[list[Vote]]]:
    """Every way of cutting a promise into pages."""
    for cuts in product((False, True), repeat=len(votes) - 1):
        cut: list[list[Vote]] = [[votes[0]]]
        for each, begins in zip(votes[1:], cuts, strict=True):
            if begins:
                cut.append([])
            cut[-1].append(each)
        yield cut


def test_p1_a_promise_in_pages_is_the_same_promise_and_counts_at_its_last_page() -> None:
    own = [vote(FIRST + at, LOW, "low") for at in (0, 1, 3, 4)]
    peer = [vote(FIRST + at, HIGH, "high") for at in (1, 2, 4)]
    for mine, theirs, repeated in product(pages(own), pages(peer), (1, 2)):
        watched = Watched()
        prepare(watched)
        ballot = watched.core.ballot
        for node, cut in ((NODE, mine), (3, theirs)):
            for at, page in enumerate(cut):
                more = cut[at + 1][0].slot if at + 1 < len(cut) else 0
                for _ in range(repeated):
                    assert watched.core.stage is Stage.PREPARING
                    said = watched.run(promise(watched, node, page, more))
                    if more:
                        assert said[-1] == to_acceptor(node, Prepare(ballot, more)), "asks for the next page"
                    elif node == 3:
                        break
        assert watched.core.stage is Stage.LEADER
        assert drain(watched) == adopted(ballot, own + peer), f"{mine} {theirs}"


def test_p1_pages_that_are_asked_for_again_while_they_come_change_nothing() -> None:
    own = [vote(FIRST + at, LOW, "low") for at in range(4)]
    watched = Watched()
    prepare(watched)
    watched.run(promise(watched, NODE, own))
    watched.run(promise(watched, 1, [vote(FIRST, HIGH, "high")], FIRST + 1))
    again = Prepare(watched.core.ballot, FIRST)
    assert watched.tick(30) == [to_acceptor(1, again), to_acceptor(3, again)], "a page may have been lost"
    watched.run(promise(watched, 1, [vote(FIRST, HIGH, "high")], FIRST + 1))
    watched.run(promise(watched, 1, [vote(FIRST + 3, HIGH, "high")]))
    expected = ["high", "low", "low", "high"]
    assert [entry for _, entry in drain(watched)][:4] == [value(name) for name in expected]


def test_p4_lead_is_proposed_only_when_every_slot_before_it_is_applied_and_batches_follow() -> None:
    for window, found, steps in product((1, 2, 3), (0, 1, 3), product((0, 1, 2), repeat=4)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(limits, "WINDOW_SLOTS", window)
            watched = Watched()
            lead(watched, [vote(FIRST + at, LOW, "low") for at in range(found)])
            ballot = watched.core.ballot
            watched.run(Submit(ballot, (b"x",)))
            said = entries(watched.tick())
            for step in steps:
                apply(watched, min(watched.applied + step, max(said)))
                new = entries(watched.tick())
                for slot, entry in new.items():
                    if entry == Lead(ballot):
                        assert watched.applied == slot - 1, f"window {window}, {found} found, {steps}"
                said |= new
            log: list[Entry] = [*[value("low")] * found, Lead(ballot), Batch(ballot, 0, (b"x",))]
            assert list(said.values()) == log[: len(said)]
            assert list(said) == list(range(FIRST, FIRST + len(said)))


def test_p1_slots_that_are_applied_before_their_turn_are_not_proposed_again() -> None:
    for found, applied in ((count, upto) for count in range(1, 6) for upto in range(count + 1)):
        watched = Watched()
        lead(watched, [vote(FIRST + at, LOW, "low") for at in range(found)])
        watched.run(Progress(APPLIED + applied, 0, LOW))
        slots = [slot for slot, _ in drain(watched)]
        assert slots == list(range(FIRST + applied, FIRST + found + 1)), f"{found} found, {applied} of them applied"


# --- window and batches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 3])
def test_p10_no_more_slots_are_in_flight_than_the_window_allows(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    monkeypatch.setattr(limits, "WINDOW_SLOTS", window)
    monkeypatch.setattr(limits, "BATCH_COMMANDS_MAX", 1)
    for steps in product((0, 1, 3), repeat=4):
        watched = leader()
        ballot, said = watched.core.ballot, 0
        watched.run(Submit(ballot, tuple(bytes([at]) for at in range(20))))
        for step in (0, *steps):
            apply(watched, min(watched.applied + step, FIRST + said))
            said += len(entries(watched.tick()))
            assert FIRST + said - watched.applied == window, f"{steps}: the window is full, and not fuller"
        assert said == len(watched.values) - 1


def test_news_of_progress_can_wait_unless_something_waits_for_room_in_the_window() -> None:
    watched = leader()
    patient = [watched.core.patient]
    for _ in range(limits.WINDOW_SLOTS + 1):
        watched.run(Submit(watched.core.ballot, (b"x",)))
        watched.tick()
        patient.append(watched.core.patient)
    apply(watched, FIRST + 1)
    watched.tick()
    patient.append(watched.core.patient)
    can_wait = (Progress,)
    assert patient == [can_wait, *[can_wait] * limits.WINDOW_SLOTS, (), can_wait], (
        "something waited only before the end"
    )


@pytest.mark.parametrize("commands_max", [1, 2, 5])
def test_p10_pending_commands_are_packed_in_order_by_count_and_bytes(
    monkeypatch: pytest.MonkeyPatch, commands_max: int
) -> None:
    monkeypatch.setattr(limits, "BATCH_COMMANDS_MAX", commands_max)
    monkeypatch.setattr(limits, "BATCH_BYTES_MAX", 10)
    monkeypatch.setattr(limits, "RETRANSMIT_MS", 10**9)
    for sizes in product((1, 4, 9, 10), repeat=4):
        commands = [bytes([at]) * size for at, size in enumerate(sizes)]
        packed: list[list[bytes]] = []
        for command in commands:
            full = not packed or len(packed[-1]) == commands_max
            if full or sum(map(len, packed[-1])) + len(command) > 10:
                packed.append([])
            packed[-1].append(command)
        watched = leader()
        for command in commands:
            watched.run(Submit(watched.core.ballot, (command,)))
        found = [entry.commands for _, entry in drain(watched) if isinstance(entry, Batch)]
        assert found == [tuple(batch) for batch in packed], f"{sizes}"
        assert watched.core.batched_commands == len(commands)
        assert watched.core.batches == len(packed)


def test_a_lone_command_waits_for_no_timer_and_goes_to_everyone() -> None:
    for size in SIZES:
        members = tuple(range(1, size + 1))
        watched = leader(members, node=1)
        ballot = watched.core.ballot
        assert watched.run(Submit(ballot, (b"x",))) == [], "at the end of what has arrived"
        entry = encode(Batch(ballot, 0, (b"x",)))
        assert watched.tick(1) == accepts(Accept(ballot, FIRST + 1, entry, FIRST), members, node=1)
        assert watched.tick(1) == []


def test_a_nudge_brings_one_stamped_batch_and_shares_it_with_commands() -> None:
    for before, after, window_full in product((True, False), repeat=3):
        watched = leader()
        ballot = watched.core.ballot
        if window_full:
            for _ in range(limits.WINDOW_SLOTS):
                watched.run(Nudge())
                watched.tick()
        watched.run(*[Submit(ballot, (b"x",))] * before, Nudge(), Nudge(), *[Submit(ballot, (b"y",))] * after)
        expected = Batch(ballot, 6, (b"x",) * before + (b"y",) * after)
        said = list(entries(watched.tick(7)).values())
        if window_full:
            assert said == []
            apply(watched, watched.applied + 1)
            said = list(entries(watched.tick()).values())
        assert said == [expected]
        apply(watched, watched.applied + limits.WINDOW_SLOTS)
        assert entries(watched.tick()) == {}


def test_p10_more_commands_than_the_gateway_may_submit_are_a_broken_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROPOSER_QUEUE_MAX", 3)
    watched = leader()
    watched.run(Submit(watched.core.ballot, (b"x",) * 3))
    with pytest.raises(AssertionError, match="the gateway bounds"):
        watched.run(Submit(watched.core.ballot, (b"x",)))


def test_p9_commands_for_another_ballot_are_dropped() -> None:
    own = leader().core.ballot
    for counter, node in product(range(own.counter + 2), (1, 2, 3)):
        watched = leader()
        watched.run(Submit(Ballot(counter, node), (b"x",)))
        assert bool(entries(watched.tick())) == (Ballot(counter, node) == own)


# --- what is repeated ------------------------------------------------------------------------------------------------


def test_p1_an_accept_that_is_not_chosen_is_said_again_as_it_was() -> None:
    for gaps in product((1, 100, 149, 250, 399), repeat=3):
        watched = leader()
        ballot = watched.core.ballot
        watched.run(Submit(ballot, (b"x",)))
        first = watched.tick()
        sent_at_ms = watched.now_ms
        for gap in gaps:
            said = [send for send in watched.tick(gap) if isinstance(send.message, Accept)]
            due = watched.now_ms - sent_at_ms >= limits.RETRANSMIT_MS
            assert said == (first if due else []), f"{gaps}"
            sent_at_ms = watched.now_ms if due else sent_at_ms
        apply(watched, FIRST + 1)
        assert entries(watched.tick(399)) == {}, "what is chosen is not said again"


def test_p1_each_slot_in_flight_is_repeated_for_itself_with_the_newest_watermark() -> None:
    watched = leader()
    ballot = watched.core.ballot
    for name in (b"x", b"y"):
        watched.run(Submit(ballot, (name,)))
        watched.tick(100)
    first, second = encode(Batch(ballot, 99, (b"x",))), encode(Batch(ballot, 199, (b"y",)))
    for after_ms, repeated in (
        (149, []),
        (1, accepts(Accept(ballot, FIRST + 1, first, FIRST))),
        (99, []),
        (1, accepts(Accept(ballot, FIRST + 2, second, FIRST))),
    ):
        assert [send for send in watched.tick(after_ms) if isinstance(send.message, Accept)] == repeated
    apply(watched, FIRST + 1)
    said = [send for send in watched.tick(250) if isinstance(send.message, Accept)]
    assert said == accepts(Accept(ballot, FIRST + 2, second, FIRST + 1))


@pytest.mark.parametrize("size", SIZES)
def test_a_leader_speaks_at_once_and_then_every_hundred_milliseconds(size: int) -> None:
    members = tuple(range(1, size + 1))
    watched = Watched(members, node=1)
    lead(watched)
    ballot = watched.core.ballot
    since_ms = watched.now_ms
    for _ in range(301):
        beats = [send for send in watched.tick() if isinstance(send.message, Heartbeat)]
        due = (watched.now_ms - since_ms) % 100 == 0
        told = Heartbeat(ballot, watched.applied)
        assert beats == [to_proposer(peer, told) for peer in members[1:] if due], (
            f"after {watched.now_ms - since_ms} ms"
        )
        apply(watched, FIRST)
        watched.run(*[HeartbeatAnswer(ballot, peer, APPLIED) for peer in members[1:]])
        watched.now_ms += 1


# --- stepping down ---------------------------------------------------------------------------------------------------


def endings(ballot: Ballot) -> list[Any]:
    above = Ballot(ballot.counter, 3)
    return [
        Refuse(ballot, 1, above),
        Progress(FIRST, 0, above),
        Progress(FIRST, 0, Ballot(ballot.counter + 9, 1)),
        Installed(FIRST),
        Installed(0),
        Heartbeat(above, 0),
    ]


@pytest.mark.parametrize("which", range(6))
def test_p1_who_steps_down_says_nothing_more_under_its_ballot_and_forgets_what_was_pending(which: int) -> None:
    watched = leader()
    ballot = watched.core.ballot
    ending = endings(ballot)[which]
    watched.run(Submit(ballot, (b"x",)))
    watched.tick()
    watched.run(Submit(ballot, (b"y",)), Nudge())
    heir = ending.ballot if isinstance(ending, Heartbeat) else NO_BALLOT
    assert watched.run(ending)[:3] == announced("follower", heir)
    for _ in range(12):
        watched.run(Submit(ballot, (b"z",)), Progress(FIRST, 0, ballot), HeartbeatAnswer(ballot, 1, 0))
        for send in watched.tick(100):
            assert not isinstance(send.message, Accept | Heartbeat), f"{ending}: {send}"
    reign(watched)
    assert watched.core.ballot > ballot
    watched.tick(limits.RETRANSMIT_MS)
    said = [entry for (under, _), entry in watched.values.items() if under == watched.core.ballot]
    assert said == [encode(Lead(watched.core.ballot))], "nothing of the earlier leadership comes back"


@pytest.mark.parametrize("which", range(6))
def test_p1_who_stops_standing_leads_with_no_promise_that_comes_later(which: int) -> None:
    watched = Watched()
    prepare(watched)
    ballot = watched.core.ballot
    late = [promise(watched, node) for node in (1, NODE, 3)]
    assert watched.run(endings(ballot)[which])[:1] != []
    assert watched.run(*late) == []
    assert watched.core.stage is Stage.FOLLOWER


@pytest.mark.parametrize("size", SIZES)
def test_p1_a_leader_that_no_longer_hears_a_majority_steps_down(size: int) -> None:
    members = tuple(range(1, size + 1))
    for answering in product((False, True), repeat=size - 1):
        watched = leader(members, node=1)
        ballot = watched.core.ballot
        since_ms = watched.now_ms
        heard = [peer for peer, answers in zip(members[1:], answering, strict=True) if answers]
        while watched.now_ms - since_ms < 1_399:
            watched.tick(min(100, 1_399 - (watched.now_ms - since_ms)))
            # an answer to another ballot, or of a stranger, is no answer
            watched.run(*[HeartbeatAnswer(ballot, peer, 0) for peer in heard], HeartbeatAnswer(ballot, 9, 0))
            watched.run(*[HeartbeatAnswer(Ballot(1, 1), peer, 0) for peer in members])
            assert watched.core.stage is Stage.LEADER, "patience is as long as the longest of a follower"
        said = watched.tick(1, 0.3)
        if 1 + len(heard) >= quorum(size):
            assert watched.core.stage is Stage.LEADER, f"{answering}"
        else:
            assert watched.core.stage is Stage.FOLLOWER, f"{answering}"
            assert said == announced("follower", node=1), "and nothing under the ballot"
            assert watched.core.wake_at_ms == watched.now_ms + 700 + 210


def test_p1_who_steps_down_while_it_re_proposes_adopts_only_what_its_next_phase_1_finds() -> None:
    watched = Watched()
    lead(watched, [vote(FIRST + at, LOW, "low") for at in range(4)])
    watched.tick()
    watched.run(Refuse(watched.core.ballot, 1, NO_BALLOT))
    lead(watched, [vote(FIRST, HIGH, "high")])
    assert drain(watched) == adopted(watched.core.ballot, [vote(FIRST, HIGH, "high")])


def test_p1_an_answer_counts_from_the_tick_after_it_and_only_once() -> None:
    watched = leader()
    watched.tick(300)
    watched.run(HeartbeatAnswer(watched.core.ballot, 3, 0))
    watched.tick(1)
    for left_ms in range(1_400, 0, -100):
        assert watched.core.stage is Stage.LEADER, f"{left_ms} ms before patience ends"
        watched.tick(100)
    assert watched.core.stage is Stage.FOLLOWER


def test_who_does_not_run_does_not_judge_its_peers_by_that_time() -> None:
    for gap_ms in (STALL, STALL + 1, 60_000):
        watched = leader()
        watched.tick(1_399 - STALL)
        watched.tick(STALL + 1) if gap_ms > STALL else None
        watched.tick(gap_ms)
        assert watched.core.stage is Stage.LEADER, f"{gap_ms}"
        for _ in range(13):
            watched.tick(100)
        assert watched.core.stage is (Stage.LEADER if gap_ms > STALL else Stage.FOLLOWER), f"{gap_ms}"


def test_a_leader_grants_no_pre_vote_and_refuses_the_heartbeat_of_who_led_before() -> None:
    watched = leader()
    for node, counter in product((1, 3), (0, 99)):
        asked = Ballot(counter, node)
        answer = PreVoteAnswer(asked, NODE, False, watched.core.highest)
        assert watched.run(PreVote(asked, node)) == [to_proposer(node, answer)]
    old = Ballot(1, 1)
    assert watched.run(Heartbeat(old, 99)) == [to_proposer(1, Refuse(old, NODE, watched.core.highest))]


# --- time ------------------------------------------------------------------------------------------------------------

GAPS = (0, 1, STALL, STALL + 1, 5_000)


def test_p4_stamps_count_no_stall_and_never_run_ahead_of_the_clock_over_any_ticks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "ELECTION_TIMEOUT_MIN_MS", 10**9)  # nobody answers here
    for gaps in product(GAPS, repeat=4):
        watched = Watched()
        lead(watched)
        ballot = watched.core.ballot
        watched.tick(gaps[0])  # reaches back before the end of phase 1: counts for nothing, stall or not
        began_ms = watched.now_ms
        assert watched.core.elapsed_ms == 0, f"{gaps}"
        expected = 0
        for gap in gaps[1:]:
            apply(watched, max(watched.core.next_slot - 1, APPLIED))
            watched.run(Nudge())
            stamped = entries([send for send in watched.tick(gap) if send.to == Address(NODE, Role.ACCEPTOR)])
            expected += gap if gap <= STALL else 0
            stamps = [entry.elapsed_ms for entry in stamped.values() if isinstance(entry, Batch)]
            assert stamps == [max(0, expected - 1)], f"{gaps}: stamped at the tick, not before, less a millisecond"
            assert expected <= watched.now_ms - began_ms
        assert watched.core.ballot == ballot


def test_p4_a_leader_that_comes_again_begins_at_nothing() -> None:
    for between_ms in (0, 1, 300, 5_000):
        watched = leader()
        watched.tick(250)
        assert watched.core.elapsed_ms == 250
        watched.run(Refuse(watched.core.ballot, 1, NO_BALLOT))
        watched.tick(between_ms)
        lead(watched)
        assert watched.core.elapsed_ms == 0
        watched.tick(between_ms)
        assert watched.core.elapsed_ms == 0, "the time before the first tick may lie before the end of phase 1"
        watched.tick(17)
        assert watched.core.elapsed_ms == 17


def test_p4_an_accept_that_is_repeated_keeps_its_old_stamp() -> None:
    watched = leader()
    watched.run(Nudge())
    first = entries(watched.tick(10))
    assert first == {FIRST + 1: Batch(watched.core.ballot, 9, ())}
    assert entries(watched.tick(300)) == first


def test_a_lone_leader_serves_without_anybody_and_never_steps_down() -> None:
    watched = Watched((NODE,))
    watched.run(Tick(START_MS), promise(watched, NODE))
    watched.run(promise(watched, NODE))
    assert watched.core.stage is Stage.LEADER
    for gap_ms in (0, 100, STALL, 5_000, 10**7):
        watched.tick(gap_ms)
        apply(watched, max(watched.core.next_slot - 1, APPLIED))
        watched.run(Submit(watched.core.ballot, (b"x",)))
        said = watched.tick()
        assert [send.to for send in said] == [Address(NODE, Role.ACCEPTOR)]
