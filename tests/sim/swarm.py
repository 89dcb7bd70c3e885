"""Many worlds, one after another or on several cores, and what they have shown together."""

import contextlib
import gc
import multiprocessing
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import AsyncResult
from typing import Any

from . import hostile_mutants, wide_mutants  # noqa: F401 - they add their own
from .checkers.base import Checker, Violated
from .checkers.catalogue import ALL
from .mutants import MUTANTS
from .sometimes import missed, never
from .world import World

COLLECT_EVERY = 20
"""Worlds between two collections of garbage: a world is full of circles, and is thrown away whole."""


@dataclass(slots=True)
class Verdict:
    """What one world has shown; `failure` is empty if it kept every promise."""

    seed: int
    virtual_s: float = 0.0
    packets: int = 0
    calls: int = 0
    slots: int = 0
    options: str = ""
    promise: str = ""
    failure: str = ""
    faults: Counter[str] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Figures:
    """What many worlds have shown."""

    worlds: int = 0
    virtual_s: float = 0.0
    packets: int = 0
    calls: int = 0
    slots: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)  # how many worlds reached each
    failures: list[Verdict] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        """Take a world in."""
        self.worlds += 1
        self.virtual_s += verdict.virtual_s
        self.packets += verdict.packets
        self.calls += verdict.calls
        self.slots += verdict.slots
        self.faults += verdict.faults
        self.marks.update(verdict.marks.keys())
        if verdict.failure:
            self.failures.append(verdict)

    @property
    def never(self) -> list[str]:
        """The interesting states that none of them has reached."""
        return never(self.marks)

    @property
    def missed(self) -> list[str]:
        """Those that so many worlds should have reached, and did not."""
        return missed(self.marks, self.worlds)


def judge(world: World) -> Verdict:
    """Run a world, and say what it has shown."""
    verdict = Verdict(world.seed, options=str(world.options))
    try:
        world.run()
    except Violated as error:
        verdict.promise, verdict.failure = error.promise, str(error)
    except AssertionError as error:
        verdict.promise, verdict.failure = "client", f"an assertion of the client failed: {error!r}"
    verdict.virtual_s = world.now_us / 1_000_000
    verdict.packets = world.network.packets
    verdict.calls = len(world.history.ops)
    verdict.slots = world.referee.state.applied_upto
    verdict.faults, verdict.marks = world.faults_seen, world.marks
    return verdict


def run_seed(
    seed: int,
    checkers: Sequence[type[Checker]] = ALL,
    mutant: str = "",
    changes: dict[str, Any] | None = None,
    trace: list[str] | None = None,
) -> Verdict:
    """Run the world of a seed, with a bug put in on purpose if a mutant is named; add its events to `trace`."""
    with MUTANTS[mutant].patched() if mutant else contextlib.nullcontext():
        if mutant:
            wide = {"wide": 1 + seed % 997 if MUTANTS[mutant].wide else 0}
            changes = wide | MUTANTS[mutant].changes | (changes or {})
        world = World(seed, checkers, trace=trace, changes=changes)
        if mutant:
            MUTANTS[mutant].prepare(world)
        return judge(world)


def run_seeds(
    seeds: Iterable[int],
    jobs: int = 1,
    mutant: str = "",
    changes: dict[str, Any] | None = None,
    run: Callable[..., Verdict] = run_seed,
) -> Iterator[Verdict]:
    """Run the worlds of these seeds, on several cores if there is more than one job."""
    if jobs > 1:
        with multiprocessing.get_context("fork").Pool(jobs) as pool:
            under_way: deque[AsyncResult[Verdict]] = deque()  # few: a pool's own `imap` takes all seeds at once
            for seed in seeds:
                under_way.append(pool.apply_async(run, (seed,), {"mutant": mutant, "changes": changes}))
                if len(under_way) >= 4 * jobs:
                    yield under_way.popleft().get()
            while under_way:
                yield under_way.popleft().get()
        return
    collecting = gc.isenabled()
    gc.collect()
    gc.freeze()  # what is there before the first world need not be looked through after each
    gc.disable()
    try:
        for count, seed in enumerate(seeds):
            yield run(seed, mutant=mutant, changes=changes)
            if count % COLLECT_EVERY == 0:
                gc.collect()
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()


def until(seconds: float, seeds: Iterable[int]) -> Iterator[int]:
    """Return seeds until the time is up."""
    end = time.monotonic() + seconds
    for seed in seeds:
        if time.monotonic() >= end:
            return
        yield seed
