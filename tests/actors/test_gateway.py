"""The gateway of a real node: each client is answered in good packets, whatever it or others say."""

from collections.abc import Iterator
from typing import Any

import pytest

import lessor
from lessor.actors.gateway import GatewayShell
from lessor.actors.links import Links, Tallies
from lessor.actors.shell import Fate
from lessor.core import limits
from lessor.core.commands import Describe, ListClaims
from lessor.core.encoding import INT_MAX, dumps, to_list
from lessor.core.gateway import FromClient, NodeFacts
from lessor.core.requests import Answer, Busy, Rejected, Request, StatusAnswer, StatusRequest
from lessor.core.results import ClaimPage
from lessor.transport.packets import VERSION, Sender, encode_packet
from lessor.transport.sockets import Context, router

from ..support.sockets import Asker, a_context, counter, free_endpoints, status_of
from ..support.waiting import until
from .test_links import Roster


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with lessor.embedded() as node:
        until(lambda: status_of(node.endpoints).leader, "the node to lead")
        yield node.endpoints


@pytest.fixture
def context() -> Iterator[Context]:
    with a_context() as context:
        yield context


@pytest.fixture
def asker(context: Context, endpoint: str) -> Asker:
    return Asker(context, endpoint)


def question(number: int) -> Request:
    return Request(0, number, 1, Describe("default", ("job",)))


def rejected(asker: Asker, number: int) -> Rejected:
    found = asker.hear(lambda heard: isinstance(heard, Rejected) and heard.number == number, "the rejection")
    assert isinstance(found, Rejected)
    return found


def test_a_request_is_answered_under_its_number(asker: Asker) -> None:
    answer = asker.ask(question(7))
    assert isinstance(answer, Answer)
    assert isinstance(answer.result, ClaimPage)
    assert not answer.result.claims


@pytest.mark.parametrize(
    ("packet", "fault"),
    [
        (b"\xff\xff", "not CBOR"),
        (dumps([VERSION + 1, []]), f"speaks version {VERSION}"),
        (bytes(limits.PACKET_BYTES_MAX + 1), "at most"),
    ],
)
def test_who_sends_what_is_no_packet_is_told_what_is_wrong_and_served_again(
    asker: Asker, packet: bytes, fault: str
) -> None:  # P11
    asker.say_frames([packet])
    assert fault in rejected(asker, 0).reason
    assert isinstance(asker.ask(question(8)), Answer)


def test_a_message_that_cannot_be_read_is_rejected_under_its_number_and_its_neighbours_are_answered(
    asker: Asker,
) -> None:  # P11
    bad = to_list(question(2))
    bad[4] = [9999]
    asker.say_frames([dumps([VERSION, [to_list(question(1)), bad, to_list(question(3))]])])
    assert "unknown kind" in rejected(asker, 2).reason
    answers = [asker.hear(lambda heard: isinstance(heard, Answer), "an answer") for _ in range(2)]
    assert [answer.number for answer in answers] == [1, 3]
    assert not asker.heard


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        ([110, 1, 5, 1, "what"], 5),
        ([110, 1, -5, 1, 2], 0),
        ([110, 1, INT_MAX + 1, 1, 2], 0),
        ([110, 1, "5", 1, 2], 0),
        ([110, 1], 0),
        (7, 0),
        ([], 0),
    ],
)
def test_the_number_of_what_cannot_be_read_is_made_out_as_far_as_may_be(asker: Asker, raw: object, number: int) -> None:
    asker.say_frames([dumps([VERSION, [raw]])])
    assert len(rejected(asker, number).reason) > 5


def test_a_message_that_is_no_request_is_rejected(asker: Asker) -> None:
    asker.say(Busy(4))
    assert rejected(asker, 0).reason == "Busy is no request"


def test_a_request_that_is_wrong_in_itself_is_rejected_with_the_reason(asker: Asker) -> None:
    asker.say(Request(0, 6, 1, ListClaims("", 0, 0)))
    assert "page size" in rejected(asker, 6).reason


def test_thousands_of_answers_at_once_all_arrive(asker: Asker) -> None:  # P10: in packets within the limits
    count = 9_000
    numbers = list(range(1, count + 1))
    packets = [
        encode_packet([StatusRequest(number) for number in numbers[first : first + limits.PACKET_MESSAGES_MAX]])
        for first in range(0, count, limits.PACKET_MESSAGES_MAX)
    ]
    for packet in packets:  # on each other's heels: what has arrived is one batch
        asker.say_frames([packet])
    heard: list[int] = []
    while len(heard) < count:
        answer = asker.hear(lambda heard: True, "the next answer")
        assert isinstance(answer, StatusAnswer)
        heard.append(answer.number)
        heard += [answer.number for answer in asker.heard]
        asker.heard.clear()
    assert heard == numbers


def test_one_look_takes_in_no_more_messages_than_make_one_packet(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:  # P10: many small packets may hold very many questions, and each answer is larger than its question
    monkeypatch.setattr(limits, "PACKET_MESSAGES_MAX", 10)
    endpoints = free_endpoints(1)
    port = router(context, endpoints[1])
    links = Links(Sender(1, 1, 1), endpoints, Roster(), Tallies(), context, {}, lambda _: None)
    shell = GatewayShell(Fate(lambda *_: None), links, port, NodeFacts(1, "test", "1", endpoints))
    shell.set_up()
    asker = Asker(context, endpoints[1])
    for number in range(20):
        asker.say(*[StatusRequest(number)] * 3, *[Busy(1)] * 3)
    looks: list[int] = []

    def all_is_read() -> bool:
        batch: list[Any] = []
        shell._read(batch)
        looks.append(sum(isinstance(message, FromClient) for message in batch))
        return sum(looks) == 60

    until(all_is_read, "all that was sent", every=0.001)
    assert max(looks) == 6, "whole packets, until it is enough"
    assert links.tallies.counts["messages_malformed"] == 60
    shell.inbox.close()


def test_a_client_may_put_an_empty_frame_before_its_packet(asker: Asker) -> None:
    """A REQ socket does."""
    asker.say_frames([b"", encode_packet([question(9)])])
    assert asker.hear(lambda heard: isinstance(heard, Answer) and heard.number == 9, "the answer")


def test_the_counters_of_a_node_fit_into_its_status(asker: Asker) -> None:
    before = asker.status()
    for _ in range(3):
        asker.say_frames([b"\xff"])
        rejected(asker, 0)
    after = asker.status()
    assert counter(after, "packets_malformed") == counter(before, "packets_malformed") + 3
    names = [counter.name for counter in after.counters]
    assert len(names) == len(set(names)) <= 64
