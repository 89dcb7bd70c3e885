"""A node: five actors, their sockets and their files, started in order and stopped together."""

import errno
import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import pykka
import zmq

from ..core.effects import Role
from ..core.errors import BadRequest, ForeignDatabase, InvariantBroken
from ..core.gateway import NodeFacts
from ..core.messages import Stranger
from ..storage.directory import DataDirectory, Identity
from ..storage.failures import leave_out
from ..transport.endpoints import parse
from ..transport.feed import FeedPublisher
from ..transport.packets import Sender
from ..transport.ports import AddressInUse
from ..transport.sockets import Context, Socket, end_context, make_context, router
from .acceptor import AcceptorShell
from .expiry_timer import ExpiryTimerShell
from .gateway import GatewayShell
from .learner import LearnerShell
from .links import Links, LocalRef, Tallies
from .proposer import ProposerShell
from .shell import Fate, Shell

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 5.0
"""How long a role may take to finish what it is doing when the node stops."""

CLUSTER_NAME_BYTES_MAX = 64
"""As much as a status answer has room for."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What a node is told at its start.

    `endpoints` maps each member to where its clients connect; the ports of the other roles are the next ones.
    `bind` is the host to listen on, if it is not the one of the own endpoint (in a container, `0.0.0.0`), and
    `bind_port` the base port, if clients reach it under another one. `peers` maps the members to where this node
    reaches them, if that is not where clients do. `strict`: no namespace is made by being used.
    """

    node: int
    endpoints: dict[int, str]
    data: Path
    cluster: str = "lessor"
    bind: str = ""
    bind_port: int = 0
    peers: dict[int, str] | None = None
    strict: bool = False


