"""Each fault of the test kit does what it says, as a client sees it; and a cluster leaves nothing behind."""

import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lessor
from lessor.actors.acceptor import AcceptorShell
from lessor.actors.learner import LearnerShell
from lessor.core.acceptor import Acceptor
from lessor.core.effects import Effects
from lessor.core.messages import Accept
from lessor.testing import Cluster, ClusterFailed
from lessor.testing.nodes import ProcessNode, ThreadNode
from lessor.transport.endpoints import parse

from ..support.waiting import until


@pytest.fixture
def three() -> Iterator[Cluster]:
    with Cluster(3) as cluster:
        yield cluster


@pytest.fixture
def alone() -> Iterator[Cluster]:
    with Cluster(1) as cluster:
        yield cluster


def refuses(cluster: Cluster, node: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(parse(cluster.endpoint_of(node))) != 0


# --- kill ------------------------------------------------------------------------------------------------------------


def test_a_lease_survives_the_death_of_the_leader_with_its_token(three: Cluster) -> None:  # P4, P5
    client = three.client()
    lease = client.acquire("job", ttl=30)
    killed = three.kill_leader()
    assert three.running == sorted({1, 2, 3} - {killed})
    assert refuses(three, killed)
    assert three.wait_for_leader() != killed
    assert [view.token for view in client.describe("job")] == [lease.token]
    lease.renew()
    assert client.acquire("other").token > lease.token
    endpoints = three.endpoints
    three.restart(killed)
    assert three.endpoints == endpoints
    assert not refuses(three, killed)
    three.kill(({1, 2, 3} - {killed}).pop())
    lease.renew()  # needs the one that came back


def test_without_a_majority_nothing_is_granted_until_a_node_is_back(three: Cluster) -> None:
    client = three.client(session_timeout=60)
    lease = client.acquire("job", ttl=None)
    three.kill(1)
    three.kill(2)
    assert three.leader == 0
    with three.client(request_timeout=0.3) as hasty, pytest.raises(lessor.Unavailable):
        hasty.try_acquire("other")
    three.restart(2)
    three.wait_for_leader()
    assert lease.held
    assert client.try_acquire("other") is not None


def test_a_killed_node_finishes_nothing_and_one_that_is_restarted_in_order_does(
    alone: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished: list[LearnerShell] = []
    monkeypatch.setattr(LearnerShell, "finish", lambda shell: finished.append(shell))  # noqa: PLW0108 - to be bound
    lease = alone.client().acquire("job", ttl=30)
    alone.kill(1)
    assert finished == []
    alone.restart(1)
    alone.wait_for_leader()
    lease.renew()  # what it had committed is there
    alone.restart(1)
    assert len(finished) == 1
    lease.renew()


def test_a_node_that_dies_in_the_middle_of_a_step_writes_nothing_and_says_nothing(
    alone: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    [node] = alone._members.values()
    assert isinstance(node, ThreadNode)
    life, step = node._node.life, Acceptor.step
    written: list[Any] = []
    commit = AcceptorShell.commit
    dead = threading.Event()

    def die(core: Acceptor, message: Any) -> Effects:
        if isinstance(message, Accept):
            life.end()
            dead.set()
        return step(core, message)

    def note(shell: AcceptorShell, writes: Any) -> None:
        if dead.is_set():
            written.append(writes)
        commit(shell, writes)

    monkeypatch.setattr(Acceptor, "step", die)
    monkeypatch.setattr(AcceptorShell, "commit", note)
    client = alone.client(request_timeout=0.3)

    def asked() -> bool:
        with pytest.raises(lessor.Unavailable):
            client.try_acquire("job")
        return dead.is_set()

    until(asked, "it to be asked, and to die of it")
    assert written == []


# --- partition -------------------------------------------------------------------------------------------------------


def cut_off_leader(cluster: Cluster) -> int:
    """Cut a leader off from its peers, and return it; another one if it has just been followed by one."""
    while True:
        leader = cluster.wait_for_leader()
        cluster.partition(leader, clients=False)
        if any(answer.node == leader and answer.role == "leader" for answer in cluster.status().answers):
            return leader
        cluster.heal()


def test_a_leader_that_is_cut_off_grants_nothing_while_another_leads(three: Cluster) -> None:  # P3
    client = three.client()
    lease = client.acquire("job", ttl=30)
    old = cut_off_leader(three)
    with lessor.connect(three.endpoint_of(old), request_timeout=0.3) as naive, pytest.raises(lessor.Unavailable):
        naive.try_acquire("other")
    assert three.wait_for_leader() != old
    other = client.acquire("other", ttl=30)
    assert other.token > lease.token
    lease.renew()
    three.heal()
    until(lambda: _takes_part(three, old), "the old leader to follow, or to lead again")
    three.kill(({1, 2, 3} - {old, three.wait_for_leader()}).pop())
    lease.renew()  # needs the old leader
    assert client.describe("other")[0].token == other.token


def test_a_cluster_that_no_client_reaches_has_a_leader_and_the_lease_is_lost_in_time(three: Cluster) -> None:  # P8
    lease = three.client(request_timeout=0.2).acquire("job", ttl=2)
    three.partition(*three.nodes, peers=False)
    held = lease.held
    with pytest.raises((lessor.Unavailable, lessor.LeaseLost)):
        lease.renew()
    until(lambda: not lease.held, "the loss of the lease")
    # before it could be renewed, or on a machine that stood still; the service itself may have told of it only before
    assert lease.lost_reason.startswith("it expired ") or not held
    assert three.wait_for_leader()
    three.heal()
    assert three.client().acquire("job", timeout=60).token > lease.token


@pytest.mark.parametrize("hears", [True, False], ids=["it hears", "it is heard"])
def test_a_leader_that_is_cut_off_in_one_direction_is_replaced(three: Cluster, *, hears: bool) -> None:
    leader = three.wait_for_leader()
    other = leader % 3 + 1
    three.partition(leader, hears=hears, heard=not hears)
    assert three._network.passes(other, leader) is hears
    assert three._network.passes(leader, other) is not hears
    assert three.wait_for_leader() != leader
    three.heal()
    # one that could only be heard may win again: the answers that it asked for as a candidate reach it now
    until(lambda: _takes_part(three, leader), "the old leader to follow, or to lead again")


def test_a_partition_is_from_the_peers_or_the_clients_or_both_and_they_add_up() -> None:
    with Cluster(2) as two:

        def cut() -> set[tuple[int, int]]:
            return {(a, b) for a in range(3) for b in range(3) if not two._network.passes(a, b)}

        from_peer, from_clients = {(1, 2), (2, 1)}, {(1, 0), (0, 1)}
        two.partition(1, clients=False)
        assert cut() == from_peer
        two.heal()
        two.partition(1, peers=False)
        assert cut() == from_clients
        two.partition(1, clients=False)
        assert cut() == from_peer | from_clients
        two.heal()
        assert cut() == set()
        two.partition(1)
        assert cut() == from_peer | from_clients


def test_nodes_that_are_cut_off_together_go_on_together_if_they_are_a_majority(three: Cluster) -> None:
    three.partition(1, 2)
    assert three.wait_for_leader() in {1, 2}


# --- pause -----------------------------------------------------------------------------------------------------------


def test_a_leader_that_is_paused_loses_no_lease_and_takes_part_once_it_goes_on(three: Cluster) -> None:  # P4
    client = three.client()
    lease = client.acquire("job", ttl=30)
    paused = three.wait_for_leader()
    three.pause(paused)
    assert three.wait_for_leader() != paused
    lease.renew()
    three.resume(paused)
    until(lambda: _takes_part(three, paused), "the one that was paused to follow, or to lead again")
    assert lease.held
    assert [view.token for view in client.describe("job")] == [lease.token]


def test_the_pause_of_a_whole_cluster_costs_no_lease_its_time(alone: Cluster) -> None:  # P4: its clock stands still
    client, hasty = alone.client(), alone.client(request_timeout=2)
    lease = client.acquire("job", ttl=60)
    begun = time.monotonic()
    before = client.describe("job")[0].expires_in
    alone.pause(1)
    paused = time.monotonic()
    with pytest.raises(lessor.Unavailable):
        hasty.describe("job")
    resumed = time.monotonic()
    alone.resume(1)
    after = client.describe("job")[0].expires_in
    awake = time.monotonic() - resumed + paused - begun
    assert after > before - awake - 1.5, "the two seconds of the pause were counted"
    assert lease.held


def test_a_paused_node_neither_decides_nor_writes(alone: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    client = alone.client(request_timeout=0.3)
    client.acquire("job")
    alone.pause(1)
    written: list[Any] = []
    commit = AcceptorShell.commit

    def note(shell: AcceptorShell, writes: Any) -> None:
        # what was being committed when it was paused is no matter
        written.extend(write for write in writes if "other" in repr(write))
        commit(shell, writes)

    monkeypatch.setattr(AcceptorShell, "commit", note)
    with pytest.raises(lessor.Unavailable):
        client.acquire("other", timeout=0.3)
    assert written == []
    alone.resume(1)
    until(lambda: written, "what was sent meanwhile to arrive")


# --- expire ----------------------------------------------------------------------------------------------------------


def test_what_an_expired_session_held_is_lost_and_the_next_one_is_granted(three: Cluster) -> None:
    client, next_one = three.client(), three.client()
    leases = [client.acquire("job", ttl=None), client.acquire("other", ttl=30), client.acquire("third", ttl=30)]
    granted: list[lessor.Lease] = []
    waiting = threading.Thread(target=lambda: granted.append(next_one.acquire("job", ttl=30)))
    waiting.start()
    until(lambda: len(client.describe("job")) == 2, "somebody to wait")
    session = client.describe("job")[0].session
    assert three.expire(leases[0]) == session
    waiting.join()
    assert granted[0].token > leases[2].token
    until(lambda: not any(lease.held for lease in leases), "the loss of all leases")
    assert {lease.lost_reason for lease in leases} == {"the service says that it is not held any more"}
    assert granted[0].held
    assert [view.name for view in client.leases()] == ["job"]
    again = client.acquire("other", timeout=60)  # the client goes on, under another session
    assert client.describe("other")[0].session not in {0, session}
    assert three.expire(client.describe("other")[0]) != session
    until(lambda: not again.held, "the loss of the lease")


def test_a_lease_without_a_session_cannot_be_expired(alone: Cluster) -> None:
    client = alone.client()
    lease = client.acquire("job", ttl=30, detached=True)
    with pytest.raises(ValueError, match="belongs to no session"):
        alone.expire(lease)
    [view] = client.describe("job")
    assert alone.expire(view.session) == view.session
    assert client.describe("job")[0].token == lease.token, "it ended with the session"
    lease.renew()
    gone = client.acquire("gone", ttl=30)
    gone.release()
    with pytest.raises(ValueError, match="belongs to no session"):
        alone.expire(gone)


# --- what cannot be --------------------------------------------------------------------------------------------------


def test_what_cannot_be_done_is_refused_in_words(alone: Cluster) -> None:
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: alone.kill(2), r"there is no node 2, only \[1\]"),
        (lambda: alone.restart(0), "there is no node 0"),
        (alone.partition, "would cut nothing"),
        (lambda: alone.partition(1, hears=True, heard=True), "would cut nothing"),
        (lambda: alone.partition(1, peers=False, clients=False), "would cut nothing"),
        (lambda: alone.partition(2), "there is no node 2"),
        (lambda: Cluster(0), "1 to 9 nodes, not 0"),
        (lambda: Cluster(10), "1 to 9 nodes, not 10"),
    ]
    for what, why in refused:
        with pytest.raises((ValueError, lessor.BadRequest), match=why):
            what()
    alone.kill(1)
    for fault in (alone.kill, alone.pause, alone.resume):
        with pytest.raises(ValueError, match="node 1 does not run"):
            fault(1)
    with pytest.raises(ClusterFailed, match=r"waited 0.1 s in vain for a leader that a majority follows"):
        alone.wait_for_leader(0.1)


def test_a_node_that_ends_by_itself_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_shell: AcceptorShell, _writes: Any) -> None:
        raise OSError("the disk is gone")

    def body() -> None:
        with Cluster(1) as cluster:
            client = cluster.client(request_timeout=0.2)
            monkeypatch.setattr(AcceptorShell, "commit", broken)

            def ask() -> bool:
                with pytest.raises(lessor.Unavailable):
                    client.try_acquire("job")
                return False

            with pytest.raises(ClusterFailed, match=f"while waiting for its end: {told}"):
                cluster._wait_for(ask, "its end", 60)
            client.close()

    told = "node 1 has ended: its acceptor failed: the disk is gone"
    with pytest.raises(ClusterFailed, match=f"^{told}"):
        body()


# --- processes -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_left")
def test_a_node_that_is_a_process_is_told_by_signals_and_missed_if_it_ends_by_itself() -> None:
    with Cluster(1, processes=True) as cluster:
        client = cluster.client(request_timeout=30)
        lease = client.acquire("job", ttl=30)
        process = process_of(cluster, 1)
        cluster.kill(1)
        assert process.returncode == -signal.SIGKILL
        cluster.restart(1)
        process = process_of(cluster, 1)
        cluster.pause(1)
        assert state_of(process) == "T"
        cluster.resume(1)
        lease.renew()
        cluster.restart(1)
        assert process.returncode == 0, "stopped in order"
        lease.renew()
        client.close()
        process_of(cluster, 1).send_signal(signal.SIGABRT)
        with pytest.raises(ClusterFailed, match="node 1 has ended: its process ended with -6"):
            cluster._wait_for(lambda: False, "its end", 60)
        cluster.kill(1)  # so that it is not told once more


def process_of(cluster: Cluster, node: int) -> "subprocess.Popen[bytes]":
    member = cluster._members[node]
    assert isinstance(member, ProcessNode)
    return member._process


def state_of(process: "subprocess.Popen[bytes]") -> str:
    return Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]


