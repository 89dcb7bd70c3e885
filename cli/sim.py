"""`lessor sim`: simulated worlds, each from one seed, in which all goes wrong that may, and every promise holds."""

import argparse
import importlib
import os
import secrets
import sys
import time
import types
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final

from ..core.errors import LessorError
from . import exit_codes
from .options import Commands, Parser, add_json, duration, positive, word
from .output import print_json, print_json_line, short
from .server import needs_server

SUMMARY = "Run the whole cluster and its clients in simulated worlds full of faults, and check every promise."
NOTES = """
Each world is drawn from one seed: the same seed is the same world, event by event. It ends with exit code 1, and the
one line that reproduces the world, as soon as a promise is broken. The simulator is part of the tests, so it runs from
a source checkout only.

--mutant alone looks from seed 1 on, in as many worlds as that bug is to be caught within. Worlds without a bug also end
with exit code 1 if they have not reached what is interesting: 100 or more what is common, 2000 or more all of it.
"""
EXAMPLES = """
lessor sim --worlds 2000 --jobs 2
lessor sim --for 10m
lessor sim --seed 4711 --trace                     one world, with everything that happens in it
lessor sim --shells --worlds 100                   the production actors, their codec and SQLite, without threads
lessor sim --mutant stragglers_applied             put a known bug in, and see it caught
lessor sim --mutant list
lessor sim --exhaustive                            small worlds without chance: every schedule, loss and crash
lessor sim --exhaustive --mutant no_phase_1        the shortest way to what a known bug breaks
"""

WORLDS: Final = 200
FIRST_SEED: Final = 1
"""Where the search for a known bug begins; tests/sim/test_mutants.py begins there, too."""

ROOT: Final = Path(__file__).resolve().parents[1]


class SourcesMissing(LessorError):
    """The simulator is not installed with the package."""


