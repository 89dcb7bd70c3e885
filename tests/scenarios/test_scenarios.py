"""The conversations that a reader should know: each file must be exactly what its commands print.

`pytest tests/scenarios --rewrite` writes what they print now; the review is of the diff. The language is in script.py.
"""

import difflib
import re
from pathlib import Path

import pytest

from .script import run

FILES = sorted(Path(__file__).parent.glob("*.txt"))
READ = {path.stem: path.read_text(encoding="utf-8") for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_scenario_is_what_its_commands_print(path: Path, rewrite: bool) -> None:  # noqa: FBT001 - a fixture
    text = READ[path.stem]
    now = run(text)
    if rewrite:
        path.write_text(now, encoding="utf-8")
    elif now != text:
        diff = difflib.unified_diff(text.splitlines(), now.splitlines(), path.name, "now", lineterm="", n=5)
        pytest.fail("\n".join(diff), pytrace=False)


@pytest.mark.parametrize("name", READ)
def test_a_scenario_opens_with_what_it_shows_and_cites_a_promise(name: str) -> None:
    opening, _, _ = READ[name].partition("\n> ")
    first = opening.split("\n", maxsplit=1)[0]
    assert re.search(r"[.:)]$", first), first
    assert re.search(r"\bP([1-9]|1[01])\b", opening), f"{name} cites no promise"
    assert max(map(len, READ[name].splitlines())) <= 120


def test_all_scenarios_are_there() -> None:
    assert len(FILES) >= 20


def test_what_a_command_prints_replaces_what_it_printed_and_prose_stays() -> None:
    text = "What it shows.\n\n> nodes 1\n    n7 leads under 9.9\n\nMore of it.\n\n> flight\n    n1->n2 nothing\n"
    now = run(text)
    assert now.startswith("What it shows.\n\n> nodes 1\n    n1 prepares 1.1\n    n1 leads under 1.1\n")
    assert now.endswith("\n\nMore of it.\n\n> flight\n")
    assert run(now) == now


@pytest.mark.parametrize(
    "command",
    ["nonsense", "deliver n1->n2 Accept", "drop Fetch", "alice nonsense", "alice acquire x tll=3s", "free n1->n2"],
)
def test_a_command_that_means_nothing_cannot_be_written_down(command: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        run(f"> cluster 3 alice\n> {command}\n")
    assert caught.value.__notes__ == [f"in line 2: > {command}"]


def test_a_bound_that_a_scenario_changes_is_itself_again_after_it() -> None:
    busy = READ["client_busy"]
    assert run(busy) == run(busy)
    calm = run(busy.replace("> limit GATEWAY_IN_FLIGHT_MAX 1\n", "").replace("> deliver n1->bob\n", ""))
    assert "Busy #" not in calm
