"""The links: what another node may say reaches its role, everything else is counted and dropped."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pykka
import pytest

from lessor.actors.links import ACCEPTED_KINDS, COMPLAINT_EVERY_S, Links, LocalRef, Tallies
from lessor.core import limits
from lessor.core.ballot import Ballot
from lessor.core.effects import Address, Role, Send
from lessor.core.encoding import INT_MAX, dumps, encode, to_list
from lessor.core.messages import (
    Accept,
    Accepted,
    Fetch,
    Fetched,
    FetchSnapshot,
    Heartbeat,
    HeartbeatAnswer,
    Prepare,
    PreVote,
    PreVoteAnswer,
    Promise,
    Refuse,
    SnapshotChunk,
    Stranger,
    Tick,
    Vote,
)
from lessor.core.requests import Busy
from lessor.transport.endpoints import of_role
from lessor.transport.packets import VERSION, Sender, decode_peer_packet, encode_peer_packet
from lessor.transport.sockets import Context, Socket, dealer, receive, router, send

from ..support.sockets import a_context, free_endpoints, seeded
from ..support.waiting import until
from ..support.wire_values import CLASSES, an_instance

CLUSTER = 4711
ME, PEER, OTHER = 1, 2, 3
KNOWN = {PEER: 22, OTHER: 33}
BALLOT = Ballot(5, PEER)
VOTE = Vote(7, BALLOT, b"entry")

OF_PEER: dict[Role, tuple[Any, ...]] = {
    Role.PROPOSER: (
        Promise(Ballot(9, ME), PEER, 1, (VOTE,), 0, 0),
        Refuse(Ballot(9, ME), PEER, BALLOT),
        PreVote(BALLOT, PEER),
        PreVoteAnswer(Ballot(9, ME), PEER, True, BALLOT),
        Heartbeat(BALLOT, 6),
        HeartbeatAnswer(Ballot(9, ME), PEER, 6),
    ),
    Role.ACCEPTOR: (Prepare(BALLOT, 1), Accept(BALLOT, 7, b"entry", 6), Fetch(PEER, 3), Fetched(PEER, (VOTE,), 0)),
    Role.LEARNER: (Accepted(BALLOT, PEER, 7), FetchSnapshot(PEER, 0, 0), SnapshotChunk(PEER, 7, 0, 3, b"abc")),
}
"""What node 2 may say to each role."""


class Roster:
    """Who was met: nobody is new here, as in a cluster that has run for a while."""

    def __init__(self) -> None:
        self.known = dict(KNOWN)

    def meet(self, node: int, incarnation: int) -> bool:
        return self.known.setdefault(node, incarnation) == incarnation

    def known_incarnation(self, node: int) -> int | None:
        return self.known.get(node)


@dataclass
class House:
    """The links of one role of node 1, its port, and a peer that connects to it."""

    context: Context
    links: Links
    ports: dict[Role, Socket]
    strangers: list[Stranger]

    @property
    def counts(self) -> dict[str, int]:
        return {name: count for name, count in self.links.tallies.counts.items() if not name.startswith("packets_sent")}

    def hear(self, role: Role, *frames: list[bytes]) -> list[Any]:
        """Have these multipart messages arrive at the port of a role; return what reaches the role."""
        far = dealer(self.context, of_role(self.links.endpoints[ME], role))
        for each in frames:
            until(lambda each=each: send(far, each), "the connection", every=0.002)  # type: ignore[misc]
        batch: list[Any] = []
        read = self.links.reader(self.ports[role], role)
        done = encode_peer_packet(Sender(CLUSTER, PEER, KNOWN[PEER]), [OF_PEER[role][0]])
        assert send(far, [done])  # the last word: all before it has been read, too

        def is_over() -> bool:
            read(batch)
            return OF_PEER[role][0] in batch[-1:]

        until(is_over, "the last word", every=0.002)
        far.close()
        return batch[:-1]

    def hear_packet(self, role: Role, *messages: Any, sender: Sender | None = None) -> list[Any]:
        return self.hear(role, [encode_peer_packet(sender or Sender(CLUSTER, PEER, KNOWN[PEER]), messages)])


@pytest.fixture
def house() -> Iterator[House]:
    strangers: list[Stranger] = []
    with a_context() as context:
        endpoints = free_endpoints(3)  # the others live nowhere, unless a test binds their ports
        links = Links(Sender(CLUSTER, ME, 11), endpoints, Roster(), Tallies(), context, {}, strangers.append)
        ports = {role: router(context, of_role(endpoints[ME], role)) for role in ACCEPTED_KINDS}
        yield House(context, links, ports, strangers)


# --- what is heard ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ACCEPTED_KINDS)
def test_each_role_hears_the_kinds_that_are_meant_for_it_in_order(house: House, role: Role) -> None:
    assert {type(message) for message in OF_PEER[role]} == set(ACCEPTED_KINDS[role])
    assert house.hear_packet(role, *OF_PEER[role]) == list(OF_PEER[role])
    assert house.counts == {}


@pytest.mark.parametrize("role", ACCEPTED_KINDS)
def test_a_kind_that_is_meant_for_another_role_or_for_nobody_is_counted_and_dropped(house: House, role: Role) -> None:
    misplaced = [message for other, messages in OF_PEER.items() if other != role for message in messages]
    misplaced += [VOTE, Busy(1)]
    assert house.hear_packet(role, *misplaced) == []
    assert house.counts == {"messages_misplaced": len(misplaced)}


def test_no_kind_but_those_of_the_role_gets_through_whatever_it_carries(house: House) -> None:  # P11
    chance = seeded("no_kind_but_those_of_the_role")
    for role, kinds in ACCEPTED_KINDS.items():
        strange = [an_instance(chance, cls) for cls in CLASSES.values() if cls not in kinds and cls is not Stranger]
        assert house.hear_packet(role, *strange) == []


def test_a_message_in_the_name_of_another_author_is_counted_and_dropped(house: House) -> None:
    forged: dict[Role, tuple[Any, ...]] = {
        Role.PROPOSER: (
            Heartbeat(Ballot(9, OTHER), 6),
            Heartbeat(Ballot(9, ME), 6),
            HeartbeatAnswer(BALLOT, OTHER, 6),
            PreVote(BALLOT, OTHER),
            PreVote(BALLOT, ME),
            PreVoteAnswer(BALLOT, OTHER, True, BALLOT),
            Promise(BALLOT, ME, 1, (), 0, 0),
            Promise(BALLOT, OTHER, 1, (), 0, 0),
            Refuse(BALLOT, OTHER, BALLOT),
        ),
        Role.ACCEPTOR: (
            Prepare(Ballot(9, OTHER), 1),
            Prepare(Ballot(9, 99), 1),
            Accept(Ballot(9, OTHER), 1, b"", 0),
            Accept(Ballot(9, ME), 1, b"", 0),
            Fetch(OTHER, 1),
            Fetched(ME, (), 0),
        ),
        Role.LEARNER: (Accepted(BALLOT, OTHER, 1), FetchSnapshot(ME, 0, 0), SnapshotChunk(OTHER, 1, 0, 1, b"x")),
    }
    for role, messages in forged.items():
        assert house.hear_packet(role, *messages) == []
    assert house.counts == {"messages_misplaced": sum(map(len, forged.values()))}


def test_a_bad_message_is_counted_and_dropped_and_the_good_ones_around_it_are_heard(house: House) -> None:  # P11
    first, last = OF_PEER[Role.ACCEPTOR][0], OF_PEER[Role.ACCEPTOR][-1]
    bad = [[9999, 1], [], 7, [1, [1, 2]], [4, [5, 2], -1, b"", 0]]
    packet = dumps([VERSION, CLUSTER, PEER, KNOWN[PEER], [to_list(first), *bad, to_list(last)]])
    assert house.hear(Role.ACCEPTOR, [packet]) == [first, last]
    assert house.counts == {"messages_malformed": len(bad)}


def test_what_is_no_packet_is_counted_and_dropped(house: House) -> None:  # P11
    good = encode_peer_packet(Sender(CLUSTER, PEER, KNOWN[PEER]), [OF_PEER[Role.LEARNER][1]])
    bad = [
        [b""],
        [b"\xff" * 100],
        [good[:-1]],
        [good.replace(bytes([VERSION]), bytes([VERSION + 1]), 1)],
        [b"", b""],
        [bytes(limits.PACKET_BYTES_MAX + 1)],
        [good] * limits.PACKET_FRAMES_MAX,  # and ZeroMQ adds another one
        [encode(VOTE)],
    ]
    assert house.hear(Role.LEARNER, *bad) == []
    assert house.counts == {"packets_malformed": len(bad)}
    assert house.hear(Role.LEARNER, [b"", good]) == [OF_PEER[Role.LEARNER][1]], "frames before the packet do no harm"


def test_one_look_takes_in_no_more_messages_than_make_one_packet(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:  # P10: many small packets may hold very many messages
    monkeypatch.setattr(limits, "PACKET_MESSAGES_MAX", 10)
    packets = [[encode_peer_packet(Sender(CLUSTER, PEER, KNOWN[PEER]), [Fetch(PEER, 1)] * 6)]] * 20
    port = house.ports[Role.ACCEPTOR]
    far = dealer(house.context, of_role(house.links.endpoints[ME], Role.ACCEPTOR))
    for packet in packets:
        until(lambda packet=packet: send(far, packet), "the connection", every=0.002)  # type: ignore[misc]
    looks: list[int] = []
    read = house.links.reader(port, Role.ACCEPTOR)

    def all_is_read() -> bool:
        batch: list[Any] = []
        read(batch)
        looks.append(len(batch))
        return sum(looks) == 120

    until(all_is_read, "all that was sent", every=0.001)
    assert max(looks) == 12, "whole packets, until it is enough"


# --- who is heard ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sender",
    [
        Sender(CLUSTER + 1, PEER, KNOWN[PEER]),
        Sender(0, PEER, KNOWN[PEER]),
        Sender(CLUSTER, 4, 44),
        Sender(CLUSTER, 0, 44),
        Sender(CLUSTER, INT_MAX, 44),
        Sender(CLUSTER, ME, 11),
        Sender(CLUSTER, ME, 99),
    ],
    ids=["another cluster", "no cluster", "no member", "node 0", "no member either", "my own", "my number"],
)
def test_a_packet_from_elsewhere_or_under_the_own_number_is_counted_and_dropped(house: House, sender: Sender) -> None:
    for role, messages in OF_PEER.items():
        assert house.hear_packet(role, *messages, sender=sender) == []
    assert house.counts == {"packets_foreign": 3}
    assert house.strangers == []


def test_a_word_about_strangers_is_heard_from_members_only(house: House) -> None:
    word = Stranger(ME, 77)
    for sender in (Sender(CLUSTER + 1, PEER, KNOWN[PEER]), Sender(CLUSTER, 4, 44), Sender(CLUSTER, PEER, 99)):
        assert house.hear_packet(Role.LEARNER, word, sender=sender) == []
    assert house.strangers == []
    assert house.hear_packet(Role.LEARNER, word) == []
    assert house.strangers == [word]


def test_a_stranger_is_answered_and_not_listened_to(house: House) -> None:
    """It came back without its journal, so it has forgotten what it promised."""
    for role, messages in OF_PEER.items():
        its_port = router(house.context, of_role(house.links.endpoints[PEER], role))
        house.links.connect(role)
        said: list[list[bytes]] = []

        def answered(role: Role = role, messages: tuple[Any, ...] = messages, port: Socket = its_port) -> bool:
            house.links._strangers.clear()  # as if a second had passed
            assert house.hear_packet(role, *messages, sender=Sender(CLUSTER, PEER, 99)) == []
            said.extend(receive(port))  # noqa: B023 - it is asked within the same turn
            return bool(said)  # noqa: B023

        until(answered, "the answer to the stranger")
        assert decode_peer_packet(said[0][-1]) == (Sender(CLUSTER, ME, 11), [Stranger(PEER, KNOWN[PEER])])
    assert house.counts["packets_of_strangers"] >= 3
    assert house.strangers == []


def test_a_stranger_that_goes_on_is_answered_now_and_then_only(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:  # P10
    now = [1000.0]
    monkeypatch.setattr("lessor.actors.links.time", SimpleNamespace(monotonic=lambda: now[0]))
    packet = encode_peer_packet(Sender(CLUSTER, PEER, 99), [Heartbeat(BALLOT, 1)])
    for answers in (1, 2):
        assert house.hear(Role.PROPOSER, *[[packet]] * 50) == []
        assert house.counts["packets_of_strangers"] == 50 * answers
        counts = house.links.tallies.counts
        assert counts["packets_sent"] + counts["packets_dropped"] == answers
        now[0] += 1.0


def test_who_is_met_for_the_first_time_is_remembered(house: House) -> None:
    roster = house.links.roster
    assert isinstance(roster, Roster)
    del roster.known[OTHER]
    message = Fetch(OTHER, 1)
    assert house.hear_packet(Role.ACCEPTOR, message, sender=Sender(CLUSTER, OTHER, 1234)) == [message]
    assert house.hear_packet(Role.ACCEPTOR, message, sender=Sender(CLUSTER, OTHER, 33)) == []
    assert roster.known[OTHER] == 1234


# --- what is said ----------------------------------------------------------------------------------------------------


class Ear:
    """A role of this node, which takes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def tell(self, message: Any) -> None:
        self.told.append(message)


