"""Small worlds, explored to their end: no schedule, loss or crash breaks agreement (P1) or durability (P2)."""

from typing import Any
from unittest import mock

import pytest

from lessor.cli.dispatch import main
from lessor.core.ballot import NO_BALLOT
from lessor.core.proposer import Proposer

from .exhaustive import DEEP, QUICK, RESTARTED, SHOWN, Shown, explore
from .mutants import MUTANTS
from .small_nodes import Bounds

pytestmark = pytest.mark.timeout(300)  # seconds of work; but a busy machine may stretch them


@pytest.mark.parametrize("bounds", QUICK, ids=str)
def test_no_schedule_of_a_small_world_breaks_agreement_or_durability(bounds: Bounds) -> None:
    report = explore(bounds)
    print(report)
    assert not report.problem, f"\n{report}"
    assert report.whole == (bounds.depth is None), "the world was not explored to its end"
    assert report.chosen, "a world in which nothing is ever chosen proves nothing"


def test_the_quick_worlds_meet_crashes_learners_two_slots_and_roles_apart() -> None:
    assert any(bounds.crashes for bounds in QUICK)
    assert any(bounds.learners for bounds in QUICK)
    assert any(bounds.slots == 2 for bounds in QUICK)
    assert any(bounds.split for bounds in QUICK)


def test_a_world_with_timers_reaches_the_catch_up_of_a_follower() -> None:
    report = explore(Bounds(elections=1, timers=3, heartbeats=True))
    assert report.messages == ("Accept", "Accepted", "Fetch", "Fetched", "Heartbeat", "Prepare", "Promise")


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: f"{shown.mutant}-{shown.promise}")
def test_a_known_bug_is_found_with_a_shortest_trace(shown: Shown) -> None:
    report = shown.explore()
    print(report)
    assert report.problem.startswith(shown.promise), f"{MUTANTS[shown.mutant].what}: not found\n{report}"
    assert len(report.trace) == shown.steps, f"the shortest trace has another length\n{report}"


def test_a_proposer_that_uses_a_ballot_again_after_a_restart_is_found() -> None:
    started = Proposer.__init__

    def forgetful(self: Proposer, node: int, members: Any, promised: Any, applied_upto: int) -> None:
        started(self, node, members, NO_BALLOT, applied_upto)

    with mock.patch.object(Proposer, "__init__", forgetful):
        report = explore(RESTARTED)
    assert report.problem == "P1: two values were accepted in slot 2 under 1.1", f"\n{report}"


def test_the_command_prints_the_shortest_trace_of_a_known_bug(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "--exhaustive", "--mutant", "quorum_off_by_one"]) == 1
    printed = capsys.readouterr().out
    assert "1. node 1 hears nobody, and stands" in printed
    assert "=> P1: a second value is chosen in slot 1" in printed


def test_the_command_finds_nothing_where_no_bug_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "--exhaustive", "--depth", "3"]) == 0
    assert capsys.readouterr().out.count("to depth 3") == len(DEEP)
