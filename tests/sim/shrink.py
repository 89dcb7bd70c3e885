"""Makes a failing world smaller while it still fails in the same way: fewer faults, fewer clients, a shorter time.

Each change of an option changes everything that is drawn after it, so a smaller world is another world; what counts is
that it breaks the same promise. The result is a seed and the options that differ from what the seed draws.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .checkers.base import Checker
from .checkers.catalogue import ALL
from .options import Options
from .swarm import Verdict, run_seed

OFF = (
    "loss repeat slow replay damage repeat_client replay_client slow_commit crash_at_commit "
    "crash_at_install drift_ppm cut split cut_client kill stop stall stall_leader suspend slow_node rotate depose "
    "fail_disk slow_link stall_client suspend_client kill_client try_share detached_share cancel_share ticket_share "
    "close_share fault_every_ms"
).split()
"""Options that are off at 0."""

RUNS_MAX = 400


@dataclass(slots=True)
class Shrunk:
    """The smallest world found: `--seed` and `--set` reproduce it."""

    verdict: Verdict
    changes: dict[str, Any] = field(default_factory=dict)
    runs: int = 0

    @property
    def command(self) -> str:
        """Return the one line that reproduces it."""
        return command(self.verdict.seed, self.changes)


def command(seed: int, changes: dict[str, Any] | None = None, mutant: str = "") -> str:
    """Return the one line that reproduces a world."""
    line = f"lessor sim --seed {seed}"
    if mutant:
        line += f" --mutant {mutant}"
    if changes:
        line += " --set " + ",".join(f"{name}={_told(value)}" for name, value in changes.items())
    return f"{line} --trace"


def _told(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) and value else str(value)


def shrink(
    options: Options, failing: Verdict, checkers: Sequence[type[Checker]] = ALL, mutant: str = "", seeds: int = 3
) -> Shrunk:
    """Return a smaller world that breaks the same promise; each try may take a few other seeds."""
    best = Shrunk(failing)
    progress = True
    while progress and best.runs < RUNS_MAX:
        progress = False
        for change in _smaller(dataclasses.replace(options, **best.changes)):
            for seed in (best.verdict.seed, *range(failing.seed + 1, failing.seed + seeds)):
                best.runs += 1
                verdict = run_seed(seed, checkers, mutant, best.changes | change)
                if verdict.promise == failing.promise:
                    best = Shrunk(verdict, best.changes | change, best.runs)
                    progress = True
                    break
            if best.runs >= RUNS_MAX:
                break
    return best


def _smaller(options: Options) -> Iterator[dict[str, Any]]:
    """Return changes that each make a world simpler, the largest steps first."""
    if options.duration_ms > 200:
        yield {"duration_ms": options.duration_ms // 2}
        yield {"duration_ms": options.duration_ms * 4 // 5}
    for name in OFF:
        if getattr(options, name):
            yield {name: 0}
    if options.limits:
        yield {"limits": ()}
    for name, least in (("clients", 1), ("names", 1), ("nodes", 1)):
        if getattr(options, name) > least:
            yield {name: least}
            yield {name: getattr(options, name) - 1}
    if options.jitter_us:
        yield {"jitter_us": 0}
