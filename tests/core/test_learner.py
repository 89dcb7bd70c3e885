"""The learner: what it may know as chosen, in every order of arrival, and whom it tells (P1, P2, P6, P10)."""

from collections.abc import Iterator
from itertools import permutations, product
from typing import Any

import pytest

from lessor.core import limits
from lessor.core.ballot import NO_BALLOT, Ballot
from lessor.core.effects import Address, Effects, Role, Send
from lessor.core.encoding import encode
from lessor.core.entries import Batch, NoOp
from lessor.core.errors import Corrupt
from lessor.core.learner import Applied, Learner, Summary
from lessor.core.lease_state import LeaseState
from lessor.core.messages import (
    Accepted,
    Chosen,
    Leadership,
    Learn,
    NextDeadline,
    Progress,
    SaveState,
    Tick,
    Vote,
    Watermark,
)

from ..support.learners import (
    ME,
    MEMBERS,
    TERM,
    CheckedLearner,
    entry,
    outcome_sends,
    snapshot_after,
    vote,
)
from ..support.leases import a_story

LOWER, HIGHER = Ballot(4, 3), Ballot(6, 1)
BALLOTS = (LOWER, Ballot(5, 1), Ballot(5, 2), Ballot(5, 3), HIGHER)


def check_after(learner: CheckedLearner, slot: int, why: Any) -> None:
    """The learner has applied just this much of the log."""
    assert learner.applied_upto == slot, why
    assert learner.live.state.snapshot() == snapshot_after(slot), why


# --- the quorum rule -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_a_slot_is_applied_once_a_majority_accepted_one_value_under_one_ballot_and_this_node_has_it(size: int) -> None:
    """P1, for every set of voters under two ballots, whoever this node is; strangers and repetitions do not count."""
    members = tuple(range(1, size + 1))
    for me, voted in product({1, size}, product((None, TERM, HIGHER), repeat=size)):
        messages: list[Any] = []
        for node, ballot in zip(members, voted, strict=True):
            if ballot is not None:
                messages.append(Learn(vote(1, ballot)) if node == me else Accepted(ballot, node, 1))
        strangers = [Accepted(ballot, node, 1) for ballot in (TERM, HIGHER) for node in (0, size + 1, 99)]
        mine = voted[me - 1]
        majority = mine is not None and 2 * voted.count(mine) > size
        for order in (messages, messages[::-1]):
            learner = CheckedLearner.at(node=me, members=members)
            for message in (*strangers, *order, *order):
                learner.step(message)
            check_after(learner, int(majority), (me, voted))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_no_order_in_which_the_votes_arrive_matters(size: int) -> None:
    """P1: applied with the vote that completes the majority, not before, and told once."""
    members = tuple(range(1, size + 1))
    votes: list[Any] = [Learn(vote(1)), *(Accepted(TERM, node, 1) for node in members[1:])]
    for order in permutations(votes):
        learner = CheckedLearner.at(node=1, members=members)
        for count, message in enumerate(order, 1):
            learner.step(message)
            enough = 2 * count > size and votes[0] in order[:count]
            check_after(learner, int(enough), order)


def test_votes_of_a_node_that_voted_again_count_only_for_what_this_node_holds_now() -> None:
    """P1: the value that this node holds is that of its last vote, so only that ballot's majority is its own."""
    members = (1, 2, 3, 4, 5)
    for first, second in product(BALLOTS, BALLOTS):
        if first >= second:
            continue
        for others in product((first, second, None), repeat=4):
            if others.count(first) >= 2:
                continue  # that is a majority with the own first vote
            learner = CheckedLearner.at(node=1, members=members)
            learner.step(Learn(Vote(1, first, encode(NoOp()))))
            learner.step(Learn(vote(1, second)))
            for node, ballot in zip(members[1:], others, strict=True):
                if ballot is not None:
                    learner.step(Accepted(ballot, node, 1))
            check_after(learner, int(others.count(second) >= 2), (first, second, others))


def test_votes_are_counted_only_within_the_window_ahead() -> None:
    """P10: a peer that counts wildly ahead fills no memory."""
    for applied, slot in product(
        (0, 3), (-1, 0, 1, limits.SLOTS_COUNTED_AHEAD_MAX, limits.SLOTS_COUNTED_AHEAD_MAX + 1, 10**12)
    ):
        learner = CheckedLearner.at(applied)
        learner.step(Accepted(TERM, 1, applied + slot))
        assert (applied + slot in learner.live._counts) == (1 <= slot <= limits.SLOTS_COUNTED_AHEAD_MAX), (
            applied,
            slot,
        )


