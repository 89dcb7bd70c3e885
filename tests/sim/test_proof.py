"""docs/proof.md names every mutant, checker, interesting state and scenario as the simulator has them."""

from pathlib import Path

from . import hostile_mutants, wide_mutants  # noqa: F401 - they add their own to the table
from .checkers.catalogue import ALL
from .exhaustive import SHOWN
from .mutants import MUTANTS
from .shells_mutants import MUTANTS as SHELLS_MUTANTS
from .sometimes import SOMETIMES
from .wide_sometimes import WIDE_SOMETIMES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "proof.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| `")]


def test_the_table_of_mutants_is_that_of_the_simulator() -> None:
    rows = [row for row in ROWS if row.count("|") == 6]
    assert len(rows) == len(MUTANTS)
    missing = [mutant.row for mutant in MUTANTS.values() if not any(row.startswith(mutant.row) for row in rows)]
    assert not missing, "these rows are to begin so:\n" + "\n".join(missing)


def test_every_checker_bug_of_a_shell_and_bug_of_a_small_world_is_named() -> None:
    for checker in ALL:
        assert f"`{checker.__name__}`" in PAGE
    for name in SHELLS_MUTANTS:
        assert f"`{name}`" in PAGE
    for shown in SHOWN:
        assert shown.mutant in PAGE


def test_every_interesting_state_is_named() -> None:
    page = " ".join(PAGE.split())
    assert not [mark for mark in (*SOMETIMES, *WIDE_SOMETIMES) if mark not in page]


def test_every_scenario_is_in_the_table() -> None:
    shown = {row.split("`")[1] for row in ROWS if row.count("|") == 4}
    scenarios = {path.stem for path in (ROOT / "tests" / "scenarios").glob("*.txt")}
    assert scenarios
    assert not scenarios - shown
