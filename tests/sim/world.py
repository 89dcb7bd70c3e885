"""A simulated world: a cluster and its clients in virtual time, single-threaded, all of it decided by one seed.

First everything goes wrong that its options allow, and the promises must hold all the same. Then the world heals, and
must converge: every call is answered, every node has the same state, and nothing dead is left in a queue.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from heapq import heappop, heappush
from typing import Any

from lessor.core import limits
from lessor.core.ballot import Ballot, quorum
from lessor.core.effects import Connection, Role, Send
from lessor.core.entries import Batch
from lessor.core.lease_state import LeaseState
from lessor.core.messages import Accept, Vote, WriteVote

from .application import Application
from .checkers.base import Checker, Hooks, Violated
from .client import SimClient
from .clock import MS
from .damage import Damage
from .faults import Faults
from .history import History
from .ledger import Ledger
from .network import Network
from .node import Node, endpoint
from .options import Options
from .reading import read, reading_once
from .sometimes import Observer
from .wide_application import WideApplication
from .wide_board import Board, Taste
from .wide_operator import Sweeper
from .wide_sometimes import WideObserver

FIRST_CLIENT = 101
HEAL_MS = 20_000
"""Virtual time within which a healed world must have converged, beside what its own timeouts add."""


class Referee(Checker):
    """Knows what no node can know: what is chosen, when it was stamped, and what each slot brings about."""

    def __init__(self, world: "World") -> None:
        """Start with nothing chosen."""
        super().__init__(world)
        self.voters: dict[tuple[int, Ballot], dict[int, None]] = {}
        self.chosen: dict[int, bytes] = {}
        self.twice: tuple[int, Ballot] | None = None  # a slot in which a second value was chosen
        self.stamped_us: dict[tuple[int, Ballot], int] = {}
        self.state = LeaseState()
        self.applied_us: list[int] = [0]

    def committed(self, node: Node, writes: Sequence[Any]) -> None:
        """Count votes that are on the disk."""
        for write in writes:
            if type(write) is WriteVote:
                vote = write.vote
                voters = self.voters.setdefault((vote.slot, vote.ballot), {})
                voters[node.number] = None
                if len(voters) >= self.world.quorum and self.chosen.setdefault(vote.slot, vote.entry) != vote.entry:
                    self.twice = (vote.slot, vote.ballot)

    def proposer_sends(self, node: Node, sends: Sequence[Send]) -> None:
        """Note when each batch was stamped."""
        for send in sends:
            message = send.message
            if type(message) is Accept and (message.slot, message.ballot) not in self.stamped_us:
                self.stamped_us[message.slot, message.ballot] = self.world.now_us


class World:
    """One world. `run` returns when it has converged, or raises `Violated`."""

    def __init__(
        self,
        seed: int,
        checkers: Sequence[type[Checker]] = (),
        *,
        trace: list[str] | None = None,
        changes: dict[str, Any] | None = None,
    ) -> None:
        """Draw the options, then everything else, from the seed; `changes` replace options; events go to `trace`."""
        self.seed = seed
        self.rng = random.Random(seed)
        self.random = self.rng.random
        self.options = Options.draw(self.rng).changed(**(changes or {}))
        self.trace = trace
        self.now_us = 0
        self.faulty = True
        self.clocks_sleep = False  # those of clients, while their machine does; for a mutant
        self.released_by_others: dict[int, None] = {}
        self.speaks_early = False  # for a mutant
        self.passing: tuple[type[BaseException], ...] = (Violated,)
        self.marks: Counter[str] = Counter()
        self.faults_seen: Counter[str] = Counter()
        self.members = tuple(range(1, self.options.nodes + 1))
        self.quorum = quorum(self.options.nodes)
        self.events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self.sequence = 0
        self.last_connection = 0
        self.connections: dict[bytes, tuple[SimClient, str]] = {}
        self.history = History()
        self.tickets: list[tuple[str, int, int]] = []  # leases handed over from program to program
        self.network = Network(self)
        self.damage = Damage(self)
        self.referee = Referee(self)
        self.board = Board(Taste.draw(random.Random(self.options.wide)))
        self.program: type[Application] = WideApplication if self.options.wide else Application
        self.checkers = [kind(self) for kind in checkers if kind.wide in (None, bool(self.options.wide))]
        self.ledger = Ledger(self)
        observers = [Observer(self), WideObserver(self)] if self.options.wide else [Observer(self)]
        self.hooks = Hooks([self.referee, self.ledger, *observers, *self.checkers])
        self.node_at = {endpoint(member): member for member in self.members}
        self.nodes = {member: Node(self, member) for member in self.members}
        self.clients: list[SimClient] = []
        self.faults = Faults(self)

    # --- running -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run both phases."""
        small = dict(self.options.limits)
        if self.options.wide:
            small.pop("SESSIONS_MAX", None)  # the operator needs one when the world heals
        with small_limits(small), reading_once():
            for node in self.nodes.values():
                if self.random() < 0.9:
                    node.start()
                else:
                    self.at(int(self.random() * 1000 * MS), self._start_if_down, node, 0)
            self.clients = [SimClient(self, FIRST_CLIENT + place) for place in range(self.options.clients)]
            self.faults.begin()
            self.run_until(self.options.duration_ms * MS)
            self._heal()
            for checker in self.hooks.finished:
                checker.finished()

    def at(self, at_us: int, do: Callable[..., None], *what: Any) -> None:
        """Have `do(*what)` called at a time; what is due at the same time is done in the order of asking."""
        self.sequence = sequence = self.sequence + 1
        heappush(self.events, (at_us, sequence, do, what))

    def run_until(self, end_us: int) -> None:
        """Let everything happen that is due before `end_us`."""
        events, pop = self.events, heappop
        while events and events[0][0] <= end_us:
            self.now_us, _, do, what = pop(events)
            do(*what)
        self.now_us = end_us

    def violated(self, promise: str, what: str) -> Violated:
        """Return the failure of a promise, with when it was seen."""
        return Violated(promise, f"{what} (at {self.now_us / 1000:.3f} ms)")

    def mark(self, what: str) -> None:
        """Remember that an interesting state was reached."""
        self.marks[what] += 1

    def count_fault(self, what: str) -> None:
        """Count a fault, and have it in the trace."""
        self.faults_seen[what] += 1
        if self.trace is not None:
            self.trace.append(f"{self.now_us / 1000:10.3f} -- {what}")

    # --- healing -----------------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        """End the faults, have every client come to its end, and demand that the world comes to rest."""
        self.faulty = False
        if self.trace is not None:
            self.trace.append(f"{self.now_us / 1000:10.3f} -- healed")
        self.network.heal()
        for node in self.nodes.values():
            node.slow_disk_until_us = node.full_until_us = 0
            node.disk.failing = False
            if not node.up:
                node.start()
        for client in self.clients:
            if not client.alive:
                client.start_again()
            client.app.hush()
            client.wake()
        options = self.options
        sweeper = Sweeper(self, FIRST_CLIENT + len(self.clients)) if options.wide else None
        patience_ms = HEAL_MS + 2 * max(*options.ttls_ms, *options.waits_ms, options.session_timeout_ms)
        self._demand("every call is answered", self._all_answered, patience_ms)
        for client in self.clients:
            client.app.close()
        self._demand("every client is closed", self._all_answered, patience_ms)
        if sweeper is not None:
            sweeper.finish(patience_ms)
        self._demand("one leads, and all have the same state with nothing left in it", self._at_rest, patience_ms)

    def _demand(self, what: str, holds: Callable[[], bool], patience_ms: int) -> None:
        end_us = self.now_us + patience_ms * MS
        while not holds():
            if self.now_us >= end_us:
                raise self.violated("liveness", f"after healing, in vain was it demanded that {what}: {self._state()}")
            self.run_until(self.now_us + 20 * MS)

    def _all_answered(self) -> bool:
        return not any(client.app.open_calls for client in self.clients)

    def _at_rest(self) -> bool:
        nodes = list(self.nodes.values())
        if not all(node.up for node in nodes) or sum(node.leads for node in nodes) != 1:
            return False
        states = [node.learner.state for node in nodes]
        return all(
            state.applied_upto == states[0].applied_upto and not state.sessions and not state.held and not state.waiting
            for state in states
        )

    def _state(self) -> str:
        open_calls = [str(op) for client in self.clients for op in client.app.open_calls.values()]
        nodes = [
            f"n{node.number} {node.proposer.stage.value} at slot {node.learner.applied_upto}, "
            f"{node.learner.state.sessions} sessions {node.learner.state.held} held {node.learner.state.waiting} wait"
            if node.up
            else f"n{node.number} down"
            for node in self.nodes.values()
        ]
        return "; ".join([*nodes, *open_calls[:3]])

    # --- nodes -------------------------------------------------------------------------------------------------------

    def commit_us(self) -> int:
        """Return how long a commit takes."""
        options = self.options
        us = int(options.commit_us * (0.5 + self.random()))
        if options.slow_commit and self.faulty and self.random() < options.slow_commit:
            us *= self.rng.randint(2, 50)
        return us

    def node_up(self, node: Node) -> None:
        """A node has started: its port is open."""
        if self.trace is not None:
            self.trace.append(f"{self.now_us / 1000:10.3f} n{node.number} starts, life {node.life}")

    def node_down(self, node: Node) -> None:
        """A process has died: the kernel closes its sockets, and whoever can hear it knows at once."""
        if self.trace is not None:
            self.trace.append(f"{self.now_us / 1000:10.3f} n{node.number} is down")
        for other in self.nodes.values():
            if other is not node and self.network.reachable(node.number, other.number):
                self.at(self.now_us + self.options.latency_us, other.lose_peer, node.number)
        for client, target in list(self.connections.values()):
            link = client.links.get(target)
            if link is not None and link.node == node.number and self.network.reachable(client.number, node.number):
                self.at(self.now_us + self.options.latency_us, client.broken, link.connection)

    def restart_later(self, node: Node) -> None:
        """Have a supervisor start a node again."""
        after_us = int(self.random() * (1500 if self.random() < 0.5 else 100) * MS)
        self.at(self.now_us + after_us, self._start_if_down, node, node.life)

    def _start_if_down(self, node: Node, life: int) -> None:
        if not node.up and node.life == life:
            node.start()

    def stopped_itself(self, node: Node, role: Role, error: Exception) -> None:
        """A core raised: the node ends, as in production."""
        for checker in self.hooks.role_failed:
            checker.role_failed(node, role, error)
        self.count_fault(f"the {role.name.lower()} of a node failed")
        node.crash()
        self.restart_later(node)

    def damages(self) -> bool:
        """Draw whether a damaged copy of a packet comes, too."""
        damage = self.options.damage
        return damage > 0 and self.faulty and self.random() < damage

    def leaders(self) -> list[Node]:
        """Return the nodes that believe that they lead."""
        return [node for node in self.nodes.values() if node.leads]

    # --- what is seen ------------------------------------------------------------------------------------------------

    def applied(self, node: Node, vote: Vote) -> None:
        """A node has applied a slot; if it is the first, so does the referee."""
        referee, slot = self.referee, vote.slot
        for checker in self.hooks.applied:
            checker.applied(node, slot, vote.entry)
        if slot != referee.state.applied_upto + 1:
            return
        entry = read(vote.entry)
        referee.applied_us.append(self.now_us)
        outcome = referee.state.apply(slot, entry)
        if isinstance(entry, Batch) and entry.term != referee.state.header.term:
            self.mark("a straggler found and discarded")
        for checker in self.hooks.outcome:
            checker.outcome(slot, entry, outcome)

    def see_sends(self, node: Node, role: Role, sends: Sequence[Send]) -> None:
        """An acceptor or a proposer speaks."""
        if role is Role.ACCEPTOR:
            for checker in self.hooks.acceptor_sends:
                checker.acceptor_sends(node, sends)
        else:
            for checker in self.hooks.proposer_sends:
                checker.proposer_sends(node, sends)

    # --- clients -----------------------------------------------------------------------------------------------------

    def answer(self, node: Node, connection: Connection, frame: bytes) -> None:
        """Carry a packet to a client, if that connection still stands."""
        found = self.connections.get(connection.identity)
        if found is not None:
            client, target = found
            self.network.send(node.number, client.number, client.arrive, connection, target, frame)
            if self.damages():
                self.network.send(node.number, client.number, self.damage.to_client, client, connection, target, frame)

    def refuse_connection(self, connection: Connection) -> None:
        """A packet came on a connection that the node does not know: it is reset."""
        found = self.connections.get(connection.identity)
        if found is not None:
            client, _ = found
            self.at(self.now_us + self.options.latency_us, client.broken, connection)

    # --- the trace ---------------------------------------------------------------------------------------------------

    def trace_step(self, node: Node, role: Role, batch: Sequence[Any]) -> None:
        """Add what a role was told."""
        assert self.trace is not None
        for message in batch:
            self.trace.append(f"{self.now_us / 1000:10.3f} n{node.number} {role.name.lower():12} <- {_shown(message)}")

    def trace_client(self, client: SimClient, packet: Any) -> None:
        """Add what a client sends."""
        assert self.trace is not None
        calls = {call.number: call for call in client.protocol._calls.under_way()}
        shown = [f"{number}:{calls[number].operation}" for number in packet.numbers if number in calls]
        self.trace.append(f"{self.now_us / 1000:10.3f} c{client.number} -> {packet.endpoint} {' '.join(shown)}")


def _shown(message: Any) -> str:
    if isinstance(message, Accept):
        return f"Accept({message.ballot}, slot={message.slot}, {read(message.entry)}, upto={message.chosen_upto})"
    return str(message)


@contextmanager
def small_limits(small: dict[str, int]) -> Iterator[None]:
    """Set limits for the time of a world."""
    before = {name: getattr(limits, name) for name in small}
    try:
        for name, value in small.items():
            setattr(limits, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(limits, name, value)