# --- the watermark rule ----------------------------------------------------------------------------------------------


def test_a_watermark_applies_only_what_this_node_accepted_under_exactly_its_ballot() -> None:
    """P1 (decision 6): every order of vote and marks; of several, the highest mark of the highest ballot counts."""
    marks = [Watermark(ballot, upto) for ballot in BALLOTS for upto in (0, 1)]
    for mine, one, two in product(BALLOTS, marks, marks):
        for order in permutations((Learn(vote(1, mine)), one, two)):
            learner, heard, voted, applied = CheckedLearner.at(), (NO_BALLOT, 0), False, False
            for message in order:
                learner.step(message)
                if isinstance(message, Watermark):
                    heard = max(heard, (message.ballot, message.chosen_upto))
                else:
                    voted = True
                applied = applied or (voted and heard[0] == mine and heard[1] >= 1)
                check_after(learner, int(applied), order)


def test_a_watermark_over_many_slots_stops_at_the_first_vote_of_another_ballot() -> None:
    """P1, for every assignment of ballots to four slots, one of them perhaps not voted in at all."""
    for ballots in product((None, LOWER, TERM, HIGHER), repeat=4):
        for upto in range(6):
            learner = CheckedLearner.at()
            for slot, ballot in enumerate(ballots, 1):
                if ballot is not None:
                    learner.step(Learn(vote(slot, ballot)))
            assert learner.applied_upto == 0
            learner.step(Watermark(TERM, upto))
            run = 0
            while run < min(upto, 4) and ballots[run] == TERM:
                run += 1
            assert learner.applied_upto == run, (ballots, upto)


# --- any order of slots ----------------------------------------------------------------------------------------------


def arrivals() -> Iterator[tuple[list[Any], dict[int, list[set[int]]]]]:
    """Sets of messages, and for each slot which of them together (by their places) make it known as chosen."""
    quorums: list[Any] = []
    for slot in (1, 2, 3):
        quorums += [Learn(vote(slot)), Accepted(TERM, 3, slot)]
    yield quorums, {slot: [{2 * slot - 2, 2 * slot - 1}] for slot in (1, 2, 3)}
    learns: list[Any] = [Learn(vote(slot)) for slot in (1, 2, 3, 4)]
    yield [*learns, Watermark(TERM, 4)], {slot: [{slot - 1, 4}] for slot in (1, 2, 3, 4)}
    yield [Chosen(vote(slot, LOWER)) for slot in (1, 2, 3, 4)], {slot: [{slot - 1}] for slot in (1, 2, 3, 4)}
    mixed = [learns[0], Accepted(TERM, 1, 1), learns[1], Watermark(TERM, 2), Chosen(vote(3, LOWER)), learns[3]]
    yield [*mixed, Accepted(TERM, 3, 4)], {1: [{0, 1}, {0, 3}], 2: [{2, 3}], 3: [{4}], 4: [{5, 6}]}


@pytest.mark.parametrize(("messages", "knowing"), list(arrivals()), ids=["quorums", "watermark", "chosen", "mixed"])
def test_slots_are_applied_in_order_without_a_gap_however_their_messages_arrive(
    messages: list[Any], knowing: dict[int, list[set[int]]]
) -> None:
    """P1: after each message just the longest run of known slots is applied, and what follows from it is told."""
    learner = CheckedLearner.at()
    runs: dict[frozenset[int], int] = {}
    expected: dict[tuple[int, int], Effects] = {}
    for order in permutations(range(len(messages))):
        learner, applied = CheckedLearner.at(), 0
        for count, place in enumerate(order, 1):
            heard = frozenset(order[:count])
            if heard not in runs:
                known = [slot for slot in knowing if any(need <= heard for need in knowing[slot])]
                runs[heard] = next(slot - 1 for slot in range(1, 6) if slot not in known)
            learner.step(messages[place])
            now = (applied, runs[heard])
            if now not in expected:
                expected[now] = Effects([], outcome_sends(range(applied + 1, now[1] + 1), applied))
            assert learner.applied_upto == now[1], (order, count)
            assert learner.effects == expected[now], (order, count)
            applied = now[1]
        assert applied == len(knowing)
    for message in messages:  # late repetitions, at the end of the last order
        assert learner.step(message) == []
        assert learner.effects == Effects()
    check_after(learner, len(knowing), "the last order")


def test_a_chosen_value_is_applied_whatever_this_node_had_voted_for() -> None:
    """P1: it comes from a peer's journal, of a slot that the peer has applied."""
    for mine, ballot in product((None, *BALLOTS), BALLOTS):
        learner = CheckedLearner.at()
        if mine is not None:
            learner.step(Learn(Vote(1, mine, encode(NoOp()))))
        learner.step(Chosen(vote(1, ballot)))
        check_after(learner, 1, (mine, ballot))


