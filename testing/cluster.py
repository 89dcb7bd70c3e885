"""A cluster to test with: production nodes, real sockets and files, and a method for each thing that may go wrong."""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar, Unpack

from ..actors.node import NodeConfig
from ..client.base import Options
from ..client.lease import BaseLease, LeaseView
from ..client.status import ClusterStatus, ask_status
from ..client.sync import Client, connect
from ..core import limits
from ..core.ballot import quorum
from ..core.errors import BadRequest
from ..core.requests import StatusAnswer
from ..transport.ports import AddressInUse, free_base_port
from .network import CLIENTS, HOST, Network
from .nodes import ClusterFailed, Member, ProcessNode, ThreadNode
from .operator import end_session

__all__ = ["Cluster", "ClusterFailed"]

TRIES: Final = 20
LOOK_S: Final = 0.05
"""Between two looks at all nodes, each of which costs some milliseconds of a processor."""

ASK_TIMEOUT_S: Final = 1.0
TIMEOUT_S: Final = 60.0

T = TypeVar("T")


class Cluster:
    """Nodes 1 to `nodes`, ready to serve. Nothing of it is left after `with`: no thread, socket, process or file.

    Its methods are for one thread at a time; clients may be used by many.
    """

    def __init__(self, nodes: int = 3, *, processes: bool = False) -> None:
        """Start the nodes, and wait for a leader.

        Args:
            nodes: how many.
            processes: each in a process of its own, which `kill` and `pause` send real signals. Slower to start.

        Raises:
            BadRequest: there can be no cluster of so many nodes.
            ClusterFailed: a node did not start, or no leader was found.
        """
        if not 1 <= nodes <= limits.NODES_MAX:
            raise BadRequest(f"a cluster has 1 to {limits.NODES_MAX} nodes, not {nodes}")
        self.nodes = list(range(1, nodes + 1))
        self._kind: type[ThreadNode | ProcessNode] = ProcessNode if processes else ThreadNode
        self._members: dict[int, Member] = {}
        self._paused: set[int] = set()
        self._clients: list[Client] = []
        self._network = Network(self.nodes)
        self._directory = Path(tempfile.mkdtemp(prefix="lessor-testing-"))
        try:
            self._boot(*self.nodes)
            self.wait_for_leader()
        except BaseException:
            self.close()
            raise

    # --- using it ----------------------------------------------------------------------------------------------------

    @property
    def endpoints(self) -> str:
        """Where to connect: `lessor.connect(cluster.endpoints)`. They stay the same over every restart."""
        return ",".join(self.endpoint_of(node) for node in self.nodes)

    def endpoint_of(self, node: int) -> str:
        """Return where clients reach a node."""
        return self._network.endpoint(CLIENTS, node)

    def client(self, namespace: str = "default", **options: Unpack[Options]) -> Client:
        """Return a client, as `lessor.connect` does; it is closed with the cluster, if not before."""
        client = connect(self.endpoints, namespace, **options)
        self._clients.append(client)
        return client

    @property
    def running(self) -> list[int]:
        """The nodes that run, paused ones among them."""
        return sorted(self._members)

    @property
    def leader(self) -> int:
        """The node that leads and is followed by a majority, now; 0 if there is none."""
        answers = self.status().answers
        for answer in answers:
            if answer.role == "leader" and self._followers(answer, answers) >= quorum(len(self.nodes)):
                return answer.node
        return 0

    def status(self) -> ClusterStatus:
        """Ask every node that runs and is not paused how it is, past every partition."""
        asked = [node for node in self.running if node not in self._paused]
        return ask_status([f"tcp://{HOST}:{self._members[node].base}" for node in asked], ASK_TIMEOUT_S)

    def wait_for_leader(self, timeout: float = TIMEOUT_S, *, other_than: int = 0) -> int:
        """Wait for a leader that a majority hears and follows; return its node.

        Raises:
            ClusterFailed: there was none in time, or a node has ended by itself.
        """

        def look() -> int:
            leader = self.leader
            return leader if leader != other_than else 0

        return self._wait_for(look, "a leader that a majority follows", timeout)

    # --- what may go wrong -------------------------------------------------------------------------------------------

    def kill(self, node: int) -> None:
        """End a node as SIGKILL does: its connections break, and what it has not committed is gone."""
        member = self._running_one(node)
        self._network.down(node)
        member.kill()
        self._gone(node)

    def kill_leader(self) -> int:
        """Kill the node that leads, and return its number; waits for a leader if there is none right now."""
        leader = self.wait_for_leader()
        self.kill(leader)
        return leader

    def restart(self, node: int) -> None:
        """Start a node on its old data; one that still runs is stopped in order first, as for an upgrade."""
        if node in self._members:
            member = self._members[node]
            self.resume(node)
            member.stop()
            self._network.down(node)
            self._gone(node)
        self._boot(self._known(node))

    def pause(self, node: int) -> None:
        """Let a node stand still with its connections open, as SIGSTOP does, or a machine that is overwhelmed."""
        member = self._running_one(node)
        self._network.freeze(node)
        self._paused.add(node)
        member.pause()

    def resume(self, node: int) -> None:
        """Let a paused node go on, where it stood; what was sent to it meanwhile arrives now."""
        member = self._running_one(node)
        member.resume()
        self._network.thaw(node)
        self._paused.discard(node)

    def partition(
        self, *nodes: int, peers: bool = True, clients: bool = True, hears: bool = False, heard: bool = False
    ) -> None:
        """Cut these nodes off. As when packets are lost, no connection is closed: there is silence, until `heal`.

        They still reach each other. Several partitions add up.

        Args:
            nodes: on one side of the cut.
            peers: cut them off from the other nodes.
            clients: cut them off from the clients.
            hears: they still hear what the others say: a cut in one direction only.
            heard: the others still hear what they say.
        """
        if not nodes or not (peers or clients) or (hears and heard):
            raise ValueError("this partition would cut nothing")
        inside = {self._known(node) for node in nodes}
        outside = [node for node in self.nodes if peers and node not in inside] + [CLIENTS] * clients
        ways = [(other, node) for node in inside for other in outside if not hears]
        ways += [(node, other) for node in inside for other in outside if not heard]
        self._network.silence(ways)

    def heal(self) -> None:
        """End every partition. What was under way arrives now, on connections that nobody has given up meanwhile."""
        self._network.heal()

    def expire(self, session: BaseLease | LeaseView | int) -> int:
        """End a session now, with all that it holds and waits for, and return its number.

        What it holds is released by token, as an operator may, and its client is told so; then the session is ended.
        Others are granted at once. (A session that really expires takes its time: `partition` all nodes from
        the clients for longer than the session's timeout and the ttl of its leases.)

        Args:
            session: its number, or a lease of it.

        Raises:
            ValueError: the lease belongs to no session, since it is detached or over.
            Unavailable: there is no leader that clients can reach.
        """
        with connect(self.endpoints, request_timeout=TIMEOUT_S, description="lessor.testing") as client:
            views = client.leases(all_namespaces=True)
            if not isinstance(session, int):
                token = session.token
                session = next((view.session for view in views if view.token == token and not view.detached), 0)
            if not session:
                raise ValueError("this lease belongs to no session: it is detached, or over")
            for view in views:
                if view.session == session and not view.waiting and not view.detached:
                    client.release(view.token)
        self._wait_for(lambda: self._end_session(session), f"the end of session {session}", TIMEOUT_S)
        return session

    # --- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End everything, and remove the directory. May be called twice."""
        with ExitStack() as last:  # each step is taken though another one fails
            last.callback(shutil.rmtree, self._directory, ignore_errors=True)
            last.callback(self._network.close)
            for node in self.running:
                last.callback(self._members[node].kill)
            last.callback(self._close_clients)
        self._members.clear()

    def __enter__(self) -> Self:
        """Return the cluster itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything.

        Raises:
            ClusterFailed: a node had ended by itself.
        """
        failures = self._failures()
        self.close()
        if failures and error is None:
            raise ClusterFailed(failures)

    # --- parts -------------------------------------------------------------------------------------------------------

    def _boot(self, *nodes: int) -> None:
        for node in nodes:  # all together: processes take a while
            self._prepare(node)
        for node in nodes:
            self._start(node)

    def _prepare(self, node: int) -> None:
        """Make a node that listens at ports of its own, behind the doors that the others know."""
        endpoints = {each: self.endpoint_of(each) for each in self.nodes}
        peers = {each: self._network.endpoint(node if each != node else CLIENTS, each) for each in self.nodes}
        for attempt in range(TRIES):
            config = NodeConfig(
                node,
                endpoints,
                self._directory / f"node{node}",
                bind=HOST,
                bind_port=free_base_port(HOST),
                peers=peers,
            )
            try:
                self._members[node] = member = self._kind(config)
            except AddressInUse:  # somebody took the port between the look and the bind
                if attempt == TRIES - 1:
                    raise
            else:
                self._network.up(node, member.base)
                return

    def _start(self, node: int) -> None:
        for attempt in range(TRIES):
            try:
                self._members[node].start()
            except AddressInUse:  # a process tells only now
                if attempt == TRIES - 1:
                    raise
                self._prepare(node)
            else:
                return

    def _gone(self, node: int) -> None:
        del self._members[node]
        self._paused.discard(node)
        self._network.thaw(node)

    def _known(self, node: int) -> int:
        if node not in self.nodes:
            raise ValueError(f"there is no node {node}, only {self.nodes}")
        return node

    def _running_one(self, node: int) -> Member:
        if self._known(node) not in self._members:
            raise ValueError(f"node {node} does not run")
        return self._members[node]

    def _followers(self, leader: StatusAnswer, answers: list[StatusAnswer]) -> int:
        """Return how many follow a leader, itself among them, and are not cut off from it."""
        passes = self._network.passes
        return sum(
            (other.leader, other.ballot) == (leader.node, leader.ballot)
            and passes(leader.node, other.node)
            and passes(other.node, leader.node)
            for other in answers
        )

    def _end_session(self, session: int) -> bool:
        leader = self.leader
        return bool(leader) and end_session(f"tcp://{HOST}:{self._members[leader].base}", session, ASK_TIMEOUT_S)

    def _wait_for(self, look: Callable[[], T], what: str, timeout: float) -> T:
        deadline = time.monotonic() + timeout
        while not (found := look()):
            if failures := self._failures():
                raise ClusterFailed(f"while waiting for {what}: {failures}")
            if time.monotonic() >= deadline:
                raise ClusterFailed(f"waited {timeout:g} s in vain for {what}; nodes {self.running} run")
            time.sleep(LOOK_S)
        return found

    def _failures(self) -> str:
        found = {node: member.failure for node, member in self._members.items()}
        return "; ".join(f"node {node} has ended: {failure}" for node, failure in found.items() if failure)

    def _close_clients(self) -> None:
        if not self._clients:
            return
        self.heal()
        for node in sorted(self._paused):
            self.resume(node)
        # all at once: without a majority each of them waits a while before it gives up
        closing = [threading.Thread(target=client.close, name="lessor-close") for client in self._clients]
        self._clients = []
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()
