"""The production shells under a seeded scheduler: every promise holds, one seed is one world, known bugs are caught."""

import hashlib
import os
import secrets
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from . import shells_swarm
from .shells_mutants import MUTANTS
from .swarm import Figures

ROOT = Path(__file__).resolve().parents[2]
SECONDS = float(os.environ.get("LESSOR_SHELLS_SECONDS", "7"))
"""How long the swarm runs; `LESSOR_SHELLS_SECONDS=600 make deep` runs a large one."""

FAILED_SEEDS = (95,)
"""Worlds that failed at some time. 95: a Cancel that was refused for want of room, an earlier sending of which might
have had its effect, was not asked again, and its claim was granted to nobody."""

IN_EVERY_RUN = ("spoken_before_commit", "stepped_twice", "effects_dropped")
"""Mutants that `make deep` looks for; `make mutants` looks for the others."""


def caught(name: str) -> bool:
    """Return whether the mutant's own checker, alone, sees it in one of the first worlds."""
    mutant = MUTANTS[name]
    verdicts = (shells_swarm.run_seed(seed, (mutant.checker,), name) for seed in range(1, 1 + mutant.worlds))
    return any(verdict.promise == mutant.checker.promise for verdict in verdicts)


@pytest.mark.timeout(SECONDS + 120)
def test_the_production_shells_keep_every_promise_in_a_fresh_swarm() -> None:  # P1 to P10
    first = int(os.environ.get("LESSOR_SHELLS_SEED", secrets.randbelow(1_000_000_000)))
    print(f"worlds from seed {first} on")
    figures = Figures()
    for verdict in shells_swarm.run_seeds(shells_swarm.until(SECONDS, count(first))):
        figures.add(verdict)
        assert not verdict.failure, f"{verdict.failure}\nreproduce: {shells_swarm.command(verdict.seed)}"
    print(f"{figures.worlds} worlds, {figures.virtual_s:.0f} virtual seconds, {sum(figures.faults.values())} faults")
    assert figures.slots, "nothing was ever decided in these worlds"
    assert not figures.missed, "interesting states that no world has reached"


@pytest.mark.parametrize("seed", FAILED_SEEDS)
def test_a_world_of_the_shells_that_failed_once_keeps_every_promise(seed: int) -> None:
    verdict = shells_swarm.run_seed(seed)
    assert not verdict.failure, f"{verdict.failure}\nreproduce: {shells_swarm.command(seed)}"


def test_processes_that_die_around_their_commits_take_nothing_back() -> None:  # P1, P2
    figures = Figures()
    changes = {"nodes": 3, "crash_at_commit": 0.1, "duration_ms": 1500}
    for seed in (1, 2, 3):
        verdict = shells_swarm.run_seed(seed, changes=changes)
        assert not verdict.failure, f"{verdict.failure}\nreproduce: {shells_swarm.command(seed, changes)}"
        figures.add(verdict)
    for fault in ("crash before the commit", "crash between commit and send", "a torn transaction"):
        assert figures.faults[fault], fault


@pytest.mark.timeout(180)
def test_the_same_seed_is_the_same_run_of_the_shells_whatever_the_seed_of_hashes() -> None:
    digests = set()
    for hash_seed in ("0", "4242"):
        done = subprocess.run(
            [sys.executable, "-m", "lessor", "sim", "--shells", "--seed", "17", "--trace"],
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            check=False,
            timeout=80,
        )
        assert b"1 worlds," in done.stdout, done.stderr
        assert done.stdout.count(b"\n") > 100
        digests.add(hashlib.sha256(done.stdout).hexdigest())
    assert len(digests) == 1


def test_checkers_look_at_the_shells_and_do_not_touch() -> None:
    with_them: list[str] = []
    without: list[str] = []
    shells_swarm.run_seed(12, trace=with_them)
    shells_swarm.run_seed(12, (), trace=without)
    assert with_them == without


@pytest.mark.parametrize("name", IN_EVERY_RUN)
def test_a_bug_of_the_shell_is_caught(name: str) -> None:
    assert caught(name)


@pytest.mark.mutants
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [name for name in MUTANTS if name not in IN_EVERY_RUN])
def test_a_rarer_bug_of_the_shells_is_caught(name: str) -> None:
    assert caught(name)
