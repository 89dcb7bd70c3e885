"""The nodes of a test cluster: production nodes that can be killed and paused, in threads or as processes."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO, Any, Final, Protocol, cast

from ..actors.inbox import Batch
from ..actors.node import Node, NodeConfig
from ..actors.shell import Shell
from ..core.effects import Role, Send
from ..core.errors import LessorError
from ..transport.ports import AddressInUse

STOP_TIMEOUT_S: Final = 30.0


class ClusterFailed(LessorError):
    """A node ended by itself or did not start, or what was waited for did not come in time."""


class Member(Protocol):
    """What a cluster does with a node, wherever it runs."""

    base: int

    def start(self) -> None:
        """Let it serve; returns when it does."""
        ...

    def kill(self) -> None:
        """End it with all that was not committed, as SIGKILL does."""
        ...

    def stop(self) -> None:
        """End it in order."""
        ...

    def pause(self) -> None:
        """Let it stand still, as SIGSTOP does."""
        ...

    def resume(self) -> None:
        """Let it go on."""
        ...

    @property
    def failure(self) -> str:
        """Why it ended by itself, "" if it did not."""
        ...


# --- in a thread -----------------------------------------------------------------------------------------------------


class Life:
    """Whether the threads of a node may go on: not while it is paused, and never again once it is dead."""

    def __init__(self) -> None:
        """Begin alive."""
        self._going = threading.Event()
        self._going.set()
        self._dead = False

    def goes_on(self) -> bool:
        """Wait while the node is paused; return whether it lives."""
        self._going.wait()
        return not self._dead

    def pause(self) -> None:
        """Let everybody wait who asks."""
        self._going.clear()

    def resume(self) -> None:
        """Let everybody go on."""
        self._going.set()

    def end(self) -> None:
        """Nothing is decided, written or said from now on."""
        self._dead = True
        self._going.set()


class _Mortal(Shell):
    """What makes a role mortal: before each step, each commit and each word it asks whether its node lives."""

    life: Life

    def on_receive(self, batch: Batch) -> None:
        if self.life.goes_on():
            super().on_receive(batch)
        else:
            self.inbox.wake_at_ms = None  # it wants nothing any more

    def commit(self, writes: Sequence[Any]) -> None:
        if self.life.goes_on():
            super().commit(writes)

    def speak(self, sends: list[Send]) -> None:
        if self.life.goes_on():
            super().speak(sends)

    def finish(self) -> None:
        if self.life.goes_on():
            super().finish()


class MortalNode(Node):
    """A production node in this process, that can be killed and paused."""

    def __init__(self, config: NodeConfig) -> None:
        """Open the directory and bind the ports, as any node."""
        self.life = Life()
        super().__init__(config)

    def kill(self) -> None:
        """Stop, without finishing anything."""
        self.life.end()
        self.stop()

    def _launch(self, role: Role, shell: type[Shell], *arguments: Any) -> Any:
        mortal = type(shell.__name__, (_Mortal, shell), {"life": self.life})
        return super()._launch(role, mortal, *arguments)


class ThreadNode:
    """A node in this process."""

    def __init__(self, config: NodeConfig) -> None:
        """Open the directory and bind ports."""
        self.base = config.bind_port
        self._node = MortalNode(config)

    def start(self) -> None:
        """Start the roles."""
        self._node.start()

    def kill(self) -> None:
        """End it at once. A transaction that is being committed right now is the last one."""
        self._node.kill()

    def stop(self) -> None:
        """End it in order."""
        self._node.life.resume()
        self._node.stop()

    def pause(self) -> None:
        """Let every role stand still at its next step, commit or word."""
        self._node.life.pause()

    def resume(self) -> None:
        """Let every role go on."""
        self._node.life.resume()

    @property
    def failure(self) -> str:
        """Which role failed, and why."""
        failure = self._node.failure
        return f"its {failure[0]} failed: {failure[1]}" if failure is not None else ""


# --- in a process ----------------------------------------------------------------------------------------------------


class ProcessNode:
    """A node in a process of its own, which does not outlive this one."""

    def __init__(self, config: NodeConfig) -> None:
        """Start the process; it has bound its ports once `start` returns."""
        self.base = config.bind_port
        self._log = config.data.with_suffix(".log")
        self._asked = False
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "lessor.testing.node_process", repr(_as_literal(config))],
                stdin=subprocess.PIPE,  # it ends when this is closed, as it is when this process ends
                stdout=subprocess.PIPE,
                stderr=log,
                process_group=0,  # the Ctrl-C of a terminal is for this process, which then ends its nodes
            )

    def start(self) -> None:
        """Wait until it serves.

        Raises:
            AddressInUse: a port was taken.
            ClusterFailed: it could not start.
        """
        told = cast(IO[bytes], self._process.stdout).readline()
        if told != b"ready\n":
            self._end(signal.SIGKILL)
            if told == b"address in use\n":
                raise AddressInUse(f"a port from {self.base} on is taken")
            raise ClusterFailed(f"a node did not start{self._end_of_log()}")

    def kill(self) -> None:
        """Send SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Send SIGTERM, and wait."""
        self.resume()
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Send SIGSTOP, and wait until it stands still."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Send SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    @property
    def failure(self) -> str:
        """With what code it ended by itself, and the end of its log."""
        code = None if self._asked else self._process.poll()
        return f"its process ended with {code}{self._end_of_log()}" if code is not None else ""

    def _end(self, by: signal.Signals) -> None:
        self._asked = True
        self._process.send_signal(by)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            for pipe in (self._process.stdin, self._process.stdout):
                cast(IO[bytes], pipe).close()

    def _end_of_log(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        return "".join(f"\n  {line}" for line in lines)


def _as_literal(config: NodeConfig) -> tuple[Any, ...]:
    return (
        config.node,
        config.endpoints,
        str(config.data),
        config.cluster,
        config.bind,
        config.bind_port,
        config.peers,
    )
