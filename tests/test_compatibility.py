"""docs/compatibility.md: every row says what something is called here, and names a test that is there, or a reason."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import lessor
from lessor.client import holders

from .support.tidy import ROOT

PAGE = ROOT / "docs" / "compatibility.md"
SYSTEMS = ("TrexLock", "Trex", "Juju", "YDB", "Locktopus")
NOT_HERE = "*not here:*"
REASON_WORDS = 6
METHOD = re.compile(r"\b(client|lease|holders)\.(\w+)(?!/)")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table."""

    line: int
    cells: tuple[str, ...]


def rows_of(text: str) -> Iterator[Row]:
    """The rows of all tables, without their heads."""
    before = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("|") and before.startswith("|") and not set(line) <= set("|- "):
            yield Row(number, tuple(cell.strip() for cell in line.strip("|").split("|")))
        before = line


def row_problems(row: Row) -> list[str]:
    """What is wrong with a row: a cell missing or empty, neither a test nor a reason, a test that is not there."""
    problems = [f"line {row.line} has {len(row.cells)} cells"] * (len(row.cells) != 3)
    problems += [f"line {row.line} has an empty cell"] * (not all(row.cells))
    shown = row.cells[-1]
    tests = TEST.findall(shown)
    if shown.startswith(NOT_HERE):
        words = TEST.sub("", shown.removeprefix(NOT_HERE)).split()
        problems += [f"line {row.line} gives no reason worth the name"] * (len(words) < REASON_WORDS)
    elif TEST.sub("", shown).strip(", ") or not tests:
        problems.append(f"line {row.line} names no test and gives no reason")
    problems += [f"line {row.line}: there is no {path}::{name}" for path, name in tests if name not in names_in(path)]
    return problems


@cache
def names_in(path: str) -> frozenset[str]:
    """The tests of a file; none if there is no such file."""
    file = ROOT / Path(path)
    if not file.is_file():
        return frozenset()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds) and node.name.startswith("test"))


def test_every_row_names_a_test_that_is_there_or_a_reason() -> None:
    rows = list(rows_of(PAGE.read_text(encoding="utf-8")))
    problems = [problem for row in rows for problem in row_problems(row)]
    assert not problems, "\n" + "\n".join(problems)
    assert len(rows) > 200, "the page has lost its tables"


def test_every_system_has_its_tables_and_no_feature_stands_in_one_twice() -> None:
    text = PAGE.read_text(encoding="utf-8")
    sections = text.split("\n## ")[1:]
    for system in SYSTEMS:
        assert any(section.startswith(system) for section in sections), system
    for section in sections:
        features = [row.cells[0] for row in rows_of(section)]
        assert features, section.splitlines()[0]
        assert len(features) == len(set(features))


def test_every_method_that_a_row_names_is_there() -> None:
    owners = {"client": lessor.Client, "lease": lessor.Lease, "holders": holders}
    named = 0
    for row in rows_of(PAGE.read_text(encoding="utf-8")):
        for owner, name in METHOD.findall(row.cells[1]):
            assert hasattr(owners[owner], name), f"line {row.line}: {owner}.{name}"
            named += 1
    assert named > 50, "the rows name no methods any more"


HERE = "tests/test_compatibility.py::test_every_row_names_a_test_that_is_there_or_a_reason"


@pytest.mark.parametrize(
    "cells",
    [
        ("a feature", "its name", f"`{HERE}`"),
        ("a feature", "its name", f"`{HERE}`, `{HERE}`"),
        ("a feature", "another way", "*not here:* it belongs to the surroundings of a vendor"),
        ("a feature", "another way", f"*not here:* nobody should have to do it by hand, see `{HERE}`"),
    ],
)
def test_a_row_with_a_test_or_a_reason_is_fine(cells: tuple[str, ...]) -> None:
    assert row_problems(Row(1, cells)) == []


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param(("a feature", "", f"`{HERE}`"), id="no name"),
        pytest.param(("a feature", "its name"), id="a cell too few"),
        pytest.param(("a feature", "its name", "done"), id="only a word"),
        pytest.param(("a feature", "its name", f"done, see `{HERE}`"), id="a word beside the test"),
        pytest.param(("a feature", "its name", "*not here:* no need"), id="no reason"),
        pytest.param(("a feature", "its name", "`tests/test_compatibility.py::test_not_there`"), id="a test too many"),
        pytest.param(("a feature", "its name", "`tests/test_not_there.py::test_x`"), id="no such file"),
        pytest.param(("a feature", "its name", f"*not here:* `{HERE}` `{HERE}`"), id="a test for a reason"),
    ],
)
def test_a_row_without_a_test_or_a_reason_is_found(cells: tuple[str, ...]) -> None:
    assert row_problems(Row(1, cells))


def test_the_head_of_a_table_is_no_row() -> None:
    assert [row.line for row in rows_of("| a | b |\n|---|---|\n| c | d |\n\n| a | b |\n|---|---|\n| e | f |")] == [3, 7]
