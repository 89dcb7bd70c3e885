"""P10, P11: a message that never ends is not kept by any port of a node, and nobody else is taken for its sender."""

import sys
from contextlib import suppress

import pytest

from lessor.cli.local_cluster import LocalCluster
from lessor.core import limits
from lessor.core.effects import Role

from ..support.sockets import (
    a_context,
    counter,
    zmtp_frame,
)
from ..support.target import (
    ENDED,
    MALFORMED,
    MB,
    MEMORY_MAX,
    PORTS,
    Target,
    attack,
)
from ..support.waiting import until


def without_end(target: Target, role: Role, part: bytes) -> None:
    """Send parts of a message, and never the last one, until the node ends the connection."""
    parts = zmtp_frame(part, more=True) * (MB // (len(part) + 9))
    with target.peer(role) as peer:
        for _ in range(4_000):
            if not peer.send(parts):
                break
        assert peer.is_closed(), "it has taken in some gigabytes of one message"


@pytest.mark.skipif(sys.platform != "linux", reason="only the kernel of Linux is asked")
@pytest.mark.parametrize("role", PORTS)
def test_a_message_that_never_ends_is_not_kept(target: Target, role: Role) -> None:  # P10, P11
    before = target.memory()
    name = "subscriptions_endless" if role is Role.FEED else "messages_endless"
    attack(target, "never_ends", lambda target, _: without_end(target, role, bytes(2_000)), name, ENDED)
    until(lambda: target.memory() < before + 50 * MB, "the memory to be given back")


@pytest.mark.skipif(sys.platform != "linux", reason="only the kernel of Linux is asked")
def test_a_message_of_endlessly_many_empty_parts_is_not_kept() -> None:  # P10, P11
    """In memory they take thirty times as much as on the wire, and the allocator keeps that for the next time."""
    with LocalCluster(1) as cluster, a_context() as context:
        cluster.start()
        cluster.wait_for_leader()
        target = Target(cluster, context)
        before = target.memory()
        for _ in range(3):
            without_end(target, Role.GATEWAY, b"")
        target.worker.work()
        target.worker.some_more_pairs()
        assert target.memory("VmHWM") - before < MEMORY_MAX
        target.worker.close()


def test_whoever_sends_to_a_node_that_stands_still_is_heard_when_it_goes_on(target: Target) -> None:
    """What has piled up meanwhile is no message without end."""
    before = target.status()
    packets = 40
    frame = zmtp_frame(b"\xff" * MB)
    with target.peer(Role.GATEWAY) as peer:
        target.cluster.pause(1)
        peer.socket.setblocking(False)
        sent = 0
        with suppress(BlockingIOError):
            while True:
                sent += peer.socket.send((frame * 2)[sent % len(frame) :])
        assert sent > MB, "more than the node may be sent without a look at it"
        peer.socket.settimeout(60)
        target.cluster.resume(1)
        assert peer.send((frame * packets)[sent:])
        until(
            lambda: counter(target.status(), MALFORMED) == counter(before, MALFORMED) + packets,
            "the node to have read all of it",
        )
    assert counter(target.status(), "messages_endless") == counter(before, "messages_endless")


def test_the_largest_packet_over_a_slow_connection_is_taken_in(target: Target) -> None:
    before = target.status()
    frame = zmtp_frame(bytes(limits.SOCKET_MESSAGE_BYTES_MAX))
    with target.peer(Role.ACCEPTOR) as peer:
        for place in range(0, len(frame), 64 * 1024):
            peer.send(frame[place : place + 64 * 1024])
            target.read_all(peer, Role.ACCEPTOR)
        until(lambda: counter(target.status(), MALFORMED) == counter(before, MALFORMED) + 1, "the node to have read it")
    assert counter(target.status(), "messages_endless") == counter(before, "messages_endless")


def test_a_thousand_connections_that_come_and_go_are_counted_and_leave_none_behind(target: Target) -> None:  # P10
    before = target.status()
    for turn in range(1_000):
        (target.peer if turn % 2 else target.raw)(PORTS[turn % 5]).close()

    def gone() -> bool:
        after = target.status()
        ended = counter(after, ENDED) - counter(before, ENDED)
        return ended >= 1_000 and counter(after, "connections_open") <= counter(before, "connections_open") + 1

    until(gone, "the node to have counted them")