def listen(house: House, node: int, role: Role) -> Socket:
    """Bind the port of a role of another node, and wait until this node's link to it stands."""
    port = router(house.context, of_role(house.links.endpoints[node], role))
    ref = house.links.remote(Address(node, role))
    until(lambda: send(ref.socket, [b"hello"]), "the link", every=0.002)
    until(lambda: receive(port), "the link", every=0.002)
    return port


def test_what_is_told_in_one_breath_leaves_in_one_packet_for_each_role_and_here_at_once(house: House) -> None:
    here = house.links.locals[Role.LEARNER] = Ear()
    ports = {node: listen(house, node, Role.ACCEPTOR) for node in (PEER, OTHER)}
    accept, prepare = Accept(Ballot(9, ME), 1, b"entry", 0), Prepare(Ballot(9, ME), 1)
    house.links.speak(
        [
            Send(Address(PEER, Role.ACCEPTOR), prepare),
            Send(Address(ME, Role.LEARNER), "here"),
            *[Send(Address(node, Role.ACCEPTOR), accept) for node in (PEER, OTHER)],
            Send(Address(99, Role.ACCEPTOR), accept),
        ]
    )
    assert here.told == ["here"]
    for node, expected in ((PEER, [prepare, accept]), (OTHER, [accept])):
        [frames] = until(lambda node=node: receive(ports[node]), "the packet", every=0.002)  # type: ignore[misc]
        assert decode_peer_packet(frames[-1]) == (Sender(CLUSTER, ME, 11), expected)
    assert house.links.tallies.counts["packets_sent"] == 2