class Node:
    """A node of a cluster, in this process. `wait` returns when it has stopped, and why."""

    def __init__(self, config: NodeConfig, on_fatal: Callable[[str, BaseException], None] | None = None) -> None:
        """Open the data directory and bind the ports; `start` does the rest.

        Raises:
            BadRequest: the configuration is wrong.
            AddressInUse: a port is taken.
            ForeignDatabase: the directory belongs to another node or cluster, or has lost its journal.
            Corrupt: a file of the directory cannot be trusted.
        """
        if not __debug__:
            raise InvariantBroken("a node does not run under `python -O`: its assertions are part of it")
        if config.node not in config.endpoints:
            raise BadRequest(f"node {config.node} is not in the cluster {sorted(config.endpoints)}")
        size = len(config.cluster.encode())
        if not 1 <= size <= CLUSTER_NAME_BYTES_MAX:
            raise BadRequest(f"a cluster's name has 1 to {CLUSTER_NAME_BYTES_MAX} bytes in UTF-8, not {size}")
        if not config.cluster:
            raise BadRequest("a cluster needs a name")
        self.config = config
        self.members = tuple(sorted(config.endpoints))
        self.tallies = Tallies()
        self.failure: tuple[str, BaseException] | None = None
        self._on_fatal = on_fatal
        self._fate = Fate(self._fail)
        self._book: dict[Role, Any] = {role: LocalRef() for role in Role}
        self._refs: list[pykka.ActorRef[Shell]] = []
        self._stopped = threading.Event()
        self._stopping = threading.Lock()
        self.directory = DataDirectory(config.data, Identity(config.cluster, config.node, self.members))
        self._refused = config.data / "refused"
        if self._refused.exists():
            self.directory.close()
            raise ForeignDatabase(self._refused.read_text(encoding="utf-8"))
        # the members are part of it: nodes that count their majorities differently must not hear each other
        cluster_text = f"{config.cluster} {self.members}"
        cluster = int.from_bytes(hashlib.sha256(cluster_text.encode()).digest()[:7], "big")
        self._sender = Sender(cluster, config.node, self.directory.incarnation)
        self.context: Context = make_context(len(self.members))
        self._ports: dict[Role, Socket] = {}
        try:
            for role in (Role.GATEWAY, Role.PROPOSER, Role.ACCEPTOR, Role.LEARNER):
                self._ports[role] = self._bind(role, lambda endpoint: router(self.context, endpoint))
            self._feed = self._bind(Role.FEED, lambda endpoint: FeedPublisher(self.context, endpoint))
        except BaseException:
            for port in self._ports.values():
                port.close()
            self._close()
            raise

    @property
    def endpoints(self) -> str:
        """Where clients connect, as `lessor.connect` takes it: this node first."""
        own = self.config.endpoints[self.config.node]
        others = [endpoint for node, endpoint in self.config.endpoints.items() if node != self.config.node]
        return ",".join([own, *others])

    def start(self) -> "Node":
        """Start the roles, from the disk outwards, and return when all of them are ready.

        Raises:
            ForeignDatabase, Corrupt: a file cannot be trusted; nothing is left running.
        """
        fate, ports, members, directory = self._fate, self._ports, self.members, self.directory
        facts = NodeFacts(
            self.config.node, self.config.cluster, metadata.version("lessor"), self.config.endpoints, self.config.strict
        )
        try:
            learnt = self._launch(
                Role.LEARNER, LearnerShell, fate, self._links(), ports[Role.LEARNER], self._feed, members, directory
            )
            self._launch(Role.GATEWAY, GatewayShell, fate, self._links(), ports[Role.GATEWAY], facts)
            self._launch(Role.EXPIRY_TIMER, ExpiryTimerShell, fate, self._links())
            promised = self._launch(
                Role.ACCEPTOR, AcceptorShell, fate, self._links(), ports[Role.ACCEPTOR], members, directory, learnt
            )
            own = self.config.endpoints[self.config.node]
            # before the proposer says who leads: only with a leader is anybody served
            log.info("node %d of cluster %r listens at %s", self.config.node, self.config.cluster, own)
            self._launch(
                Role.PROPOSER, ProposerShell, fate, self._links(), ports[Role.PROPOSER], members, promised, learnt[0]
            )
        except BaseException:
            self.stop()
            if self.failure is not None:
                raise self.failure[1] from None  # what came of it is of no interest
            raise
        return self

    def stop(self) -> None:
        """Stop every role, outermost first, and close everything. May be called twice, and from any thread."""
        with self._stopping:
            if self._stopped.is_set():
                return
            for ref in reversed(self._refs):
                try:
                    ref.stop(block=True, timeout=STOP_TIMEOUT_S)
                except (pykka.Timeout, pykka.ActorDeadError):
                    log.debug("%s had stopped, or did not in time", ref)
            self._fate.wait_ended(STOP_TIMEOUT_S)  # one that failed closes its files by itself
            launched = len(self._refs)
            for role in list(self._ports)[launched:]:
                self._ports[role].close()
            self._close()
            self._stopped.set()

    def wait(self, timeout_s: float | None = None) -> tuple[str, BaseException] | None:
        """Wait until the node has stopped; return the role that failed and its error, None if none did."""
        self._stopped.wait(timeout_s)
        return self.failure

    def __enter__(self) -> Self:
        """Return the node itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the node."""
        self.stop()

    # --- parts -------------------------------------------------------------------------------------------------------

    def _bind(self, role: Role, bind: Callable[[str], Any]) -> Any:
        host, base = parse(self.config.endpoints[self.config.node])
        endpoint = f"tcp://{self.config.bind or host}:{(self.config.bind_port or base) + int(role)}"
        try:
            return bind(endpoint)
        except zmq.ZMQError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                own = self.config.bind or host
                raise BadRequest(f"{own} is no address of this machine; give --bind the address to listen on") from None
            raise AddressInUse(
                f"cannot listen on {endpoint} ({role.name.lower()}): {error}. Is a node running there already?"
            ) from None

    def _links(self) -> Links:
        return Links(
            self._sender,
            self.config.peers or self.config.endpoints,
            self.directory,
            self.tallies,
            self.context,
            self._book,
            self._on_stranger,
        )

    def _launch(self, role: Role, shell: type[Shell], *arguments: Any) -> Any:
        with self._stopping:  # a role that fails meanwhile stops the node, but not under the hands of this one
            if self.failure is not None:
                raise self.failure[1]
            ref = shell.start(*arguments)
            found = self._fate.wait_ready()
            self._refs.append(ref)
            self._book[role].bind(ref)
            return found

    def _on_stranger(self, stranger: Stranger) -> None:
        if stranger.node != self.config.node or stranger.incarnation in (0, self.directory.incarnation):
            return
        if not self.directory.fresh:
            self.tallies.complain("called_a_stranger", "a peer does not know this node's journal")
            return
        error = ForeignDatabase(
            f"the cluster knows node {self.config.node} with another journal than the new one in {self.config.data}: "
            "its promises are forgotten, so it must not come back under this number. "
            f"Start it on its old data directory, or {leave_out(self.config.node)}."
        )
        # for the next start: the directory will not be fresh any more, and whoever supervises the node tries again
        self._refused.write_text(str(error), encoding="utf-8")
        self._fail("identity", error)

    def _fail(self, role: str, error: BaseException) -> None:
        if self.failure is not None:
            return
        self.failure = (role, error)
        log.critical("the %s of node %d failed: %s", role, self.config.node, error, exc_info=error)
        if self._on_fatal is not None:
            self._on_fatal(role, error)
        # a role cannot wait for its own end
        threading.Thread(target=self.stop, name="lessor-stop", daemon=True).start()

    def _close(self) -> None:
        end_context(self.context)
        self.directory.close()
