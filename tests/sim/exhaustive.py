"""Exhaustive exploration of small worlds: every order of delivery, every loss and crash, over the production cores.

A world is three nodes, each with the proposer, acceptor and learner of `lessor.core` in a shell that does what
actors/shell.py does: step, commit, send. Within the budgets of a world (elections, crashes, timers, submissions, slots)
the explorer visits each state that any schedule can reach, breadth first, so that the first broken promise comes with
a shortest trace.

What makes the search small enough, and why nothing is lost by it:
- The network only grows. A message that was sent can be delivered at any later time, any number of times, or never;
  that is every delay, order, repetition and loss. What a node tells itself is neither lost nor repeated, in the order
  of telling, and dies with the node.
- Nobody looks at a clock. A timer fires when the explorer says so. Only differences of times enter a decision, so
  after each firing the clock of that core is set back to 0.
- Pre-votes are granted at will: more elections than peers would allow. No promise rests on a refused pre-vote.
- What one event sets off within a node is one step, unless the roles are explored apart; a crash may cut it off at its
  first commit, before it or between it and the sends.
- A node that is down cannot be told from one that is up and is not scheduled: a crash is followed at once by a restart.
- The cores are deterministic, so each (core, message) is stepped once and remembered.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import pairwise
from typing import Any
from unittest import mock

from lessor.core import limits
from lessor.core.ballot import Ballot, quorum
from lessor.core.encoding import decode
from lessor.core.messages import Vote

from .mutants import MUTANTS
from .small_nodes import AFTER, BEFORE, CRASHES, MEMBERS, ROLES, Bounds, Label, Nodes, NodeState, Outcome, less

State = tuple[tuple[int, int, int], int, tuple[int, ...]]
"""The nodes, the facts (a bit for each message sent and each vote written), and what is left of the budgets."""


@dataclass(slots=True)
class Report:
    """What an exploration has come to."""

    bounds: Bounds
    states: int = 0
    transitions: int = 0
    depth: int = 0
    core_states: int = 0
    core_steps: int = 0
    seconds: float = 0.0  # of this process on its core, whatever else the machine does
    whole: bool = True  # every reachable state was visited, none cut off
    chosen: int = 0  # states in which some slot is chosen
    messages: tuple[str, ...] = ()  # the kinds that nodes sent each other
    problem: str = ""
    trace: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return it in a line, and a broken promise with its trace."""
        reached = "all reachable" if self.whole else "cut off"
        line = (
            f"{self.bounds}: {self.states} states ({reached}), {self.transitions} transitions, depth {self.depth}, "
            f"{self.core_states} core states, {self.core_steps} core steps, {self.seconds:.1f} s of CPU"
        )
        if not self.problem:
            return line
        steps = [f"  {number:2}. {step}" for number, step in enumerate(self.trace, 1)]
        return "\n".join([line, *steps, f"  => {self.problem}"])

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        named = {each.name: getattr(self, each.name) for each in fields(self)}
        return named | {"bounds": str(self.bounds), "seconds": round(self.seconds, 3)}


