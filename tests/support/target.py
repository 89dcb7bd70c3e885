"""A node under attack: a process of its own, with a client that works meanwhile and a reader that watches its feed."""

import hashlib
import os
import random
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lessor
from lessor.cli.local_cluster import LocalCluster
from lessor.core.effects import Role
from lessor.core.requests import StatusAnswer
from lessor.transport.endpoints import of_role, parse
from lessor.transport.feed import FeedSubscriber
from lessor.transport.sockets import Context

from .sockets import (
    RawPeer,
    counter,
    seeded,
    status_of,
    zmtp_frame,
)
from .waiting import until

MB = 1024 * 1024
MEMORY_MAX = 400 * MB
"""What the node may grow by at its worst moment. It starts with some 40 MB."""
MEMORY_KEPT_MAX = 100 * MB
"""What it may have kept of that in the end."""

ROUTERS = (Role.GATEWAY, Role.PROPOSER, Role.ACCEPTOR, Role.LEARNER)
PORTS = (*ROUTERS, Role.FEED)
CLUSTER = int.from_bytes(hashlib.sha256(b"lessor (1,)").digest()[:7], "big")
"""What the packets of nodes of this cluster carry: no secret."""

MALFORMED, FOREIGN, BAD, HANDSHAKE = "packets_malformed", "packets_foreign", "messages_malformed", "handshakes_failed"
ENDED = "connections_ended"


class Worker:
    """A well-behaved client that acquires and releases all the time, and counts."""

    def __init__(self, endpoint: str) -> None:
        self.client = lessor.connect(endpoint, request_timeout=60, session_timeout=60)
        self.pairs = 0
        self.error: BaseException | None = None
        self._go = threading.Event()
        self._idle = threading.Event()
        self._end = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        last = 0
        try:
            while not self._end:
                if not self._go.is_set():
                    self._idle.set()
                    self._go.wait()
                    continue
                with self.client.lock("work", ttl=30) as lease:
                    assert lease.token > last
                    last = lease.token
                self.pairs += 1
        except BaseException as error:  # noqa: BLE001 - the test's thread raises it
            self.error = error
            self._idle.set()

    def work(self) -> None:
        self._idle.clear()
        self._go.set()

    def rest(self) -> None:
        self._go.clear()
        assert self._idle.wait(60)
        self.check()

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def some_more_pairs(self) -> None:
        """Wait until some more leases were held than by now."""
        wanted = self.pairs + 5

        def served() -> bool:
            self.check()
            return self.pairs >= wanted

        until(served, "the node to go on serving", every=0.005)

    def close(self) -> None:
        self._end = True
        self._go.set()
        self._thread.join(60)
        self.client.close()


class Target:
    """A node in a process of its own, with a client that depends on it and a reader of its feed."""

    def __init__(self, cluster: LocalCluster, context: Context) -> None:
        self.cluster = cluster
        self.endpoint = cluster.endpoint_of[1]
        self.base = parse(self.endpoint)[1]
        self.feed = FeedSubscriber(context, of_role(self.endpoint, Role.FEED))
        self.revision = 0
        self.worker = Worker(self.endpoint)

    def hear_of_the_work_and_of_nothing_else(self) -> None:
        """Take in what the feed tells: all that has changed is what the client has acquired and released."""
        while self.revision < 1 + 2 * self.worker.pairs:
            event = self.feed.next(60_000)
            assert event is not None, "the feed has fallen silent"
            # the first events may have passed before the feed was joined: the client opened its session, and worked
            assert event.revision == self.revision + 1 or not self.revision
            self.revision = event.revision
            if event.revision > 1:
                expected = "granted" if event.revision % 2 == 0 else "released"
                assert (event.kind, event.path, event.session) == (expected, ("work",), 1)
        assert self.feed.next(0) is None

    def memory(self, field: str = "VmRSS") -> int:
        lines = Path(f"/proc/{self.cluster.pid_of(1)}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))

    def forget_peak(self) -> None:
        Path(f"/proc/{self.cluster.pid_of(1)}/clear_refs").write_text("5", encoding="ascii")

    def status(self) -> StatusAnswer:
        return status_of(self.endpoint)

    def raw(self, role: Role) -> RawPeer:
        return RawPeer(self.base + role)

    def peer(self, role: Role) -> RawPeer:
        """A connection that has shaken hands as one of ours does."""
        return self.raw(role).greet(b"SUB" if role is Role.FEED else b"DEALER")

    def say(self, role: Role, *packets: bytes) -> None:
        """Send each packet in a message of its own, and wait until the node has read them."""
        with self.peer(role) as peer:
            peer.send(b"".join(zmtp_frame(packet) for packet in packets))
            self.read_all(peer, role)

    def read_all(self, peer: RawPeer, role: Role) -> None:
        """Wait until the node has read what was sent, as far as its kernel tells; or has ended the connection."""
        name = f"{peer.socket.getsockname()[1]:04X}"

        def read() -> bool:
            tables = "".join(Path("/proc/net", table).read_text(encoding="ascii") for table in ("tcp", "tcp6"))
            for line in tables.splitlines():
                _, local, remote, _, queues, *_ = line.split()
                if local.endswith(f":{self.base + role:04X}") and remote.endswith(f":{name}"):
                    return queues.endswith(":00000000")
            return True

        until(read, "the node to read", every=0.002)


def check_that_the_node_is_as_it_was(target: Target) -> None:
    target.hear_of_the_work_and_of_nothing_else()
    until(lambda: target.status().revision == target.revision, "the state to be told")
    status = target.status()
    assert (status.sessions, status.held, status.waiting) == (1, 0, 0)
    assert target.memory() < 50 * MB + MEMORY_KEPT_MAX
    target.worker.close()
    log = target.cluster.log_of(1).read_text(encoding="utf-8")
    assert "Traceback" not in log
    assert len(log) < 100_000, "a log that grows with every bad packet would be another way to stop a node"
    assert target.cluster.stop(1) == os.EX_OK


Attack = Callable[[Target, random.Random], Any]


def attack(target: Target, name: str, carry_out: Attack, *counters: str) -> None:
    """Attack the node while its client works, and see that nothing came of it but counts."""
    worker = target.worker
    before = target.status()
    pairs, memory = worker.pairs, target.memory()
    target.forget_peak()
    worker.work()
    with ExitStack() as open_:
        held = carry_out(target, seeded(name))
        if held is not None:
            open_.enter_context(held)
        worker.some_more_pairs()
    worker.some_more_pairs()
    worker.rest()

    def counted() -> bool:
        after = target.status()
        return all(counter(after, name) > counter(before, name) for name in counters)

    until(counted, f"the counters {counters} to go up")
    target.hear_of_the_work_and_of_nothing_else()
    after = target.status()
    assert (after.role, after.ballot, after.leader) == (before.role, before.ballot, before.leader)
    assert target.cluster.running == [1]
    peak = target.memory("VmHWM") - memory
    print(f"{name}: {worker.pairs - pairs} pairs meanwhile, {peak / MB:.0f} MB at the peak")
    assert peak < MEMORY_MAX