def test_more_than_fits_into_one_packet_leaves_in_several(house: House) -> None:  # P10
    port = listen(house, PEER, Role.ACCEPTOR)
    accepts = [Accept(Ballot(9, ME), slot, bytes(600_000), 0) for slot in range(1, 8)]
    house.links.speak([Send(Address(PEER, Role.ACCEPTOR), accept) for accept in accepts])
    got: list[Any] = []

    def all_of_them() -> bool:
        for frames in receive(port):
            assert len(frames[-1]) <= limits.PACKET_BYTES_MAX
            got.extend(decode_peer_packet(frames[-1])[1])
        return len(got) == len(accepts)

    until(all_of_them, "the packets", every=0.002)
    assert got == accepts


def test_what_is_told_to_a_node_that_is_away_is_counted_and_forgotten(house: House) -> None:  # P10
    for _ in range(10):
        house.links.speak([Send(Address(PEER, Role.ACCEPTOR), Prepare(Ballot(9, ME), 1))])
    assert house.counts == {"packets_dropped": 10}
    assert house.links.remote(Address(PEER, Role.ACCEPTOR)).unsent == []


def test_the_links_end_with_their_sockets(house: House) -> None:
    house.links.connect(Role.PROPOSER, Role.ACCEPTOR)
    sockets = [ref.socket for ref in house.links._remotes.values()]
    assert len(sockets) == 4
    house.links.close()
    assert all(socket.closed for socket in sockets)