class Explorer:
    """Explores one world."""

    def __init__(self, bounds: Bounds, *, check_disk: bool = True, speaks_early: bool = False) -> None:
        """Without `check_disk` only agreement is looked at; a shell that `speaks_early` sends before it commits."""
        self.bounds = bounds
        self.nodes = Nodes(bounds, check_disk=check_disk, speaks_early=speaks_early)
        self._chosen: dict[int, dict[int, bytes]] = {0: {}}  # by the votes that were written

    def explore(self) -> Report:
        """Visit every state, shortest ways first, until a promise breaks or none is left."""
        began = time.process_time()
        bounds = self.bounds
        report = Report(bounds)
        budgets = (bounds.elections, bounds.crashes, bounds.timers, bounds.submits)
        first, second, third = map(self.nodes.start, MEMBERS)
        start: State = ((first, second, third), 0, budgets)
        came_from: dict[State, State | None] = {start: None}
        level = [start]
        while level and not report.problem:
            if bounds.depth is not None and report.depth >= bounds.depth:
                report.whole = False
                break
            level = self._next_level(level, came_from, report)
            report.depth += bool(level)
        report.states = len(came_from)
        report.core_states, report.core_steps = len(self.nodes.cores.specimens), len(self.nodes.steps)
        report.chosen = sum(bool(self._chosen[facts & self.nodes.votes]) for _, facts, _ in came_from)
        sent = {type(message).__name__: None for _, message in self.nodes.facts.specimens if type(message) is not Vote}
        report.messages = tuple(sorted(sent))
        report.seconds = time.process_time() - began
        return report

    def _next_level(self, level: list[State], came_from: dict[State, State | None], report: Report) -> list[State]:
        following = []
        for state in level:
            for _, after, problem in self._successors(state):
                report.transitions += 1
                if problem:
                    report.problem, report.whole = problem, False
                    report.trace = self._trace(came_from, state, problem)
                    return []
                if after not in came_from:
                    came_from[after] = state
                    following.append(after)
        return following

    def _successors(self, state: State) -> Iterator[tuple[Label, State, str]]:
        """Yield what can happen next: at which node what, where it leads, and what it breaks."""
        nodes, facts, left = state
        small = self.nodes
        for place, node in enumerate(nodes):
            heard = small.heard[node]
            waiting = facts & small.addressed[place + 1] & ~small.deaf[node]
            while waiting:
                bit = waiting & -waiting
                waiting ^= bit
                fact = bit.bit_length() - 1
                outcome = heard.get(fact) or small.hear(node, fact)
                if outcome.node == node and not (outcome.facts & ~facts or outcome.claims or outcome.problem):
                    continue
                yield self._after(state, place, ("gets", fact), outcome, left)
                if outcome.wrote and left[CRASHES]:
                    for label in (("gets", fact, BEFORE), ("gets", fact, AFTER)):
                        yield self._after(state, place, label, small.outcome(node, label), less(left, CRASHES))
            for label, after in small.choices(node, left):
                yield self._after(state, place, label, small.outcome(node, label), after)

    def _after(
        self, state: State, place: int, label: Label, outcome: Outcome, left: tuple[int, ...]
    ) -> tuple[Label, State, str]:
        nodes, facts, _ = state
        problem = outcome.problem
        new = outcome.facts & ~facts
        if not problem and (outcome.claims or new & self.nodes.votes):
            problem = self._referee((facts | new) & self.nodes.votes, outcome.claims)
        first, second, third = nodes
        if place == 0:
            after = outcome.node, second, third
        elif place == 1:
            after = first, outcome.node, third
        else:
            after = first, second, outcome.node
        return (place + 1, label), (after, facts | new, left), problem

    # --- what must hold ----------------------------------------------------------------------------------------------

    def _referee(self, votes: int, claims: tuple[Vote, ...]) -> str:
        """P1: one value at most is chosen in a slot, ever; nobody takes anything else for chosen."""
        chosen = self._chosen.get(votes)
        if chosen is None:
            chosen = {}
            for (slot, ballot), voters in sorted(self._voters(votes).items()):
                for entry, count in voters.items():
                    if len(voters) > 1:
                        return f"P1: two values were accepted in slot {slot} under {ballot}"
                    if count >= quorum(len(MEMBERS)) and chosen.setdefault(slot, entry) != entry:
                        return (
                            f"P1: a second value is chosen in slot {slot}: {_shown(chosen[slot])} and {_shown(entry)}"
                        )
            self._chosen[votes] = chosen
        for claim in claims:
            if chosen.get(claim.slot) != claim.entry:
                return f"P1: {_shown(claim.entry)} is taken for chosen in slot {claim.slot}, and is not"
        return ""

    def _voters(self, votes: int) -> dict[tuple[int, Ballot], dict[bytes, int]]:
        found: dict[tuple[int, Ballot], dict[bytes, int]] = {}
        while votes:
            bit = votes & -votes
            votes ^= bit
            _, vote = self.nodes.facts.specimens[bit.bit_length() - 1]
            entries = found.setdefault((vote.slot, vote.ballot), {})
            entries[vote.entry] = entries.get(vote.entry, 0) + 1
        return found

    # --- telling -----------------------------------------------------------------------------------------------------

    def _trace(self, came_from: dict[State, State | None], last: State, problem: str) -> list[str]:
        way = [last]
        while (before := came_from[way[-1]]) is not None:
            way.append(before)
        way.reverse()
        labels = [
            next(label for label, after, _ in self._successors(state) if after == following)
            for state, following in pairwise(way)
        ]
        labels.append(next(label for label, _, found in self._successors(last) if found == problem))
        return [self._told(state, label) for state, label in zip(way, labels, strict=True)]

    def _told(self, state: State, label: Label) -> str:
        number, (*rest,) = label
        node: NodeState = self.nodes.states.specimens[state[0][number - 1]]
        death = f"; it {rest[-1]}" if rest[-1] in (BEFORE, AFTER) else ""
        match rest:
            case ["gets", fact, *_]:
                to, message = self.nodes.facts.specimens[fact]
                return f"node {number}, {to.role.name.lower()}: {_shown(message)}{death}"
            case ["takes", role, *_]:
                message = node.told[ROLES.index(role)][0]
                return f"node {number}, {role.name.lower()}, from within: {_shown(message)}{death}"
            case ["stands", *_]:
                return f"node {number} hears nobody, and stands{death}"
            case ["is asked", command, *_]:
                return f"node {number} is asked to have command {command} chosen{death}"
            case ["fires", role]:
                return f"node {number}: the timer of its {role.name.lower()} fires"
            case _:
                return f"node {number} crashes, and starts again from its disk"


