"""The simulator itself: one seed is one world, whatever the process, and a failing world can be made smaller."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from lessor.cli.dispatch import main

from .checkers.catalogue import ALL
from .clock import MS, Clock
from .options import Options, parse
from .shrink import OFF, command, shrink
from .sometimes import EVERY
from .swarm import run_seed

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


def test_a_failing_world_is_made_smaller_and_fails_in_the_same_way() -> None:
    name = "clock_runs_fast"
    failing = next(verdict for seed in range(1, 200) if (verdict := run_seed(seed, ALL, name)).promise == "P4")
    found = shrink(Options.draw(Random(failing.seed)), failing, mutant=name)
    assert found.verdict.promise == "P4"
    assert len(found.changes) > 3
    changes = parse(found.command.split("--set ")[1].removesuffix(" --trace"))
    assert run_seed(found.verdict.seed, ALL, name, changes) == found.verdict
