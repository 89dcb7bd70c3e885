"""The simulator itself: one seed is one world, whatever the process, and a failing world can be made smaller."""

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest

from lessor.cli.dispatch import main

from . import swarm
from .checkers.catalogue import ALL
from .clock import MS, Clock
from .mutants import MUTANTS
from .options import Options, parse
from .shrink import OFF, command, shrink
from .sometimes import COMMON, EVERY, RARE, WORLDS_ENOUGH, WORLDS_FEW
from .swarm import Verdict, run_seed

ROOT = Path(__file__).resolve().parents[2]


def digest_in_a_process(seed: int, hash_seed: str) -> str:
    """Return a digest of the trace of a world that ran in a process of its own."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    arguments = [sys.executable, "-m", "lessor", "sim", "--seed", str(seed), "--trace"]
    done = subprocess.run(arguments, capture_output=True, env=environment, cwd=ROOT, check=False, timeout=60)
    assert b"worlds," in done.stdout or b"FAILED" in done.stdout, done.stderr
    return hashlib.sha256(done.stdout).hexdigest()


@pytest.mark.deep
@pytest.mark.parametrize("seed", [3, 17])
def test_the_same_seed_is_the_same_world_whatever_the_seed_of_hashes(seed: int) -> None:
    assert len({digest_in_a_process(seed, hash_seed) for hash_seed in ("0", "1", "4242")}) == 1


def test_two_runs_of_a_seed_in_one_process_have_the_same_trace() -> None:
    traces: list[list[str]] = [[], []]
    for trace in traces:
        run_seed(11, ALL, trace=trace)
    assert traces[0] == traces[1]
    assert len(traces[0]) > 100


def test_checkers_look_and_do_not_touch() -> None:
    with_them: list[str] = []
    without: list[str] = []
    run_seed(12, ALL, trace=with_them)
    run_seed(12, (), trace=without)
    assert with_them == without


@pytest.mark.parametrize("drift_ppm", [0, 500])
def test_a_clock_shows_a_moment_first_when_it_says(drift_ppm: int) -> None:
    rng = Random(1)
    for _ in range(200):
        clock = Clock.draw(rng, rng.randrange(1_000_000), drift_ppm)
        at_ms = clock.now_ms(1_000_000) + rng.randrange(10_000)
        at_us = clock.when_us(at_ms)
        assert clock.now_ms(at_us) >= at_ms > clock.now_ms(at_us - 1)


def test_a_suspended_clock_stands_still_and_goes_on() -> None:
    clock = Clock(0, 100.0, 0.0)
    before = clock.now_ms(5 * MS)
    clock.stand_still(20 * MS)
    assert clock.now_ms(25 * MS) == before


def test_options_are_read_as_they_are_told() -> None:
    assert parse("clients=1,loss=0.5,ttls_ms=100+300") == {"clients": 1, "loss": 0.5, "ttls_ms": (100, 300)}
    with pytest.raises(ValueError, match="no option"):
        parse("colour=red")


@pytest.mark.parametrize(
    "told", ["nodes=0", "nodes=6", "clients=0", "names=4", "nodes=three", "loss=1.5", "loss=nan", "kill=-1", "ttls_ms="]
)
def test_options_that_make_no_world_are_refused(told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["sim", "--seed", "1", "--set", told])
    assert refused.value.code == 2
    assert f"argument --set: {told.partition('=')[0]} is " in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", ["--seed 1", "--worlds 2", "--for 1s", "--shells", "--trace", "--shrink", "--set nodes=1"]
)
def test_what_leaves_nothing_to_chance_takes_no_option_of_chance(
    flags: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["sim", "--exhaustive", *flags.split()])
    assert refused.value.code == 2
    assert f"{flags.split(maxsplit=1)[0]} does not go with --exhaustive" in capsys.readouterr().err


@pytest.mark.parametrize("name", OFF)
def test_each_thing_that_may_go_wrong_does_in_some_worlds_and_not_in_others(name: str) -> None:
    assert {bool(getattr(Options.draw(Random(seed)), name)) for seed in range(200)} == {False, True}


def test_the_line_that_reproduces_a_world_has_its_options() -> None:
    changes = {"clients": 1, "loss": 0.5, "ttls_ms": (100, 300), "waits_ms": (300,), "limits": ()}
    line = command(7, changes)
    assert parse(line.split("--set ")[1].removesuffix(" --trace")) == changes


@pytest.mark.parametrize("wide", [0, 7])
def test_a_world_tells_how_many_of_all_interesting_states_it_reached(
    wide: int, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--set", f"wide={wide},duration_ms=300,limits=()"]
    main(["sim", "--seed", "9", *arguments])
    main(["sim", "--seed", "9", "--worlds", "1", *arguments])
    verdict = run_seed(9, changes={"wide": wide, "duration_ms": 300, "limits": ()})
    told = (str(len({*verdict.marks} & {*EVERY})), str(len(EVERY)))
    assert re.findall(r"(\S+) of (\d+) interesting states", capsys.readouterr().out) == [told, told]


@pytest.mark.parametrize(
    ("worlds", "demanded"),
    [(WORLDS_FEW - 1, ()), (WORLDS_FEW, COMMON), (WORLDS_ENOUGH - 1, COMMON), (WORLDS_ENOUGH, EVERY)],
)
def test_a_swarm_that_never_reached_an_interesting_state_fails(
    worlds: int, demanded: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without(mark: str) -> int:
        verdict = Verdict(1, marks=Counter(each for each in EVERY if each != mark))
        monkeypatch.setattr(swarm, "run_seeds", lambda *_: [verdict] * worlds)
        return main(["sim"])

    for mark in EVERY:
        assert without(mark) == (mark in demanded)
        assert (f"FAILED  never reached: {mark}\n" in capsys.readouterr().out) == (mark in demanded)


@pytest.mark.parametrize("name", ["two_holders", "drift_margin_added"])
def test_a_known_bug_is_looked_for_in_as_many_worlds_as_it_is_to_be_caught_within(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looked_at: list[int] = []

    def run(seeds: Iterable[int], jobs: int, mutant: str, changes: object) -> list[Verdict]:
        assert mutant == name
        looked_at.extend(seeds)
        return [Verdict(7, promise="P3", failure="P3: caught")]

    monkeypatch.setattr(swarm, "run_seeds", run)
    assert main(["sim", "--mutant", name]) == 1
    assert looked_at == [*range(1, 1 + MUTANTS[name].worlds)]
    assert f"FAILED  P3: caught\nreproduce: lessor sim --seed 7 --mutant {name}" in capsys.readouterr().out


def test_a_known_bug_that_was_not_caught_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "--mutant", "drift_margin_added", "--worlds", "1"]) == 0
    assert capsys.readouterr().out.endswith("drift_margin_added was not caught\n")


def test_no_world_is_run_without_the_assertions_of_the_product() -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-m", "lessor", "sim", "--worlds", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "python -O" in done.stderr


def test_every_state_that_is_marked_is_demanded_or_called_rare() -> None:
    sources = "".join(path.read_text() for path in Path(__file__).parent.rglob("*.py"))
    marked = {mark for call in re.findall(r"\bmark\((.*)\)", sources) for mark in re.findall(r'"([a-z -]+)"', call)}
    assert len(marked) > 50
    assert marked <= {*EVERY, *RARE}


def test_a_failing_world_is_made_smaller_and_fails_in_the_same_way() -> None:
    name = "clock_runs_fast"
    failing = next(verdict for seed in range(1, 200) if (verdict := run_seed(seed, ALL, name)).promise == "P4")
    found = shrink(Options.draw(Random(failing.seed)), failing, mutant=name)
    assert found.verdict.promise == "P4"
    assert len(found.changes) > 3
    changes = parse(found.command.split("--set ")[1].removesuffix(" --trace"))
    assert run_seed(found.verdict.seed, ALL, name, changes) == found.verdict
