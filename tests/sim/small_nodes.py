"""The nodes of a small world: the production cores, frozen and numbered, so that each step is computed only once."""

import copy
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from lessor.core.acceptor import Acceptor
from lessor.core.ballot import NO_BALLOT
from lessor.core.commands import Command, Ping
from lessor.core.effects import Address, Effects, Role, Send
from lessor.core.encoding import encode
from lessor.core.learner import Learner
from lessor.core.lease_state import LeaseState
from lessor.core.messages import (
    Accept,
    Chosen,
    Fetched,
    Heartbeat,
    HeartbeatAnswer,
    Leadership,
    Prepare,
    PreVote,
    PreVoteAnswer,
    Submit,
    Tick,
    Vote,
    WriteVote,
)
from lessor.core.proposer import Proposer, Stage

from ..support.consensus import Disk, WatchedLearner, check_durable

MEMBERS: Final = (1, 2, 3)
ROLES: Final = (Role.PROPOSER, Role.ACCEPTOR, Role.LEARNER)
UNHEARD: Final = (PreVote, HeartbeatAnswer, Leadership)
"""What is not delivered: granted at will, heard for liveness alone, and told for the answers to clients alone."""

PATIENCE: Final = 100
"""More timers than fire until a leader that hears nobody has given up and stands again; a lone one never does."""

Label = tuple[Any, ...]
"""What happens at a node: a verb, what with, and perhaps that the node dies of it."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How small a world is. Within these bounds everything that can happen is explored, unless `depth` cuts it off."""

    slots: int = 1  # whatever is proposed beyond is lost
    elections: int = 2
    crashes: int = 0
    timers: int = 0  # a leader's heartbeat and repetition, a learner's save and catch-up
    submits: int = 0
    heartbeats: bool = False  # else lost
    learners: bool = True
    split: bool = False  # between two roles of one node, too, anything may happen; else a node's roles act as one
    depth: int | None = None
    proposers: tuple[int, ...] = (1, 2)

    def __str__(self) -> str:
        """Return the world in words."""
        counted = (
            (self.slots, "slot"),
            (self.elections, "election"),
            (self.crashes, "crash"),
            (self.timers, "timer"),
            (self.submits, "command"),
        )
        words = [
            f"{count} {what}{('es' if what == 'crash' else 's') * (count > 1)}" for count, what in counted if count
        ]
        words += ["heartbeats"] * self.heartbeats + ["no learners"] * (not self.learners)
        words += ["roles apart"] * self.split + [f"to depth {self.depth}"] * (self.depth is not None)
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Stand:
    """To a proposer: time passes and nobody is heard, until it stands; and whom it asks, grants it the pre-vote."""


@dataclass(frozen=True, slots=True)
class Fire:
    """To a proposer or a learner: time passes until its next timer is due."""


# --- keys ------------------------------------------------------------------------------------------------------------

COUNTED = frozenset({"batches", "batched_commands"})  # figures for operators: no decision looks at them


def freeze(value: Any) -> Hashable:
    """Return what stands for a value in the key of a state: equal keys, equal behaviour.

    The order of a dict is left out: no core decides by it beyond the order of its sends, and the network has none.
    """
    match value:
        case dict():
            return frozenset((key, freeze(item)) for key, item in value.items())
        case list() | tuple() | deque():
            return tuple(freeze(item) for item in value)
        case bytearray():
            return bytes(value)
        case LeaseState():
            return value.snapshot()
        case _:
            assert isinstance(value, Hashable)
            return value


def freeze_core(core: Proposer | Acceptor | Learner) -> Hashable:
    """Return a core's own fields as a key."""
    return type(core), tuple(freeze(item) for name, item in vars(core).items() if name not in COUNTED)


def set_back(core: Proposer | Acceptor | Learner) -> None:
    """Set a core's clock back to 0, and with it every time that it remembers."""
    own = vars(core)
    now_ms = own["now_ms"] if isinstance(core, Proposer) else own["_now_ms"]
    for name, item in own.items():
        if name.endswith("at_ms") and isinstance(item, dict):
            own[name] = {key: at - now_ms for key, at in item.items()}
        elif name.endswith(("now_ms", "at_ms", "since_ms")) and item is not None:
            own[name] = item - now_ms
    if isinstance(core, Proposer):
        core._in_flight = {
            slot: (entry, first - now_ms, last - now_ms) for slot, (entry, first, last) in core._in_flight.items()
        }