# --- references and counters -----------------------------------------------------------------------------------------


class Ears(pykka.ThreadingActor):
    use_daemon_thread = True

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def on_receive(self, message: Any) -> Any:
        self.told.append(message)
        return list(self.told)


def test_what_a_role_is_told_before_it_starts_it_finds_when_it_does_in_order() -> None:
    local = LocalRef()
    for number in range(3):
        local.tell(number)
    actor = Ears.start()
    local.bind(actor)
    local.tell(3)
    assert actor.ask(4) == [0, 1, 2, 3, 4]
    actor.stop()
    local.tell(Tick(1))  # to one that has stopped: no error


def test_a_complaint_is_counted_each_time_and_logged_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:  # P10: a log that grows with hostile packets would be another way to stop a node
    tallies = Tallies()
    now = [1000.0]
    monkeypatch.setattr("lessor.actors.links.time", SimpleNamespace(monotonic=lambda: now[0]))
    for _ in range(100):
        tallies.complain("packets_malformed", "what it was")
        tallies.complain("packets_foreign", "who it was")
    assert tallies.counts == {"packets_malformed": 100, "packets_foreign": 100}
    assert [record.getMessage() for record in caplog.records] == [
        "packets_malformed: what it was",
        "packets_foreign: who it was",
    ]
    now[0] += COMPLAINT_EVERY_S
    tallies.complain("packets_malformed", "what it is now")
    assert caplog.records[-1].getMessage() == "packets_malformed: what it is now"
