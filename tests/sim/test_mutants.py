"""Every known bug that is put in on purpose is caught by its own checker, and by nothing of that name without it."""

import pytest

from .checkers.base import Checker
from .checkers.catalogue import ALL
from .checkers.linearizable import Linearizable
from .checkers.stops import Stops
from .mutants import MUTANTS, Mutant
from .swarm import Verdict, run_seed

pytestmark = pytest.mark.mutants

FIRST_SEED = 1


def first_caught(mutant: Mutant) -> Verdict | None:
    """Return the first world in which the mutant's own checker, alone, sees it."""
    for seed in range(FIRST_SEED, FIRST_SEED + mutant.worlds):
        verdict = run_seed(seed, (mutant.checker,), mutant.name)
        if verdict.promise == mutant.checker.promise:
            return verdict
    return None


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", list(MUTANTS))
def test_the_checker_catches_the_mutant_and_without_it_nothing_of_its_name_does(name: str) -> None:
    mutant = MUTANTS[name]
    caught = first_caught(mutant)
    assert caught is not None, f"{mutant.checker.__name__} has not seen {mutant.what!r} in {mutant.worlds} worlds"
    own = {mutant.checker, *mutant.also}
    others = tuple(checker for checker in ALL if checker not in own)
    seen = {run_seed(seed, others, name).promise for seed in range(FIRST_SEED, caught.seed + 1)} - {""}
    names = ", ".join(sorted(checker.__name__ for checker in own))
    print(f"{name}: caught in world {caught.seed}; without {names}: {', '.join(sorted(seen)) or '-'}")
    assert mutant.checker.promise not in seen
    without = run_seed(caught.seed, (), name)
    # only the end of the world may notice that it does not come to rest, or a client that the same bug brings down
    assert without.promise in ("", "liveness", "client"), without.promise


@pytest.mark.parametrize(
    ("name", "looks", "promise"),
    [
        ("two_holders", (Linearizable,), "linearizability"),
        ("release_by_name", (Linearizable,), "linearizability"),
        ("token_not_growing", (Stops,), "stops"),
        ("dead_waiter", (), "liveness"),
        ("head_of_line_broken", (), "liveness"),
    ],
)
def test_what_is_demanded_beside_the_promises_can_fail(
    name: str, looks: tuple[type[Checker], ...], promise: str
) -> None:
    assert any(run_seed(seed, looks, name).promise == promise for seed in range(FIRST_SEED, FIRST_SEED + 20))


def test_every_checker_has_a_mutant_or_is_shown_to_fail_above() -> None:
    assert {*ALL} - {mutant.checker for mutant in MUTANTS.values()} == {Linearizable, Stops}


def test_who_may_see_a_mutant_too_keeps_a_part_of_the_same_promise() -> None:
    for mutant in MUTANTS.values():
        assert {checker.promise for checker in mutant.also} <= {mutant.checker.promise}, mutant.name
        assert mutant.checker not in mutant.also


def test_there_are_twenty_mutants_and_every_promise_has_one() -> None:
    assert len(MUTANTS) >= 20
    promises = {mutant.checker.promise for mutant in MUTANTS.values()}
    assert promises == {checker.promise for checker in ALL if checker.promise.startswith("P")}