def test_what_is_below_the_state_is_never_applied_again() -> None:
    """P1 and P6: a late message of a slot that is applied changes nothing and tells nobody."""
    for applied, slot, ballot in product(range(1, 4), range(4), BALLOTS):
        learner = CheckedLearner.at(applied)
        if slot <= applied:
            old = Vote(slot, ballot, encode(NoOp()))
            for message in (Learn(old), Chosen(old), Accepted(ballot, 1, slot), Watermark(ballot, slot)):
                learner.step(message)
                assert learner.effects == Effects(), (applied, message)
            check_after(learner, applied, (applied, slot))


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x80", encode(vote(1)), encode(Accepted(TERM, 1, 1))], ids=repr)
def test_a_chosen_entry_that_cannot_be_read_stops_the_node(data: bytes) -> None:
    """It never guesses: every node would have to guess the same."""
    learner = Learner(ME, MEMBERS, LeaseState())
    with pytest.raises(Corrupt, match="slot 1"):
        learner.step(Chosen(Vote(1, TERM, data)))


# --- answers, events, deadlines --------------------------------------------------------------------------------------


def test_commands_are_answered_only_while_this_node_leads_under_their_term() -> None:
    """P6 and P9: every leader and ballot that may be told, before or after the batch is known, against its term."""
    for leader, ballot in product((0, *MEMBERS), (NO_BALLOT, *BALLOTS)):
        learner = CheckedLearner.at()
        for role in ("candidate", "follower", "leader"):
            learner.step(Leadership(role, ballot, leader))
        learner.step(Chosen(vote(1)))
        sends = learner.step(Chosen(vote(2, HIGHER)))
        leading = ballot if leader == ME else NO_BALLOT
        assert sends == outcome_sends([2], 1, leading=leading), (leader, ballot)
        assert any(isinstance(send.message, Applied) for send in sends) == (leader == ME and ballot == TERM)


def test_a_leader_that_was_deposed_answers_no_more() -> None:
    for after in (NO_BALLOT, LOWER, HIGHER):
        for leader in (0, 1, 3, ME):
            learner = CheckedLearner.at(1)
            learner.step(Leadership("leader", TERM, ME))
            learner.step(Leadership("follower", after, leader))
            assert learner.told(Chosen(vote(2)), Applied) == [], (after, leader)


def test_the_feed_is_told_the_same_by_a_leader_and_a_follower() -> None:
    """P1: the events are part of what every node agrees on."""
    story = a_story().log
    feeds = []
    for leading in (NO_BALLOT, *sorted({item.term for item in story if isinstance(item, Batch)})):
        learner = CheckedLearner.at()
        learner.step(Leadership("leader", leading, ME if leading != NO_BALLOT else 0))
        told = [
            send for slot, item in enumerate(story, 1) for send in learner.step(Chosen(Vote(slot, TERM, encode(item))))
        ]
        feeds.append([send for send in told if send.to == Address(ME, Role.FEED)])
    assert feeds[0]
    assert all(feed == feeds[0] for feed in feeds)


def test_the_expiry_timer_of_a_leader_always_knows_a_deadline_that_is_not_later_than_the_next() -> None:
    """P4 needs no timer, but without it nothing would ever end. It is told no more often than it must be."""
    story = a_story().log
    for start in range(len(story)):
        learner, told = CheckedLearner.at(), 0
        for slot, item in enumerate(story, 1):
            if slot == start + 1:
                learner.heard_deadline = None
                learner.step(Leadership("leader", Ballot(99, ME), ME))
            learner.step(Chosen(Vote(slot, TERM, encode(item))))
            before, news = learner.heard_deadline, learner.told(Tick(slot), NextDeadline)
            told += len(news)
            state = learner.live.state
            clock, deadline = state.clock_ms, state.next_deadline_ms()
            if slot <= start:
                assert news == [], "a follower has no deadlines to keep"
                continue
            known = before.deadline_ms if before is not None else 0
            due = (deadline and (not known or deadline < known)) or 0 < known <= clock
            assert news == ([NextDeadline(clock, deadline)] if due else []), (start, slot)
            heard = learner.heard_deadline
            assert deadline == 0 or (heard is not None and 0 < heard.deadline_ms <= deadline), (start, slot)
            assert learner.told(Tick(slot), NextDeadline) == [], "told twice"
        learner.step(Leadership("leader", Ballot(100, ME), ME))
        assert bool(learner.told(Tick(10**6), NextDeadline)) == bool(learner.live.state.next_deadline_ms())
        assert start or told