# --- what is left ----------------------------------------------------------------------------------------------------


def _follows(cluster: Cluster, node: int) -> bool:
    leader = cluster.leader
    return any(answer.node == node and answer.leader == leader != node for answer in cluster.status().answers)


def _takes_part(cluster: Cluster, node: int) -> bool:
    """Whether a node follows, or leads: whoever was replaced may be elected again."""
    return _follows(cluster, node) or cluster.leader == node


def _left() -> tuple[int, int]:
    """How many threads and open files there are."""
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Cluster(1):
        pass  # what is made once for a process is made
    before = _left()
    yield
    until(lambda: _left() <= before, "the threads and files to be gone")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nothing_left")
def test_a_test_that_fails_amid_every_fault_leaves_no_thread_file_or_directory() -> None:
    def body() -> None:
        with Cluster(3) as cluster:
            cluster.client().acquire("job")
            cluster.kill(1)
            cluster.pause(2)
            cluster.partition(3)
            cluster.client()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()


@pytest.mark.usefixtures("nothing_left")
def test_a_cluster_that_cannot_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    start = ThreadNode.start

    def broken(node: ThreadNode) -> None:
        if node._node.config.node == 3:
            raise OSError("no more files")
        start(node)

    monkeypatch.setattr(ThreadNode, "start", broken)
    with pytest.raises(OSError, match="no more files"):
        Cluster(3)


def test_the_processes_of_nodes_end_with_the_one_that_started_them() -> None:
    program = (
        "import os; from lessor.testing import Cluster; cluster = Cluster(2, processes=True); cluster.pause(1)\n"
        "print(*[node._process.pid for node in cluster._members.values()], cluster._directory, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    *pids, directory = done.stdout.split()
    assert len(pids) == 2, done.stderr
    shutil.rmtree(directory)  # nobody was left to do it
    until(lambda: not any(Path("/proc", pid, "exe").exists() for pid in pids), "the processes to end")
