"""Whole nodes in this process: they start, serve, stop, come back, and refuse what they must refuse."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lessor
from lessor.actors.acceptor import AcceptorShell
from lessor.actors.embedded import Embedded
from lessor.actors.expiry_timer import ExpiryTimerShell
from lessor.actors.node import Node, NodeConfig
from lessor.core import limits
from lessor.core.commands import Describe
from lessor.core.effects import Role
from lessor.core.errors import BadRequest, Corrupt, ForeignDatabase
from lessor.core.requests import Request
from lessor.storage.failures import StorageFailed
from lessor.transport.endpoints import of_role, parse
from lessor.transport.feed import FeedSubscriber
from lessor.transport.ports import AddressInUse

from ..support.sockets import HOST, Asker, a_context, counter, free_endpoints, free_port, is_free, status_of
from ..support.waiting import until
from .conftest import Nodes

Make = Callable[[int], Nodes]


def ports_of(endpoint: str) -> list[int]:
    _, base = parse(endpoint)
    return list(range(base, base + limits.PORTS_PER_NODE))


def given_back(*endpoints: str) -> None:
    """Wait until all ports of nodes that have stopped are free: ZeroMQ may let go of them a little later."""
    until(lambda: all(is_free(port) for endpoint in endpoints for port in ports_of(endpoint)), "the ports to be free")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def take_one(endpoints: str, name: str = "job") -> int:
    """Acquire a lease and give it back; return its token."""
    with lessor.connect(endpoints, request_timeout=20) as client, client.lock(name, ttl=30) as lease:
        assert lease.held
        return lease.token


def settled(cluster: Nodes) -> int:
    """The slot that all running nodes have applied, 0 while they differ or a session that was opened is not ended."""
    found = [status_of(cluster.endpoints[node]) for node in cluster.running]
    over = all(status.revision and not status.sessions and not status.held for status in found)
    same = len({(status.applied_upto, status.revision, status.clock_ms) for status in found}) == 1
    return found[0].applied_upto if over and same else 0


# --- one node --------------------------------------------------------------------------------------------------------


def test_a_node_starts_and_stops_again_and_again_and_its_tokens_grow(nodes: Make) -> None:  # P5
    alone = nodes(1)
    tokens = []
    for _ in range(3):
        node = alone.start()
        tokens += [take_one(node.endpoints) for _ in range(3)]
        assert not any(is_free(port) for port in ports_of(alone.endpoints[1]))
        alone.stop()
        given_back(alone.endpoints[1])
    assert tokens == sorted(set(tokens)), "strictly growing"


def test_an_embedded_node_shows_where_it_is() -> None:
    with lessor.embedded() as node:
        assert repr(node) == f"<Embedded {node.endpoints}>"


def test_a_node_that_stops_leaves_no_thread_and_no_file_open(nodes: Make) -> None:
    alone = nodes(1)
    alone.start()
    take_one(alone.connect_to)
    alone.stop()
    threads, files = threading.active_count(), open_files()
    for _ in range(3):
        alone.start()
        take_one(alone.connect_to)
        alone.stop()
    until(lambda: threading.active_count() <= threads, "the threads to end")
    until(lambda: open_files() <= files, "the files to be closed")


def test_a_node_may_be_stopped_twice_and_by_several_threads(nodes: Make) -> None:
    node = nodes(1).start()
    stoppers = [threading.Thread(target=node.stop) for _ in range(4)]
    for stopper in stoppers:
        stopper.start()
    for stopper in stoppers:
        stopper.join()
    node.stop()
    assert node.wait(0) is None
    assert node.failure is None


def test_a_lease_outlives_a_restart_of_the_only_node(nodes: Make) -> None:
    alone = nodes(1)
    node = alone.start()
    with lessor.connect(node.endpoints, request_timeout=20) as client:
        held = client.acquire("job", ttl=60, detached=True)
        alone.stop()
        alone.start()
        [seen] = client.describe("job")
        assert seen.token == held.token
        assert client.try_acquire("job", ttl=60) is None
        held.release()
        other = client.acquire("job", ttl=60)
        assert other.token > held.token


def test_the_events_of_a_node_are_told_at_its_fifth_port(nodes: Make) -> None:
    node = nodes(1).start()
    with a_context() as context:
        feed = FeedSubscriber(context, of_role(node.endpoints, Role.FEED), namespace="default", path=("job",))

        kinds: set[str] = set()

        def heard() -> bool:
            take_one(node.endpoints)  # the first ones may pass before the subscription stands
            event = feed.next(50)
            if event is not None:
                kinds.add(event.kind)
            return {"granted", "released"} <= kinds

        until(heard, "the grant and the release to be told")
        feed.close()


# --- what a node refuses ---------------------------------------------------------------------------------------------


def test_a_second_node_on_the_same_directory_is_refused_and_the_first_goes_on(nodes: Make) -> None:
    alone = nodes(1)
    node = alone.start()
    elsewhere = NodeConfig(1, free_endpoints(1), alone.data(1))
    with pytest.raises(ForeignDatabase, match=rf"node1 is in use by process {os.getpid()}"):
        Node(elsewhere)
    given_back(elsewhere.endpoints[1])
    take_one(node.endpoints)


@pytest.mark.parametrize("role", list(Role)[: limits.PORTS_PER_NODE])
def test_a_port_that_is_taken_is_named_and_nothing_is_left_open(nodes: Make, role: Role) -> None:
    alone = nodes(1)
    port = ports_of(alone.endpoints[1])[role]
    with socket.create_server((HOST, port)):
        with pytest.raises(
            AddressInUse,
            match=rf"cannot listen on tcp://{HOST}:{port} \({role.name.lower()}\): .*in use.* running there already\?",
        ):
            Node(alone.config(1))
        until(
            lambda: [is_free(other) for other in ports_of(alone.endpoints[1])].count(False) == 1,
            "the others to be free",
        )
    alone.start()
    take_one(alone.connect_to)


@pytest.mark.parametrize(
    ("node", "count", "cluster", "fault"),
    [(2, 3, "lessor", "node 1"), (1, 3, "other", "other"), (1, 5, "lessor", "nodes 1, 2, 3")],
    ids=["another number", "another cluster", "other members"],
)
def test_the_directory_of_another_is_refused(tmp_path: Path, node: int, count: int, cluster: str, fault: str) -> None:
    Node(NodeConfig(1, free_endpoints(3), tmp_path)).stop()
    with pytest.raises(ForeignDatabase, match=fault):
        Node(NodeConfig(node, free_endpoints(count), tmp_path, cluster))
    Node(NodeConfig(1, free_endpoints(3), tmp_path)).stop()


def test_a_node_that_is_no_member_of_its_cluster_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"node 4 is not in the cluster \[1, 2, 3\]"):
        Node(NodeConfig(4, free_endpoints(3), tmp_path / "data"))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["", "x" * 65, "é" * 33])
def test_a_name_of_a_cluster_that_no_status_could_tell_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequest, match=f"1 to 64 bytes in UTF-8, not {len(name.encode())}"):
        Node(NodeConfig(1, free_endpoints(1), tmp_path / "data", name))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["journal.db", "leases.db"])
def test_a_damaged_database_is_named_and_nothing_is_left_running(nodes: Make, name: str) -> None:
    alone = nodes(1)
    alone.start()
    take_one(alone.connect_to)
    alone.stop()
    damaged = alone.data(1) / name
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2 :] = os.urandom(len(data) - len(data) // 2)
    damaged.write_bytes(data)
    threads = threading.active_count()
    with pytest.raises((Corrupt, ForeignDatabase), match=name):
        Node(alone.config(1)).start()
    given_back(alone.endpoints[1])
    until(lambda: threading.active_count() <= threads, "the threads to end")


def test_a_node_does_not_run_without_its_assertions(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from lessor.actors.node import Node, NodeConfig\n"
        "Node(NodeConfig(1, {1: 'tcp://127.0.0.1:7411'}, Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-O", "-c", program, str(tmp_path / "data")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "a node does not run under `python -O`" in done.stderr
    assert not (tmp_path / "data").exists()


# --- failures --------------------------------------------------------------------------------------------------------


def break_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_shell: AcceptorShell, _writes: Any) -> None:
        raise StorageFailed("the disk is gone")

    monkeypatch.setattr(AcceptorShell, "commit", broken)


def test_a_role_that_fails_ends_the_whole_node_and_its_directory_may_be_opened_again(
    nodes: Make, monkeypatch: pytest.MonkeyPatch
) -> None:  # P2
    alone = nodes(1)
    told: list[tuple[str, BaseException]] = []
    node = Node(alone.config(1), on_fatal=lambda role, error: told.append((role, error))).start()
    token = take_one(node.endpoints)
    with monkeypatch.context() as broken, a_context() as context, Asker(context, node.endpoints) as asker:
        break_commits(broken)
        asker.say(Request(0, 1, 1, Describe("default", ("job",))))
        failure = node.wait(60)
    assert failure is not None
    assert failure[0] == "acceptor"
    assert isinstance(failure[1], StorageFailed)
    assert told == [failure]
    given_back(alone.endpoints[1])
    alone.start()
    assert take_one(alone.connect_to) > token


def test_a_role_that_fails_while_others_still_start_is_the_error_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("out of time")

    monkeypatch.setattr(ExpiryTimerShell, "on_receive", broken)
    for turn in range(5):
        endpoints = free_endpoints(3)
        node = Node(NodeConfig(1, endpoints, tmp_path / str(turn)))
        try:
            node.start()
        except RuntimeError as error:
            assert str(error) == "out of time"  # noqa: PT017 - it may be told here, or by wait
        failure = node.wait(60)
        assert failure is not None
        assert failure[0] == "expiry timer"
        assert str(failure[1]) == "out of time"
        given_back(endpoints[1])


# --- three nodes -----------------------------------------------------------------------------------------------------


def test_three_nodes_serve_as_one_and_lose_any_of_them_without_losing_a_lease(nodes: Make) -> None:
    three = nodes(3)
    three.start()
    tokens = [take_one(three.connect_to)]
    with lessor.connect(three.connect_to, request_timeout=20) as client:
        held = client.acquire("kept", ttl=60)
        for _ in range(2):
            leader = three.leader()
            three.stop(leader)
            given_back(three.endpoints[leader])
            tokens.append(take_one(three.connect_to))
            assert held.held
            assert [seen.token for seen in client.describe("kept")] == [held.token]
            three.start(leader)
        three.leader()
        assert held.release()
    assert tokens == sorted(set(tokens))
    until(lambda: settled(three), "the nodes to have applied the same")  # P1
    three.stop()
    given_back(*three.endpoints.values())


def test_three_nodes_that_were_all_stopped_come_back_with_growing_tokens(nodes: Make) -> None:  # P5
    three = nodes(3)
    three.start()
    before = take_one(three.connect_to)
    three.stop()
    three.start()
    assert take_one(three.connect_to) > before


@pytest.mark.parametrize("lost_one", ["a follower", "the leader"])
def test_a_node_that_lost_its_journal_has_no_vote_and_stops_itself_with_the_reason(
    nodes: Make, lost_one: str, caplog: pytest.LogCaptureFixture
) -> None:
    """P1: it has forgotten what it promised, so a majority with it would know nothing of what was chosen before."""
    three = nodes(3)
    three.start()
    token = take_one(three.connect_to)
    leader = three.leader()
    witness, follower = sorted(set(three.endpoints) - {leader})
    lost, away = (follower, leader) if lost_one == "a follower" else (leader, follower)
    roster = three.running[witness].directory
    until(lambda: roster.known_incarnation(lost), "the witness to have met the one that is to be lost")
    three.stop(follower, leader)  # in this order: no other leader is found meanwhile
    shutil.rmtree(three.data(lost))
    caplog.set_level("INFO", "lessor.actors.proposer")
    caplog.clear()

    node = three.start(lost)
    failure = node.wait(60)
    assert failure is not None, "it goes on without its promises"
    assert isinstance(failure[1], ForeignDatabase)
    reason = str(failure[1])
    assert f"the cluster knows node {lost} with another journal than the new one in {three.data(lost)}" in reason
    assert "the others go on without it" in reason
    given_back(three.endpoints[lost])
    with pytest.raises(ForeignDatabase, match="the cluster knows node"):
        three.start(lost)  # as a supervisor does

    assert not [line for line in caplog.messages if " leads under " in line], "its vote was counted"
    until(lambda: counter(status_of(three.endpoints[witness]), "packets_of_strangers"), "the stranger to be counted")
    three.running.pop(lost)
    three.start(away)
    assert take_one(three.connect_to) > token


# --- embedded --------------------------------------------------------------------------------------------------------


def test_an_embedded_service_removes_its_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with lessor.embedded() as node:
        assert take_one(node.endpoints) == 1
        assert node.failure is None
        [made] = tmp_path.iterdir()
        assert (made / "journal.db").exists()
    assert list(tmp_path.iterdir()) == []
    node.stop()


def test_an_embedded_service_that_cannot_start_removes_its_temporary_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    port = free_port()
    with socket.create_server((HOST, port + 2)), pytest.raises(AddressInUse, match=f":{port + 2} "):
        lessor.embedded(port=port)
    assert list(tmp_path.iterdir()) == []


def test_an_embedded_service_looks_for_other_ports_if_somebody_took_those_that_were_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    offers = [port, port, free_port()]
    monkeypatch.setattr("lessor.actors.embedded.free_base_port", lambda: offers.pop(0))
    with socket.create_server((HOST, port + 4)), Embedded() as node:
        assert take_one(node.endpoints) == 1
    assert offers == []


def test_an_embedded_service_keeps_the_directory_that_it_was_given_and_its_tokens_grow(tmp_path: Path) -> None:  # P5
    port = free_port()
    tokens = []
    for _ in range(2):
        with lessor.embedded(tmp_path / "data", port) as node:
            assert node.endpoints == f"tcp://{HOST}:{port}"
            tokens.append(take_one(node.endpoints))
    assert tokens == sorted(set(tokens))
    with pytest.raises(ForeignDatabase, match="node 1"):
        Node(NodeConfig(2, {2: f"tcp://{HOST}:{port}"}, tmp_path / "data"))


def test_two_embedded_services_live_side_by_side(tmp_path: Path) -> None:
    with lessor.embedded() as one, lessor.embedded() as other:
        assert one.endpoints != other.endpoints
        assert take_one(one.endpoints) == take_one(other.endpoints) == 1


def test_a_listing_of_leases_with_much_data_arrives(nodes: Make) -> None:  # P10: in pages that fit into a packet
    node = nodes(1).start()
    with lessor.connect(node.endpoints, request_timeout=60) as client:
        names = [f"job-{number}" for number in range(40)]
        for name in names:
            client.acquire(name, ttl=60, data=bytes(limits.DATA_BYTES_MAX))
        assert [view.name for view in client.leases()] == names
