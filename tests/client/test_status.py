"""Asking nodes how they are: ones that answer, ones that are not there, and ones that are something else."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import zmq

import lessor
from lessor.client.status import ClusterStatus, NodeStatus, ask_status
from lessor.core.ballot import NO_BALLOT, Ballot
from lessor.core.requests import Rejected, StatusAnswer
from lessor.transport.packets import encode_packet

from ..support.patience import longer

ANSWER = StatusAnswer(1, 1, "lessor", "0", "leader", Ballot(3, 1), 1, "tcp://a:1", 7, 7, 0, 0, 0, 0, 0, ())


def cluster(*answers: StatusAnswer | None) -> ClusterStatus:
    return ClusterStatus(tuple(NodeStatus(f"tcp://h{number}:1", each) for number, each in enumerate(answers)))


@contextmanager
def answering(frame: bytes) -> Iterator[str]:
    """A ROUTER that answers everything with this."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            if router.poll(20):
                router.send_multipart([router.recv_multipart()[0], frame])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{port}"
    finally:
        stop.set()
        thread.join()
        context.destroy(linger=0)


def test_a_node_answers_for_itself() -> None:
    with lessor.embedded() as node:
        found = ask_status([node.endpoints], timeout=60)
        assert found.nodes[0].endpoint == node.endpoints
        assert [answer.node for answer in found.answers] == [1]


def test_nobody_is_told_at_once_and_not_only_after_the_timeout() -> None:
    found = ask_status(["tcp://127.0.0.1:9"], timeout=60)
    assert found.nodes == (NodeStatus("tcp://127.0.0.1:9", None, "cannot be reached"),)


def test_one_that_is_silent_costs_no_more_than_the_timeout_and_hides_no_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, lessor.embedded() as node:
        endpoint = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        for timeout in longer(0.3):
            found = ask_status([endpoint, node.endpoints], timeout)
            assert found.nodes[0] == NodeStatus(endpoint, None, f"no answer in {timeout:g} s")
            if found.answers:
                return
    raise AssertionError("the other is hidden")


def test_one_that_speaks_another_language_is_an_error_and_no_exception() -> None:
    """P11."""
    for frame, words in (
        (b"\xff\xff", "another language"),
        (encode_packet([]), "something else"),
        (encode_packet([Rejected(1, "never heard of it")]), "never heard of it"),
    ):
        with answering(frame) as endpoint:
            node = ask_status([endpoint], timeout=60).nodes[0]
        assert node.answer is None
        assert words in node.error


def test_an_endpoint_that_is_named_twice_is_asked_once_and_told_twice() -> None:
    with lessor.embedded() as node:
        found = ask_status([node.endpoints, node.endpoints], timeout=60)
        assert len(found.answers) == 2


def test_the_leader_is_the_one_of_the_highest_ballot() -> None:
    """One that was cut off may go on believing in its own leadership."""
    newer = replace(ANSWER, node=2, ballot=Ballot(4, 2), leader=2)
    found = cluster(ANSWER, newer, None)
    assert (found.leader, found.ballot) == (2, Ballot(4, 2))
    assert found.healthy


def test_without_a_majority_or_a_leader_it_is_not_healthy() -> None:
    assert not cluster(ANSWER, None, None).healthy
    lost = replace(ANSWER, role="follower", ballot=NO_BALLOT, leader=0)
    found = cluster(lost, lost, lost)
    assert (found.leader, found.healthy) == (0, False)
    assert not cluster(None).healthy
