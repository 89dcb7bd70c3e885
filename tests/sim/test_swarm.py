"""A swarm of simulated worlds with fresh seeds each time, and the worlds that ever failed. (P1 to P11.)"""

import os
import secrets
from itertools import count
from pathlib import Path

import pytest

from .shrink import command
from .swarm import Figures, Verdict, run_seed, run_seeds, until

PARTS = 3
"""Tests that the swarm is split into, so that several processes can share the work."""

SECONDS = float(os.environ.get("LESSOR_SWARM_SECONDS", "30")) / PARTS
"""How long each part runs; `LESSOR_SWARM_SECONDS=600 make test` runs a large swarm."""

FAILED_SEEDS = Path(__file__).with_name("failed_seeds.txt")


def failed_seeds() -> list[int]:
    lines = FAILED_SEEDS.read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line.strip() and not line.startswith("#")]


def complaint(verdict: Verdict) -> str:
    return f"{verdict.failure}\nreproduce: {command(verdict.seed)}\nand add the seed to {FAILED_SEEDS.name}"


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_world_of_a_fresh_swarm_keeps_every_promise(part: int) -> None:
    first = int(os.environ.get("LESSOR_SWARM_SEED", secrets.randbelow(1_000_000_000))) + part * 1_000_000_000
    print(f"worlds from seed {first} on")
    figures = Figures()
    for verdict in run_seeds(until(SECONDS, count(first))):
        figures.add(verdict)
        assert not verdict.failure, complaint(verdict)
    print(f"{figures.worlds} worlds, {figures.virtual_s:.0f} virtual seconds, {sum(figures.faults.values())} faults")
    assert not figures.missed, "interesting states that no world has reached"


@pytest.mark.parametrize("seed", failed_seeds())
def test_a_world_that_failed_once_keeps_every_promise(seed: int) -> None:
    verdict = run_seed(seed)
    assert not verdict.failure, complaint(verdict)