# --- what the explorer remembers -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """What one core does with one message: its next state, its wishes, and what it takes for chosen."""

    core: int
    writes: tuple[Any, ...]
    sends: tuple[Send, ...]
    claims: tuple[Vote, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node: numbers that stand for its disk and its cores, and what its roles have told each other."""

    disk: int
    cores: tuple[int, int, int]
    told: tuple[tuple[Any, ...], ...] = ((), (), ())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one event does to a node, and through it to the world."""

    node: int
    facts: int  # messages sent, votes written
    claims: tuple[Vote, ...]
    wrote: bool
    problem: str


class Numbers:
    """Gives equal keys the same number, and keeps one specimen for each."""

    def __init__(self) -> None:
        self.by_key: dict[Hashable, int] = {}
        self.specimens: list[Any] = []

    def number(self, key: Hashable, specimen: Any) -> int:
        """Return the number of `key`."""
        found = self.by_key.setdefault(key, len(self.specimens))
        if found == len(self.specimens):
            self.specimens.append(specimen)
        return found


ELECTIONS, CRASHES, TIMERS, SUBMITS = range(4)
BEFORE, AFTER = "dies before the commit", "dies between commit and send"


def less(left: tuple[int, ...], which: int) -> tuple[int, ...]:
    """Take one from a budget."""
    return (*left[:which], left[which] - 1, *left[which + 1 :])


# --- all nodes -------------------------------------------------------------------------------------------------------


class Nodes:
    """What can happen at a node of a small world, by the numbers of its states."""

    def __init__(self, bounds: Bounds, *, check_disk: bool, speaks_early: bool) -> None:
        """Begin with no state known."""
        self.bounds = bounds
        self.check_disk = check_disk
        self.speaks_early = speaks_early
        self.cores = Numbers()
        self.steps: dict[tuple[int, Any], Step] = {}
        self.disks = Numbers()
        self.states = Numbers()
        self.facts = Numbers()
        self.addressed = dict.fromkeys(MEMBERS, 0)  # the facts that are messages to a node
        self.votes = 0  # the facts that are votes
        self.heard: list[dict[int, Outcome]] = []  # by node state: what comes of each message
        self.deaf: list[int] = []  # by node state: the messages of which nothing comes
        self._outcomes: dict[Label, Outcome] = {}
        self._choices: dict[tuple[int, tuple[int, ...]], list[tuple[Label, tuple[int, ...]]]] = {}

    # --- one event at one node ---------------------------------------------------------------------------------------

    def start(self, number: int) -> int:
        """Return the node that begins with an empty disk."""
        return self._restart(number, self._disk_number(Disk()), [])[0]

    def outcome(self, node: int, label: Label) -> Outcome:
        """Return what comes of this at that node."""
        found = self._outcomes.get((node, *label))
        if found is None:
            found = self._outcomes[node, *label] = self._happen(node, label)
        return found

    def hear(self, node: int, fact: int) -> Outcome:
        """Return what comes of a message at that node, for the first time; later it is found in `heard`."""
        found = self.heard[node][fact] = self._happen(node, ("gets", fact))
        if found == Outcome(node, 0, (), wrote=False, problem=""):
            self.deaf[node] |= 1 << fact
        return found

    def choices(self, node: int, left: tuple[int, ...]) -> list[tuple[Label, tuple[int, ...]]]:
        """Return what a node can do without a message from another, and what is left of the budgets then."""
        found = self._choices.get((node, left))
        if found is None:
            found = self._choices[node, left] = list(self._choose(node, left))
        return found

    def _choose(self, node: int, left: tuple[int, ...]) -> Iterator[tuple[Label, tuple[int, ...]]]:
        state: NodeState = self.states.specimens[node]
        proposer: Proposer = self.cores.specimens[state.cores[0]]
        learner: Learner = self.cores.specimens[state.cores[2]]
        for role, told in zip(ROLES, state.told, strict=True):
            if told:
                yield ("takes", role), left
                if left[CRASHES] and role is Role.ACCEPTOR:
                    yield ("takes", role, AFTER), less(left, CRASHES)
        if left[CRASHES]:
            yield ("crashes",), less(left, CRASHES)
        if left[ELECTIONS] and proposer.node in self.bounds.proposers:
            yield ("stands",), less(left, ELECTIONS)
            if left[CRASHES] and not self.bounds.split:
                yield ("stands", BEFORE), less(less(left, ELECTIONS), CRASHES)
                yield ("stands", AFTER), less(less(left, ELECTIONS), CRASHES)
        if left[SUBMITS] and proposer.stage is Stage.LEADER:
            yield ("is asked", left[SUBMITS]), less(left, SUBMITS)
            if left[CRASHES] and not self.bounds.split:
                yield ("is asked", left[SUBMITS], BEFORE), less(less(left, SUBMITS), CRASHES)
                yield ("is asked", left[SUBMITS], AFTER), less(less(left, SUBMITS), CRASHES)
        if left[TIMERS]:
            if proposer.stage is Stage.LEADER:
                yield ("fires", Role.PROPOSER), less(left, TIMERS)
            if learner.wake_at_ms is not None:
                yield ("fires", Role.LEARNER), less(left, TIMERS)

    def _happen(self, node: int, label: Label) -> Outcome:
        state: NodeState = self.states.specimens[node]
        dies = label[-1] if label[-1] in (BEFORE, AFTER) else ""
        match label:
            case ("gets", fact, *_):
                to, message = self.facts.specimens[fact]
                return self._run(node, to.role, message, dies=dies)
            case ("takes", role, *_):
                index = ROLES.index(role)
                message, *rest = state.told[index]
                told = (*state.told[:index], tuple(rest), *state.told[index + 1 :])
                without = self._node_number(replace(state, told=told))
                return self._run(without, role, message, dies=dies)
            case ("stands", *_):
                return self._run(node, Role.PROPOSER, Stand(), dies=dies)
            case ("is asked", number, *_):
                proposer = self.cores.specimens[state.cores[0]]
                command = encode(Command(number, 0, number, 0, Ping(())))
                return self._run(node, Role.PROPOSER, Submit(proposer.ballot, (command,)), dies=dies)
            case ("fires", role):
                return self._run(node, role, Fire())
            case _:
                claims: list[Vote] = []
                number = self.cores.specimens[state.cores[0]].node
                return Outcome(*self._restart(number, state.disk, claims), tuple(claims), False, "")

    def _restart(self, number: int, disk_number: int, claims: list[Vote]) -> tuple[int, int]:
        """Return the node that starts from a disk, and what it has said by then."""
        disk: Disk = self.disks.specimens[disk_number]
        learner = WatchedLearner(number, MEMBERS, disk.lease_state())
        acceptor = disk.acceptor(number, MEMBERS, learner.applied_upto)
        proposer = Proposer(number, MEMBERS, acceptor.promised, learner.applied_upto)
        cores: list[Any] = [proposer, acceptor, learner]
        for core in cores:
            core.step(Tick(0, 0.0))
        first, second, third = (self.cores.number(freeze_core(core), core) for core in cores)
        node = self._node_number(NodeState(disk_number, (first, second, third)))
        said = 0
        for send in acceptor.recover().sends:
            if self.bounds.split:
                node = self._tell(node, send)
            else:
                outcome = self._run(node, Role.LEARNER, send.message)
                node, said = outcome.node, said | outcome.facts
                claims += outcome.claims
        return node, said

    def _tell(self, node: int, send: Send) -> int:
        state: NodeState = self.states.specimens[node]
        assert isinstance(send.to, Address)
        index = ROLES.index(send.to.role)
        told = (*state.told[:index], (*state.told[index], send.message), *state.told[index + 1 :])
        return self._node_number(replace(state, told=told))

    def _run(self, node: int, role: Role, message: Any, *, dies: str = "") -> Outcome:
        """Hand a message to a role, and what follows within the node to the others; or die at the first commit."""
        state: NodeState = self.states.specimens[node]
        number = self.cores.specimens[state.cores[0]].node
        disk, cores, inboxes = state.disk, list(state.cores), [list(told) for told in state.told]
        todo = deque([(role, message)])
        claims: list[Vote] = []
        facts, wrote, problem = 0, False, ""
        while todo and not problem:
            role, message = todo.popleft()
            index = ROLES.index(role)
            step = self._step(cores[index], message)
            cores[index] = step.core
            problem = step.problem
            claims += step.claims
            if dies == BEFORE and step.writes and role is Role.ACCEPTOR:
                last, facts_after = self._restart(number, disk, claims)
                return Outcome(last, facts | facts_after, tuple(claims), True, problem)
            spoken_over = disk
            if step.writes:
                wrote = wrote or role is Role.ACCEPTOR
                disk = self._commit(disk, step.writes, cores[2])
                if isinstance(message, Accept):
                    facts |= self._written(number, step.writes)
                spoken_over = spoken_over if self.speaks_early else disk
            said = 0
            for send in step.sends:
                said |= self._send(number, send, todo, inboxes)
            if self.check_disk and not problem:
                problem = self._check(number, self.cores.specimens[step.core], spoken_over, step.sends)
            if dies == AFTER and step.writes and role is Role.ACCEPTOR:
                last, facts_after = self._restart(number, disk, claims)
                return Outcome(last, facts | facts_after, tuple(claims), True, problem)
            facts |= said
        after = NodeState(disk, (cores[0], cores[1], cores[2]), tuple(tuple(told) for told in inboxes))
        return Outcome(self._node_number(after), facts, tuple(claims), wrote, problem)

    def _send(self, number: int, send: Send, todo: deque[Any], inboxes: list[list[Any]]) -> int:
        """Put a message where it belongs; return the fact that it makes, if it leaves the node."""
        to, message = send.to, send.message
        if not isinstance(to, Address) or to.role not in ROLES or isinstance(message, UNHEARD):
            return 0
        if isinstance(message, Accept) and message.slot > self.bounds.slots:
            return 0
        if to.role is Role.PROPOSER and to.node not in self.bounds.proposers:
            return 0
        if isinstance(message, Heartbeat) and not self.bounds.heartbeats:
            return 0
        if to.role is Role.LEARNER and not self.bounds.learners:
            return 0
        if to.node != number:
            fact = 1 << self.facts.number((to, message), (to, message))
            self.addressed[to.node] |= fact
            return fact
        if self.bounds.split:
            inboxes[ROLES.index(to.role)].append(message)
        else:
            todo.append((to.role, message))
        return 0

    def _written(self, number: int, writes: tuple[Any, ...]) -> int:
        facts = 0
        for row in writes:
            if isinstance(row, WriteVote):
                facts |= 1 << self.facts.number((number, row.vote), (number, row.vote))
        self.votes |= facts
        return facts

    def _commit(self, disk: int, writes: tuple[Any, ...], learner: int) -> int:
        after = copy.deepcopy(self.disks.specimens[disk])
        after.commit(writes, self.cores.specimens[learner].state)
        return self._disk_number(after)

    def _disk_number(self, disk: Disk) -> int:
        key = tuple(freeze(getattr(disk, each.name)) for each in fields(Disk))
        return self.disks.number(key, disk)

    def _node_number(self, node: NodeState) -> int:
        found = self.states.number(node, node)
        if found == len(self.deaf):
            self.deaf.append(0)
            self.heard.append({})
        return found

    # --- one core and one message ------------------------------------------------------------------------------------

    def _step(self, core: int, message: Any) -> Step:
        found = self.steps.get((core, message))
        if found is None:
            found = self.steps[core, message] = self._take(core, message)
        return found

    def _take(self, number: int, message: Any) -> Step:
        core = copy.deepcopy(self.cores.specimens[number])
        claims: list[Vote] = []
        if isinstance(core, WatchedLearner):
            core.watch = claims.append
        try:
            effects = _stepped(core, message)
        except Exception as error:  # noqa: BLE001 - whatever it is, a real node ends
            return Step(number, (), (), (), f"a node stopped itself: {type(error).__name__}: {error}")
        if isinstance(core, WatchedLearner):
            del core.watch
        for send in effects.sends:
            match send.message:
                case Fetched(_, votes, _):
                    claims += votes
                case Chosen(vote):
                    claims.append(vote)
        after = self.cores.number(freeze_core(core), core)
        return Step(after, tuple(effects.writes), tuple(effects.sends), tuple(claims))

    def _check(self, number: int, core: Any, disk_number: int, sends: tuple[Send, ...]) -> str:
        """P2: what is said was written, and a restart would come back as what is running."""
        disk: Disk = self.disks.specimens[disk_number]
        if isinstance(core, Acceptor):
            try:
                check_durable(core, disk, sends)
            except (AssertionError, KeyError) as error:
                return f"P2: acceptor {number}: {str(error).splitlines()[0]}"
        for send in sends:
            ballot = send.message.ballot if isinstance(send.message, Prepare | Accept) else NO_BALLOT
            if disk.promised < ballot and send.to != Address(number, Role.ACCEPTOR):
                return f"P2: proposer {number} uses ballot {ballot}, which its own disk does not know"
        return ""


def _stepped(core: Any, message: Any) -> Effects:
    """Step as a shell does: the message, then a tick."""
    effects = Effects()

    def step(each: Any) -> None:
        done = core.step(each)
        effects.writes.extend(done.writes)
        effects.sends.extend(done.sends)

    match message:
        case Stand():
            before = core.ballot
            for _ in range(PATIENCE):
                if core.stage in (Stage.ASKING, Stage.PREPARING) and core.ballot != before:
                    break
                step(Tick(core.wake_at_ms, 0.0))
            for peer in core.peers:
                if core.stage is Stage.ASKING:
                    step(PreVoteAnswer(core.ballot, peer, True, NO_BALLOT))
            step(Tick(core.now_ms, 0.0))
            set_back(core)
        case Fire():
            step(Tick(core.wake_at_ms, 0.0))
            set_back(core)
        case _:
            step(message)
            step(Tick(0, 0.0))
    return effects
