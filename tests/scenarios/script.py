"""The language of the scenarios: `run(text)` returns the text with what its commands print now.

A line that begins with `> ` is a command, the indented lines after it are what it printed, everything else is prose.
A FILTER is some words of a message's line (`n1->n2`, `->n2`, `Accept`, `slot=3`); without words it means everything.

    nodes 3                     start nodes n1, n2, n3
    client NAME [n2 n1 n3] [timeout=30s]    start a client that knows these nodes, and its session's timeout
    cluster 3 NAME NAME [timeout=30s]       both, with a leader elected and sessions opened in the first second
    limit NAME VALUE            change a bound of core/limits.py for this scenario

    deliver FILTER              let these messages arrive, in the order in which they were sent
    drop FILTER | duplicate FILTER          lose them | double them; the second is a `(copy)`
    hold FILTER                 from now on, such messages stay on their way; `free FILTER` ends it
    cut FILTER                  from now on, such messages are lost; `heal` ends every cut
    flight                      what is on its way
    settle [TIME]               deliver until nothing is on its way, while time passes; tells what is chosen
    run TIME                    the same; tells only who leads and what becomes of leases
    advance TIME                let time pass while nothing arrives

    suspect n2                  its connection to the leader breaks: a hint to stand, which may be wrong
    crash n1 | restart n1       lose all but the disk | start from the disk
    wipe n1                     lose the disk, too
    stall n1 TIME               for so long it does nothing: from now on, as time passes
    nodes?                      who leads, how far each node is | leases?   who holds, who waits (of the furthest node)

    NAME acquire LOCK [ttl=10s] [wait=5s] [detached] [norenew] [data=TEXT]     without wait: now or not at all
    NAME release token=1 | renew token=1 [ttl=10s] | cancel LOCK | describe LOCK | close
    NAME dies                   without a word
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lessor.client.records import Acquire, LeaseRecord, LeaseState
from lessor.core import limits
from lessor.core.commands import Describe, Operation, Ping, Release, Renew
from lessor.core.effects import Role
from lessor.core.errors import LessorError
from lessor.core.messages import PeerLost
from lessor.core.proposer import Stage
from lessor.core.results import Denied

from .words import NAMESPACE, claim, duration, ms, show, split_options
from .world import MESSAGES, NOTHING, OUTCOMES, SLOTS, Client, Node, World

REQUEST_TIMEOUT_MS = 5_000
COMMAND, INDENT = "> ", "    "


def run(text: str) -> str:
    """Return the scenario as it would be written now."""
    lines: list[str] = []
    script = Script()
    with pytest.MonkeyPatch.context() as patch:
        script.patch = patch
        for number, line in enumerate(text.splitlines(), start=1):
            if line.startswith(" "):
                continue
            lines.append(line.rstrip())
            if line.startswith(COMMAND):
                try:
                    printed = script.perform(line.removeprefix(COMMAND).split())
                except Exception as error:
                    error.add_note(f"in line {number}: {line}")
                    raise
                lines += [f"{INDENT}{each}" for each in printed]
    return "\n".join(lines).rstrip("\n") + "\n"


class Script:
    """The commands, each a method; what they print is gathered by the world."""

    patch: pytest.MonkeyPatch

    def __init__(self) -> None:
        self.world = World()
        self.acquires: dict[tuple[str, str], Acquire] = {}

    def perform(self, words: list[str]) -> list[str]:
        """Carry out one command; return what it printed."""
        world = self.world
        world.lines, world.level, world.prefix = [], MESSAGES, str
        command, *rest = words
        if command in world.clients:
            self._program(world.clients[command], *rest)
        elif command in COMMANDS:
            COMMANDS[command](self, rest)
        else:
            raise ValueError(f"unknown command: {command}")
        world.settle()
        return world.lines

    # --- the stage ---------------------------------------------------------------------------------------------------

    def nodes(self, words: list[str]) -> None:
        world = self.world
        world.members = tuple(range(1, int(words[0]) + 1))
        world.nodes = {f"n{number}": Node(world, number) for number in world.members}
        for node in world.nodes.values():
            node.start()

    def limit(self, words: list[str]) -> None:
        name, value = words
        self.patch.setattr(limits, name, int(value))

    def client(self, words: list[str]) -> None:
        (name, *known), options = split_options(words)
        timeout_ms = duration(options.pop("timeout", "30s"))
        assert not options, options
        self.world.clients[name] = Client(self.world, name, known or list(self.world.nodes), timeout_ms)

    def cluster(self, words: list[str]) -> None:
        world = self.world
        (size, *names), options = split_options(words)
        world.level = NOTHING
        self.nodes([size])
        for name in names:
            self.client([name, *(f"{option}={value}" for option, value in options.items())])
        world.advance(500, world.deliver_all)
        for client in world.clients.values():
            client.protocol.call(Ping(()), lambda _: None, None)
            world.settle()
            world.deliver_all()
        world.advance(500, world.deliver_all)
        world.level = MESSAGES
        (leader,) = [node for node in world.nodes.values() if node.proposer.stage is Stage.LEADER]
        applied = {node.learner.applied_upto for node in world.nodes.values()}
        world.tell(
            OUTCOMES, f"{leader.name} leads under {leader.proposer.ballot}, all have applied up to slot {applied.pop()}"
        )
        assert not applied
        sessions = [
            f"{name} has session s{client.protocol.session.number}"
            for name, client in world.clients.items()
            if client.protocol.session
        ]
        world.tell(OUTCOMES, ", ".join(sessions))

    # --- messages ----------------------------------------------------------------------------------------------------

    def deliver(self, words: list[str]) -> None:
        world = self.world
        for flight in world.find(words):
            world.prefix = str
            world.tell(MESSAGES, str(flight))
            world.prefix = lambda: "  "
            if flight in world.flights:  # its target may have stopped meanwhile
                world.deliver(flight)

    def drop(self, words: list[str]) -> None:
        for flight in self.world.find(words):
            self.world.flights.remove(flight)
            self.world.tell(MESSAGES, f"{flight}, lost")

    def duplicate(self, words: list[str]) -> None:
        for flight in self.world.find(words):
            copy = replace(flight, copy=True)
            self.world.flights.append(copy)
            self.world.tell(MESSAGES, str(copy))

    def hold(self, words: list[str]) -> None:
        self.world.held.append(words)

    def free(self, words: list[str]) -> None:
        self.world.held.remove(words)

    def cut(self, words: list[str]) -> None:
        self.world.cut.append(words)

    def heal(self, words: list[str]) -> None:
        assert not words
        self.world.cut = []

    def flight(self, words: list[str]) -> None:
        for flight in self.world.flights:
            if flight.matches(words):
                self.world.tell(MESSAGES, str(flight))

    def settle(self, words: list[str]) -> None:
        self._flow(SLOTS, words)

    # --- time --------------------------------------------------------------------------------------------------------

    def run(self, words: list[str]) -> None:
        self._flow(OUTCOMES, words)

    def _flow(self, level: int, words: list[str]) -> None:
        world = self.world
        world.level, world.prefix = level, world.stamp if words else str
        world.deliver_all()
        world.advance(sum(map(duration, words)), world.deliver_all)

    def advance(self, words: list[str]) -> None:
        world = self.world
        world.prefix = world.stamp
        world.advance(duration(*words), lambda: None)

    # --- nodes -------------------------------------------------------------------------------------------------------

    def suspect(self, words: list[str]) -> None:
        (name,) = words
        node = self.world.nodes[name]
        luck, node.luck = node.luck, 0.0  # it stands at once
        node.inboxes[Role.PROPOSER].append(PeerLost(node.proposer.leader.node))
        self.world.settle()
        node.luck = luck

    def crash(self, words: list[str]) -> None:
        for name in words:
            self.world.nodes[name].stop()

    def restart(self, words: list[str]) -> None:
        for name in words:
            assert not self.world.nodes[name].up, f"{name} runs"
            self.world.nodes[name].start()

    def wipe(self, words: list[str]) -> None:
        for name in words:
            assert not self.world.nodes[name].up, f"{name} runs"
            self.world.nodes[name].wipe()

    def stall(self, words: list[str]) -> None:
        *names, time = words
        for name in names:
            self.world.nodes[name].stalled_until = self.world.now + duration(time)

    def show_nodes(self, words: list[str]) -> None:
        for name, node in self.world.nodes.items():
            if words and name not in words:
                continue
            leader = node.proposer.leader
            stage = f"{node.proposer.stage.value}" + (f" under {leader}" if leader.node else "")
            clock = ms(node.learner.state.clock_ms)
            where = f"{stage}, applied {node.learner.applied_upto}, clock {clock}"
            self.world.tell(OUTCOMES, f"{name} {where if node.up else 'down'}")

    def show_leases(self, words: list[str]) -> None:
        assert not words
        state = max(
            (node.learner for node in self.world.nodes.values() if node.up), key=lambda it: it.applied_upto
        ).state
        self.world.tell(
            OUTCOMES, f"clock {ms(state.clock_ms)}, sessions {[it.session for it in state.sessions_open.records()]}"
        )
        for record in state.claims.records():
            self.world.tell(OUTCOMES, show(state.looks.info(record)))

    # --- clients -----------------------------------------------------------------------------------------------------

    def _program(self, client: Client, verb: str, *words: str) -> None:
        world, protocol = self.world, client.protocol
        protocol.now_ms = world.now
        deadline_ms = world.now + REQUEST_TIMEOUT_MS
        plain, options = split_options(list(words))
        token = int(options.get("token", 0))

        def told(outcome: Any) -> None:
            world.tell(OUTCOMES, f"{client.name} {verb}: {_outcome(client, outcome)}")

        match verb:
            case "acquire":
                asked = claim(client.name, list(words))
                wait_ms = duration(options.get("wait", "5s"))
                until_ms = None if options.get("wait") == "forever" else world.now + wait_ms
                renew = "norenew" not in plain

                def acquired(outcome: Any) -> None:
                    if isinstance(outcome, LeaseRecord):
                        outcome.on_change = _watch(world, client)
                    told(outcome)

                acquire = protocol.acquire(asked, acquired, until_ms, auto_renew=renew)
                self.acquires[client.name, plain[0]] = acquire
            case "cancel":
                protocol.abandon(self.acquires[client.name, plain[0]])
            case "release" if token in protocol.leases:
                protocol.release(protocol.leases[token], told, deadline_ms)
            case "renew" if token in protocol.leases:
                protocol.renew(protocol.leases[token], duration(options.get("ttl", "0s")), told, deadline_ms)
            case "release" | "renew" | "describe":
                protocol.call(_operation(verb, plain, options), told, deadline_ms)
            case "close":
                protocol.close(told, deadline_ms)
            case "dies":
                del world.clients[client.name]
            case _:
                raise ValueError(f"unknown verb: {verb}")


def _operation(verb: str, words: list[str], options: dict[str, str]) -> Operation:
    match verb:
        case "release":
            return Release(int(options["token"]))
        case "renew":
            return Renew(int(options["token"]), duration(options.get("ttl", "0s")))
        case _:
            return Describe(NAMESPACE, (words[0],))


def _watch(world: World, client: Client) -> Callable[[LeaseRecord], None]:
    def changed(lease: LeaseRecord) -> None:
        if lease.state is LeaseState.LOST:  # what its program gave back is answered
            path = "/".join(lease.path)
            world.tell(OUTCOMES, f"{client.name} has lost {path} token={lease.token}: {lease.reason}")

    return changed


def _outcome(client: Client, outcome: Any) -> str:
    match outcome:
        case LeaseRecord():
            until = ms(client.protocol.safe_until_ms(outcome))
            return f"holds {'/'.join(outcome.path)} token={outcome.token}, by its own clock until {until}"
        case Denied():
            return (
                f"denied, {outcome.holder} has token={outcome.token}" if outcome.token else f"denied, {show(outcome)}"
            )
        case LessorError():
            return f"{type(outcome).__name__}, {'indefinite' if outcome.indefinite else 'definite'}: {outcome}"
        case None:
            return "done"
        case _:
            return show(outcome)


COMMANDS: dict[str, Callable[[Script, list[str]], None]] = {
    **{
        name: getattr(Script, name)
        for name in "nodes client cluster limit deliver drop duplicate hold free cut heal flight settle run".split()
        + "advance suspect crash restart wipe stall".split()
    },
    "nodes?": Script.show_nodes,
    "leases?": Script.show_leases,
}
