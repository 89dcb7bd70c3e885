"""Many worlds of production shells, one after another or on several cores; the same face as swarm.py."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from . import shrink, swarm
from .checkers.base import Checker
from .shells import CHECKERS as ALL
from .shells import ShellWorld
from .shells_mutants import MUTANTS
from .swarm import Figures, Verdict, judge, until

__all__ = ["ALL", "MUTANTS", "Figures", "Verdict", "command", "run_seed", "run_seeds", "until"]


def run_seed(
    seed: int,
    checkers: Sequence[type[Checker]] = ALL,
    mutant: str = "",
    changes: dict[str, Any] | None = None,
    trace: list[str] | None = None,
) -> Verdict:
    """Run the world of a seed, with a bug put in on purpose if a mutant is named; add its events to `trace`."""
    with MUTANTS[mutant].patched() if mutant else contextlib.nullcontext():
        return judge(ShellWorld(seed, checkers, trace=trace, changes=changes))


def run_seeds(
    seeds: Iterable[int], jobs: int = 1, mutant: str = "", changes: dict[str, Any] | None = None
) -> Iterator[Verdict]:
    """Run the worlds of these seeds, on several cores if there is more than one job."""
    return swarm.run_seeds(seeds, jobs, mutant, changes, run_seed)


def command(seed: int, changes: dict[str, Any] | None = None, mutant: str = "") -> str:
    """Return the one line that reproduces a world."""
    return shrink.command(seed, changes, mutant).replace("lessor sim", "lessor sim --shells", 1)