def _shown(value: Any) -> str:
    match value:
        case Ballot():
            return str(value)
        case bytes():
            return _shown(decode(value))
        case tuple():
            return "(" + ", ".join(map(_shown, value)) + ")"
        case _ if is_dataclass(value) and not isinstance(value, type):
            shown = ", ".join(f"{each.name}={_shown(getattr(value, each.name))}" for each in fields(value))
            return f"{type(value).__name__}({shown})"
        case _:
            return repr(value)


@contextmanager
def _quietly() -> Iterator[None]:
    """Have learners tell their figures for operators at once, so that no timer is spent on them; collect no garbage."""
    collected = gc.isenabled()
    gc.disable()
    try:
        with mock.patch.object(limits, "SUMMARY_EVERY_MS", 0):
            yield
    finally:
        if collected:
            gc.enable()


def explore(bounds: Bounds, *, check_disk: bool = True, speaks_early: bool = False) -> Report:
    """Explore one world."""
    with _quietly():
        return Explorer(bounds, check_disk=check_disk, speaks_early=speaks_early).explore()


# --- the worlds ------------------------------------------------------------------------------------------------------

BARE = Bounds(learners=False)
RESTARTED = Bounds(slots=2, submits=1, crashes=1, proposers=(1,), depth=9)
"""One proposer, who may die with a command half sent, stand again, and have something else for that slot."""

QUICK = (
    Bounds(),
    Bounds(crashes=1, learners=False),
    Bounds(split=True, learners=False),
    Bounds(slots=2, submits=1, learners=False, depth=12),
    RESTARTED,
    Bounds(elections=1, timers=3, heartbeats=True),
)
"""Explored with every run of the tests: half a million states in ten seconds."""

DEEP = (
    Bounds(heartbeats=True),
    Bounds(crashes=1),
    Bounds(crashes=2, learners=False),
    Bounds(slots=2, submits=1, learners=False),
    Bounds(slots=2, submits=1, crashes=1, depth=13),
    Bounds(elections=3, learners=False, depth=15),
    Bounds(split=True, depth=18),
    Bounds(timers=3, heartbeats=True, depth=14),
)
"""Explored by `lessor sim --exhaustive`: seventeen million states in five minutes of one core."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A known bug, a world that is large enough for it, and how short its trace is."""

    mutant: str
    promise: str
    steps: int
    bounds: Bounds = BARE
    check_disk: bool = True  # else the bug must be found by what comes of it
    speaks_early: bool = False

    def explore(self) -> Report:
        """Put the bug in, and explore."""
        with MUTANTS[self.mutant].patched():
            return explore(self.bounds, check_disk=self.check_disk, speaks_early=self.speaks_early)


SHOWN = (
    Shown("reply_before_commit", "P2", 1, speaks_early=True),
    Shown("promise_not_persisted", "P2", 1),
    Shown("promise_not_persisted", "P1", 8, Bounds(crashes=1, learners=False), check_disk=False),
    Shown("no_phase_1", "P2", 1),
    Shown("no_phase_1", "P1", 4, check_disk=False),
    Shown("lowest_ballot_adopted", "P1", 11, Bounds(elections=3, learners=False)),
    Shown("only_own_votes_adopted", "P1", 8),
    Shown("quorum_off_by_one", "P1", 4),
    Shown("accept_below_promise", "P1", 8, check_disk=False),
    Shown("watermark_without_ballot", "P1", 10, Bounds(timers=1, heartbeats=True)),
)
"""The bugs of tests/sim/mutants.py that concern agreement between nodes, as far as a small world can show them."""


def shows(mutant: str) -> bool:
    """Return whether a small world shows this bug."""
    return any(shown.mutant == mutant for shown in SHOWN)


def explore_all(depth: int | None = None, mutant: str = "") -> Iterator[Report]:
    """Explore the deep worlds, or those that show a known bug."""
    if mutant:
        yield from (shown.explore() for shown in SHOWN if shown.mutant == mutant)
    else:
        yield from (explore(replace(bounds, depth=depth or bounds.depth)) for bounds in DEEP)