def register(commands: "Commands[Parser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "sim", help="prove it in simulated worlds", summary=SUMMARY, notes=NOTES, examples=EXAMPLES
    )
    parser.option("--worlds", metavar="N", read=positive, shown=str(WORLDS), help="how many")
    parser.option("--seed", metavar="N", read=int, shown="fresh seeds", help="the one world, or the first of --worlds")
    parser.option("--for", metavar="TIME", read=duration, help="go on for so long, instead of --worlds")
    parser.option("--jobs", metavar="N", read=positive, default=1, help="processes that share the work")
    parser.option("--mutant", metavar="NAME", read=word, help="put this known bug in; `list` names them all")
    parser.option(
        "--set", metavar="OPTIONS", read=word, help="options of the world other than the seed's: clients=1,loss=0"
    )
    parser.switch("--shells", help="run the production actors on real files, not the cores alone")
    parser.switch("--exhaustive", help="no chance: all that can happen in worlds that are small enough (minutes)")
    parser.option("--depth", metavar="N", read=positive, help="with --exhaustive: no way longer than N steps")
    parser.switch("--trace", help="print everything that happens in the one world")
    parser.switch("--shrink", help="look for a smaller world that fails in the same way")
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Run worlds, and print what they have shown."""
    mutants = _swarm(options).MUTANTS
    if options.mutant == "list":
        for mutant in mutants.values():
            print(f"{mutant.name:26} {mutant.checker.promise:4} in {mutant.worlds:4} worlds  {mutant.what}")
        return exit_codes.OK
    if options.mutant and options.mutant not in mutants:
        options.parser.error(f"there is no mutant {options.mutant!r}; `lessor sim --mutant list` names them")
    if options.shells and options.shrink:
        options.parser.error("--shrink looks for worlds of the cores alone: it does not go with --shells")
    if not __debug__:
        options.parser.error(
            "it does not run under `python -O` or PYTHONOPTIMIZE: assertions are part of what it checks"
        )
    if options.depth and not options.exhaustive:
        options.parser.error("--depth needs --exhaustive")
    if options.json and options.shrink:
        options.parser.error("--shrink tells in words what it finds: it does not go with --json")
    if options.exhaustive:
        for name in ("worlds", "seed", "for", "set", "shells", "trace", "shrink"):
            if vars(options)[name] not in (None, False):
                options.parser.error(f"--{name} does not go with --exhaustive, which leaves nothing to chance")
        return _run_exhaustive(options)
    single = options.seed is not None and options.worlds is None and vars(options)["for"] is None
    if options.trace and not single:
        options.parser.error("--trace needs --seed, and shows one world")
    if single:
        return _run_one(options)
    return _run_many(options)


def _load(name: str) -> Any:
    """Return a module of tests/sim, which is found only if this file is part of a checkout.

    Raises:
        SourcesMissing: it is not.
    """
    tests = ROOT / "tests"
    if not (tests / "sim" / "world.py").is_file():
        raise SourcesMissing(
            "the simulator is part of the tests and is not installed with the package: run `lessor sim` from a source "
            "checkout (pip install -e '.[server]')"
        )
    if "tests" not in sys.modules:
        package = types.ModuleType("tests")
        package.__path__ = [str(tests)]
        sys.modules["tests"] = package
    return importlib.import_module(f"tests.sim.{name}")


def _swarm(options: argparse.Namespace) -> Any:
    with needs_server("lessor sim"):
        return _load("shells_swarm" if options.shells else "swarm")


def _command(options: argparse.Namespace) -> Any:
    return _load("shells_swarm" if options.shells else "shrink").command


def _run_one(options: argparse.Namespace) -> int:
    swarm, command = _swarm(options), _command(options)
    changes = _changes(options)
    lines: list[str] = []
    verdict = swarm.run_seed(options.seed, swarm.ALL, options.mutant or "", changes, lines if options.trace else None)
    figures = swarm.Figures()
    figures.add(verdict)
    if options.json:
        print_json(_as_json(figures, 0.0) | {"options": verdict.options, "trace": lines})
        return exit_codes.FAILED if verdict.failure else exit_codes.OK
    print(f"world {options.seed}: {verdict.options}")
    for line in lines:
        print(line)
    if verdict.failure:
        print(f"FAILED  {verdict.failure}\nreproduce: {command(options.seed, changes, options.mutant or '')}")
        if options.shrink:
            _shrink(verdict, options.mutant or "")
        return exit_codes.FAILED
    print(_figures(figures, 0.0))
    return exit_codes.OK


def _run_many(options: argparse.Namespace) -> int:
    swarm, command = _swarm(options), _command(options)
    changes = _changes(options)
    seconds: float | None = vars(options)["for"]
    first, enough = secrets.randbelow(1_000_000_000), WORLDS
    if options.mutant and not options.worlds and not seconds:
        first, enough = FIRST_SEED, swarm.MUTANTS[options.mutant].worlds
    first = first if options.seed is None else options.seed
    worlds = options.worlds or (None if seconds else enough)
    seeds: Iterable[int] = range(first, first + worlds) if worlds else count(first)
    if seconds:
        seeds = swarm.until(seconds, seeds)
    if not options.json:
        print(f"worlds from seed {first} on", flush=True)
    figures = swarm.Figures()
    began = time.monotonic()
    shown = 0.0
    for verdict in swarm.run_seeds(seeds, options.jobs, options.mutant or "", changes):
        figures.add(verdict)
        if verdict.failure:
            break
        now = time.monotonic()
        if now - shown > 0.2 and sys.stderr.isatty() and not options.json:
            shown = now
            _show_progress(figures.worlds, worlds, now - began, seconds)
    took = time.monotonic() - began
    if sys.stderr.isatty() and not options.json:
        print("\r\x1b[K", end="", file=sys.stderr)
    missed = [] if options.mutant or changes or figures.failures else figures.missed
    failed = bool(figures.failures or missed)
    if options.json:
        print_json(_as_json(figures, took))
        return exit_codes.FAILED if failed else exit_codes.OK
    print(_figures(figures, took))
    for verdict in figures.failures:
        print(f"FAILED  {verdict.failure}\nreproduce: {command(verdict.seed, changes, options.mutant or '')}")
        if options.shrink:
            _shrink(verdict, options.mutant or "")
    if options.mutant and not figures.failures:
        print(f"{options.mutant} was not caught")
    if missed:
        print(f"FAILED  never reached: {'; '.join(missed)}")
    return exit_codes.FAILED if failed else exit_codes.OK


def _run_exhaustive(options: argparse.Namespace) -> int:
    exhaustive = _load("exhaustive")
    if options.mutant and not exhaustive.shows(options.mutant):
        options.parser.error(f"no small world shows the mutant {options.mutant!r}")
    failed = False
    for report in exhaustive.explore_all(options.depth, options.mutant or ""):
        failed = failed or bool(report.problem)
        if options.json:
            print_json_line(report.as_json())
        else:
            print(report, flush=True)
    return exit_codes.FAILED if failed else exit_codes.OK


def _shrink(verdict: Any, mutant: str) -> None:
    shrink = _load("shrink")
    found = shrink.shrink(_load("options").Options.draw(Random(verdict.seed)), verdict, mutant=mutant)  # noqa: S311
    print(f"smaller, after {found.runs} runs: {found.verdict.failure}")
    print(f"reproduce: {shrink.command(found.verdict.seed, found.changes, mutant)}")


def _changes(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        found = _load("options").parse(options.set or "")
    except ValueError as error:
        options.parser.error(f"argument --set: {error}")
    return found


def _show_progress(done: int, worlds: int | None, took: float, seconds: float | None) -> None:
    share = done / worlds if worlds else took / (seconds or 1)
    width = max(10, min(40, os.get_terminal_size(sys.stderr.fileno()).columns - 45))
    filled = int(width * min(share, 1))
    bar = "#" * filled + "-" * (width - filled)
    print(f"\r[{bar}] {done} worlds, {done / max(took, 0.001):.1f}/s, {short(took)}\x1b[K", end="", file=sys.stderr)


def _figures(figures: Any, took: float) -> str:
    rate = f", {figures.worlds / took:.1f} worlds/s" if took else ""
    marks = len(_load("sometimes").EVERY)
    return (
        f"{figures.worlds} worlds, {figures.virtual_s / 3600:.2f} virtual hours, {figures.packets} packets, "
        f"{figures.slots} slots, {figures.calls} calls, {sum(figures.faults.values())} faults, "
        f"{marks - len(figures.never)} of {marks} interesting states reached; {len(figures.failures)} failed{rate}"
    )


def _as_json(figures: Any, took: float) -> dict[str, Any]:
    return {
        "worlds": figures.worlds,
        "seconds": round(took, 3),
        "virtual_hours": round(figures.virtual_s / 3600, 4),
        "packets": figures.packets,
        "slots": figures.slots,
        "calls": figures.calls,
        "faults": dict(sorted(figures.faults.items())),
        "sometimes": dict(sorted(figures.marks.items())),
        "never": figures.never,
        "failures": [{"seed": each.seed, "promise": each.promise, "what": each.failure} for each in figures.failures],
    }
