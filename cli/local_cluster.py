"""A cluster of real `lessor serve` processes on the loopback interface, for the demo, the bench and system tests."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from ..client.status import ClusterStatus, ask_status
from ..core.errors import LessorError
from ..transport.ports import ReservedPorts

HOST: Final = "127.0.0.1"
LOOK_S: Final = 0.01
STOP_TIMEOUT_S: Final = 30.0
START_TIMEOUT_S: Final = 120.0
"""A node that ends is noticed at once: this is for a machine on which three interpreters start very slowly."""

LOG_LINES_SHOWN: Final = 5

T = TypeVar("T")


class ClusterFailed(LessorError):
    """A node did not start, or the cluster does not do what it should; the text shows the end of the logs."""


class LocalCluster:
    """Nodes 1 to `size`, each a process with a data directory and a log of its own. None of them outlives this one.

    The kernel ends a node with the *thread* that started it: start nodes from one that lives as long as they shall.
    """

    def __init__(self, size: int = 3, directory: Path | None = None, name: str = "lessor") -> None:
        """Choose free ports; nothing is started yet.

        Args:
            size: how many nodes.
            directory: keeps their data and logs; None for a temporary one, which `close` removes.
            name: of the cluster.
        """
        self._temporary = tempfile.mkdtemp(prefix="lessor-") if directory is None else None
        self.directory = Path(self._temporary or directory or ".")
        self.name = name
        self._ports = ReservedPorts(size, HOST)
        self.endpoint_of = {node: f"tcp://{HOST}:{base}" for node, base in enumerate(self._ports.bases, start=1)}
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._paused: set[int] = set()

    @property
    def nodes(self) -> list[int]:
        """The numbers of all nodes, running or not."""
        return list(self.endpoint_of)

    @property
    def running(self) -> list[int]:
        """The nodes whose process lives."""
        return [node for node, process in self._running.items() if process.poll() is None]

    @property
    def endpoints(self) -> str:
        """Where to connect: `lessor.connect(cluster.endpoints)`."""
        return ",".join(self.endpoint_of.values())

    def data_of(self, node: int) -> Path:
        """Return the data directory of a node."""
        return self.directory / f"node{node}"

    def log_of(self, node: int) -> Path:
        """Return the file with the log of a node, over all its lives."""
        return self.directory / f"node{node}.log"

    def pid_of(self, node: int) -> int:
        """Return the process of a node."""
        return self._running[node].pid

    # --- the life of nodes -------------------------------------------------------------------------------------------

    def start(self, *nodes: int, environment: Mapping[str, str] | None = None, options: tuple[str, ...] = ()) -> None:
        """Start these nodes, or all, without waiting for them.

        Args:
            nodes: which; none for all.
            environment: what their environment has besides this one's own, without whatever is called LESSOR_….
            options: of `lessor serve`.
        """
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LESSOR_")}
        members = ",".join(f"{node}={endpoint}" for node, endpoint in self.endpoint_of.items())
        for node in nodes or self.nodes:
            assert node not in self.running, f"node {node} is running"
            command = [sys.executable, "-m", "lessor", "serve", "--node-id", str(node), "--cluster", members]
            command += ["--data", str(self.data_of(node)), "--cluster-name", self.name, "--parent", str(os.getpid())]
            with self.log_of(node).open("ab") as log:
                self._running[node] = subprocess.Popen(  # noqa: S603 - our own command
                    [*command, *options],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=inherited | dict(environment or {}),
                    # a group of its own: the Ctrl-C of a terminal is for this process, which then ends its nodes
                    process_group=0,
                )

    def kill(self, node: int) -> None:
        """End a node as a crash of its process would."""
        self._running[node].kill()
        self._running[node].wait()
        self._paused.discard(node)

    def stop(self, node: int) -> int:
        """End a node as an operator would, and return its exit code."""
        process = self._running[node]
        process.terminate()
        try:
            return process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill(node)
            raise ClusterFailed(f"node {node} did not stop in {STOP_TIMEOUT_S:g} s{self.ends_of_logs(node)}") from None

    def restart(self, node: int, environment: Mapping[str, str] | None = None) -> None:
        """Start a node again that was killed or stopped, on its old data."""
        self.start(node, environment=environment)

    def pause(self, node: int) -> None:
        """Let a node stand still, with its connections open."""
        os.kill(self.pid_of(node), signal.SIGSTOP)
        self._paused.add(node)

    def resume(self, node: int) -> None:
        """Let a node go on that was paused."""
        os.kill(self.pid_of(node), signal.SIGCONT)
        self._paused.discard(node)

    def close(self) -> None:
        """End every node, and remove the temporary directory. May be called twice."""
        # asked to stop, a node writes its lease state down, which is of use only to a directory that stays
        for node, process in self._running.items():
            if self._temporary is not None or node in self._paused:
                process.kill()
            else:
                process.terminate()
        for process in self._running.values():
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
        self._ports.close()
        if self._temporary is not None:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        """Return the cluster itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every node."""
        self.close()

    # --- looking at it -----------------------------------------------------------------------------------------------

    def status(self, timeout: float = 1.0, nodes: list[int] | None = None) -> ClusterStatus:
        """Ask these nodes, or all that run and are not paused, how they are."""
        asked = [node for node in self.running if node not in self._paused] if nodes is None else nodes
        return ask_status([self.endpoint_of[node] for node in asked], timeout)

    def wait_for_leader(self, timeout: float = START_TIMEOUT_S, *, other_than: int = 0) -> int:
        """Wait until a node leads, says so itself, and is followed by a majority of all; return its number.

        Raises:
            ClusterFailed: none did in time, or a node has ended.
        """

        def found() -> int:
            answers = self.status().answers
            for answer in answers:
                followers = [other for other in answers if (other.leader, other.ballot) == (answer.node, answer.ballot)]
                if answer.role == "leader" and answer.node != other_than and len(followers) > len(self.nodes) // 2:
                    return answer.node
            return 0

        return self.wait_until(found, "a leader that a majority follows", timeout)

    def wait_until_caught_up(self, node: int, timeout: float = START_TIMEOUT_S) -> None:
        """Wait until a node knows the leader and has applied what any node had applied when this was called.

        Raises:
            ClusterFailed: it did not in time, or a node has ended.
        """
        target = max((answer.applied_upto for answer in self.status().answers), default=0)

        def found() -> bool:
            answers = self.status(nodes=[node]).answers
            return any(answer.leader and answer.applied_upto >= target for answer in answers)

        self.wait_until(found, f"node {node} to catch up", timeout)

    def wait_until(self, ask: Callable[[], T], what: str, timeout: float = START_TIMEOUT_S) -> T:
        """Ask until the answer is true, and return it.

        Raises:
            ClusterFailed: it was not in time, or a node has ended that was not killed or stopped on purpose.
        """
        deadline = time.monotonic() + timeout
        running = self.running
        while not (answer := ask()):
            ended = [node for node in running if node not in self.running]
            if ended or time.monotonic() >= deadline:
                why = f"node {ended[0]} has ended" if ended else f"it did not come in {timeout:g} s"
                raise ClusterFailed(f"while waiting for {what}: {why}{self.ends_of_logs(*(ended or self.nodes))}")
            time.sleep(LOOK_S)
        return answer

    def ends_of_logs(self, *nodes: int) -> str:
        """Return the last lines of the logs of these nodes, to be added to an error."""
        shown = ""
        for node in nodes:
            if self.log_of(node).exists():
                lines = self.log_of(node).read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES_SHOWN:]
                shown += "".join(f"\n  node {node}: {line}" for line in lines)
        return shown
