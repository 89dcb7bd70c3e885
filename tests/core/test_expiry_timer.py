"""The expiry timer: armed only while its node leads, by the last word, patient with a slow clock (P4)."""

from itertools import product
from typing import Any

import pytest

from lessor.core.ballot import NO_BALLOT, Ballot
from lessor.core.effects import Address, Effects, Role, Send
from lessor.core.expiry_timer import RENUDGE_MS, ExpiryTimer
from lessor.core.messages import Leadership, NextDeadline, Nudge, Tick

NODE = 2
MINE = Leadership("leader", Ballot(3, NODE), NODE)
CANDIDATE = Leadership("candidate", NO_BALLOT, 0)
LEADERLESS = Leadership("follower", NO_BALLOT, 0)
OTHERS = Leadership("follower", Ballot(4, 1), 1)
NOT_MINE = (CANDIDATE, LEADERLESS, OTHERS)
NUDGE = Effects([], [Send(Address(NODE, Role.PROPOSER), Nudge())])
SILENCE = Effects()
START_MS = 70_000  # the node's clock, which has nothing to do with the lease clock


def timer(*messages: Any) -> ExpiryTimer:
    """A timer that was told this; none of it may make it speak before its tick."""
    core = ExpiryTimer(NODE)
    for message in messages:
        assert core.step(message) == SILENCE, f"{message}"
    return core


def nudged_at(core: ExpiryTimer, upto_ms: int) -> list[int]:
    """After how many milliseconds it nudges, looked at in every one."""
    said = []
    for after_ms in range(upto_ms):
        effects = core.step(Tick(START_MS + after_ms))
        assert effects in (NUDGE, SILENCE)
        if effects == NUDGE:
            said.append(after_ms)
        wake_at_ms = core.wake_at_ms
        assert wake_at_ms is None or wake_at_ms > START_MS + after_ms, "spins"
    return said


@pytest.mark.parametrize("clock_ms", [6_000, 10**9])
@pytest.mark.parametrize("left_ms", [-5_000, -1, 0, 1, 30, 99])
def test_the_timer_nudges_at_the_deadline_and_again_while_nothing_comes(clock_ms: int, left_ms: int) -> None:
    first_ms = max(left_ms, 0)  # one that has passed is due now
    expected = list(range(first_ms, 200, RENUDGE_MS))
    assert nudged_at(timer(MINE, NextDeadline(clock_ms, clock_ms + left_ms)), 200) == expected


def test_p4_a_deadline_is_counted_from_the_tick_after_it_was_told_so_never_early() -> None:
    core = timer(MINE, Tick(START_MS), NextDeadline(100, 400))
    assert core.step(Tick(START_MS + 1_000)) == SILENCE
    assert core.wake_at_ms == START_MS + 1_300
    assert core.step(Tick(START_MS + 1_299)) == SILENCE
    assert core.step(Tick(START_MS + 1_300)) == NUDGE


def test_only_a_leader_is_armed_whatever_was_told_in_whatever_order() -> None:
    told: tuple[Any, ...] = (MINE, *NOT_MINE, NextDeadline(100, 110), NextDeadline(100, 103), NextDeadline(120, 0))
    for messages, ticks in product(product(told, repeat=4), (True, False)):
        leads = False
        left_ms: int | None = None
        for message in messages:
            if isinstance(message, NextDeadline):
                left_ms = message.deadline_ms - message.clock_ms if message.deadline_ms else None
            else:
                leads = message == MINE
                left_ms = left_ms if leads else None
        core = ExpiryTimer(NODE)
        for message in messages:
            assert core.step(message) == SILENCE, f"{messages}"
            if ticks:
                core.step(Tick(START_MS))
        expected = [] if not leads or left_ms is None else list(range(left_ms, 12, RENUDGE_MS))
        assert nudged_at(core, 12) == expected, f"{messages}, with{'' if ticks else 'out'} ticks between"
        assert (core.wake_at_ms is not None) == bool(expected), f"{messages}: sleeps until it is told"


@pytest.mark.parametrize("other", NOT_MINE, ids=lambda leadership: f"{leadership.role}-of-{leadership.leader}")
def test_a_lost_leadership_disarms_and_a_new_one_needs_a_new_deadline(other: Leadership) -> None:
    for ticked in (True, False):
        core = timer(MINE, NextDeadline(100, 110), *[Tick(START_MS)] * ticked, other)
        assert nudged_at(core, 20) == []
        assert core.wake_at_ms is None
        assert core.step(MINE) == SILENCE
        assert nudged_at(core, 20) == []
        core.step(NextDeadline(100, 105))
        assert nudged_at(core, 20) == [5]


def test_a_deadline_that_overtakes_the_word_of_the_leadership_counts() -> None:
    # the proposer tells the learner before the timer, and the learner may be quick
    early = NextDeadline(100, 110), Tick(START_MS)
    assert timer(*early).wake_at_ms is None
    core = timer(*early)
    assert core.step(MINE) == SILENCE
    assert core.wake_at_ms == START_MS + 10
    assert nudged_at(core, 20) == [10]


def test_a_later_word_replaces_the_earlier_one_before_and_after_a_tick_or_a_nudge() -> None:
    for first_ms, second_ms, gap_ms in product((0, 5, 40), (None, 0, 5, 40), (None, 0, 5, 45)):
        core = timer(MINE, NextDeadline(100, 100 + first_ms))
        now_ms = START_MS
        if gap_ms is not None:
            for now_ms in range(START_MS, START_MS + gap_ms + 1):
                core.step(Tick(now_ms))
        core.step(NextDeadline(200, 200 + second_ms if second_ms is not None else 0))
        said = [at_ms for at_ms in range(50) if core.step(Tick(now_ms + at_ms)) == NUDGE]
        assert said == ([] if second_ms is None else [second_ms]), f"{first_ms}, {gap_ms} later {second_ms}"


def test_a_nudge_is_no_decision_and_one_tick_brings_one_however_late_it_is() -> None:
    core = timer(MINE, NextDeadline(100, 110), Tick(START_MS))
    assert core.step(Tick(START_MS + 60_000)) == NUDGE
    assert core.step(Tick(START_MS + 60_000)) == SILENCE
    assert core.wake_at_ms == START_MS + 60_000 + RENUDGE_MS


def test_the_word_of_who_leads_may_come_again_and_changes_nothing() -> None:
    core = timer(MINE, NextDeadline(100, 110), Tick(START_MS), MINE)
    assert nudged_at(core, 20) == [10]