# --- progress and saving ---------------------------------------------------------------------------------------------


def test_progress_carries_the_highest_ballot_under_which_anything_was_applied() -> None:
    """P1 (decision 6): whoever leads under a lower one must know it; told once, at the end of the batch."""
    for ballots in product(BALLOTS, repeat=3):
        learner = CheckedLearner.at()
        for slot, ballot in enumerate(ballots, 1):
            learner.step(Chosen(vote(slot, ballot)))
            progress = Progress(slot, 0, max(ballots[:slot]))
            expected = Effects([], [Send(Address(ME, Role.PROPOSER), progress)])
            assert learner.without_summary(Tick(1)) == expected, ballots
            assert learner.without_summary(Tick(1)) == Effects(), "nothing new"


def test_the_state_is_saved_in_time_or_after_enough_slots_and_then_the_acceptor_may_forget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P2: the acceptor is told in the same step that asks for the write, and the write comes first."""
    monkeypatch.setattr(limits, "SAVE_EVERY_SLOTS", 3)
    every = limits.SAVE_EVERY_MS
    for first, second in product(range(5), range(5)):
        for elapsed in (0, 1, every - 1, every, every + 1, 10 * every):
            learner, applied, saved, saved_at, told = CheckedLearner.at(), 0, 0, 0, 0
            for more, now in ((first, every), (second, every + elapsed), (0, every + elapsed)):
                for _ in range(more):
                    applied += 1
                    learner.step(Chosen(vote(applied)))
                effects, expected = learner.without_summary(Tick(now)), Effects()
                if applied - saved >= 3 or (applied > saved and now - saved_at >= every):
                    saved, saved_at = applied, now
                    expected.write(SaveState())
                progress = Progress(applied, saved, TERM if applied else NO_BALLOT)
                if applied != told:
                    told = applied
                    expected.send(Address(ME, Role.PROPOSER), progress)
                if expected.writes:
                    expected.send(Address(ME, Role.ACCEPTOR), progress)
                assert effects == expected, (first, second, elapsed, now)
                wake = learner.live.wake_at_ms
                assert applied == saved or (wake is not None and wake <= saved_at + every), "saved too late"


def test_the_summary_says_what_is_known_as_chosen_and_what_is_applied() -> None:
    for applied, upto in product(range(4), range(7)):
        learner = CheckedLearner.at(applied)
        learner.step(Watermark(TERM, upto))
        summary, state = learner.live.summary(), learner.live.state
        assert (summary.chosen_upto, summary.applied_upto) == (max(applied, upto), applied)
        assert (summary.clock_ms, summary.revision) == (state.clock_ms, state.revision)
        assert (summary.sessions, summary.held, summary.waiting) == (max(applied - 1, 0), 0, 0)


def test_the_gateway_is_told_a_summary_when_it_has_changed_but_not_too_often() -> None:
    """P10, for every pattern of changes at every distance in time; what is held back is told when its time comes."""
    every = limits.SUMMARY_EVERY_MS
    for changes, pause in product(product((None, "mark", "slot"), repeat=4), (0, 1, every - 1, every, 3 * every)):
        learner, now, told, told_at = CheckedLearner.at(), 1000, (0, 0), -every
        for change in changes:
            now += pause
            if change == "mark":
                ballot, upto = learner.live.watermark
                learner.step(Watermark(max(ballot, LOWER), upto + 1))
            elif change == "slot":
                learner.step(Chosen(vote(learner.applied_upto + 1)))
            news = learner.told(Tick(now), Summary)
            figures = (learner.applied_upto, max(learner.applied_upto, learner.live.watermark[1]))
            if figures != told and now - told_at >= every:
                assert news == [learner.live.summary()], (changes, pause)
                told, told_at = figures, now
            else:
                assert news == [], (changes, pause)
            wake = learner.live.wake_at_ms
            assert figures == told or (wake is not None and wake <= told_at + every), "told too late"


def test_a_batch_of_a_deposed_leader_is_applied_in_its_slot_and_has_no_effect() -> None:
    """P4: a straggler that a later leader adopts moves neither the clock nor anything else."""
    for term in BALLOTS:
        learner = CheckedLearner.at(2)
        before = learner.live.state.clock_ms
        item = entry(3, term)
        learner.step(Chosen(Vote(3, HIGHER, encode(item))))
        assert learner.applied_upto == 3
        assert (learner.live.state.clock_ms == before) == (term != TERM), term
