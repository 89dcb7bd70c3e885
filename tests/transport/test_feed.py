"""The event feed: events come in order under dense revisions, to those who asked for them, and cost nothing else."""

import pytest

from lessor.core.encoding import dumps
from lessor.core.errors import Malformed
from lessor.core.events import Event
from lessor.core.requests import Busy
from lessor.transport import feed
from lessor.transport.feed import FeedPublisher, FeedSubscriber, topic_of
from lessor.transport.packets import encode_packet
from lessor.transport.sockets import Context

from ..support.sockets import RawPeer, zmtp_frame
from ..support.waiting import until


def event(revision: int, namespace: str = "default", *path: str) -> Event:
    return Event(revision, revision, 5 * revision, "granted", namespace, path, 1, revision, 2, "me", 10_000)


@pytest.fixture
def publisher(context: Context, endpoint: str) -> FeedPublisher:
    return FeedPublisher(context, endpoint)


def subscribers(publisher: FeedPublisher, count: int) -> None:
    """Wait until the publisher knows of so many topics that somebody listens to."""

    def there() -> bool:
        publisher.publish(())
        return len(publisher._topics) == count

    until(there, f"{count} topics with subscribers", every=0.005)


def heard(subscriber: FeedSubscriber, count: int) -> list[int]:
    """The revisions of the next events, and the certainty that no more of them are on the way."""
    found = [subscriber.next(60_000) for _ in range(count)]
    assert subscriber.next(100) is None
    return [event.revision for event in found if event is not None]


def is_reached(publisher: FeedPublisher, reader: FeedSubscriber) -> bool:
    publisher.publish((event(1),))
    return reader.next(20) is not None


# --- events ----------------------------------------------------------------------------------------------------------


def test_events_arrive_in_order_with_dense_revisions(context: Context, endpoint: str, publisher: FeedPublisher) -> None:
    readers = [FeedSubscriber(context, endpoint) for _ in range(3)]
    subscribers(publisher, 1)  # all of them to the same topic: wait for the last one, too
    for reader in readers:
        until(lambda reader=reader: is_reached(publisher, reader), "the reader to be heard of")  # type: ignore[misc]
    publisher.publish((event(0, "default", "mark"),))
    for reader in readers:
        until(lambda reader=reader: reader.next(60_000) == event(0, "default", "mark"), "the mark", every=0)  # type: ignore[misc]
    events = [event(revision, "default", f"job-{revision % 7}") for revision in range(1, 501)]
    for first in range(0, 500, 50):
        publisher.publish(tuple(events[first : first + 50]))
    for reader in readers:
        assert [reader.next(60_000) for _ in events] == events
        assert reader.next(0) is None


def test_a_reader_of_several_nodes_hears_each_of_them(
    context: Context, endpoint: str, publisher: FeedPublisher
) -> None:
    host, _, port = endpoint.rpartition(":")
    second = FeedPublisher(context, f"{host}:{int(port) + 1}")
    reader = FeedSubscriber(context, endpoint, f"{host}:{int(port) + 1}", namespace="default")
    subscribers(publisher, 1)
    subscribers(second, 1)
    publisher.publish((event(1),))
    second.publish((event(1), event(2)))
    assert sorted(heard(reader, 3)) == [1, 1, 2]


def test_a_reader_waits_no_longer_than_it_is_told_to(context: Context, endpoint: str) -> None:
    reader = FeedSubscriber(context, endpoint)
    assert reader.next(0) is None
    assert reader.next(10) is None


@pytest.mark.parametrize(
    "frames",
    [
        [b"", b"\xff\xff"],
        [b"", encode_packet([Busy(1)])],
        [b"", encode_packet([])],
        [b"", encode_packet([event(1), event(2)])],
        [b"", dumps([2, []])],
        [b""],
        [b""] * 100,
    ],
    ids=["garbage", "another kind", "none", "two", "another version", "topic alone", "many frames"],
)
def test_what_is_no_event_is_malformed_and_the_next_event_is_read(
    context: Context, endpoint: str, publisher: FeedPublisher, frames: list[bytes]
) -> None:  # P11
    reader = FeedSubscriber(context, endpoint)
    subscribers(publisher, 1)
    publisher.socket.send_multipart(frames)
    publisher.publish((event(3),))
    with pytest.raises(Malformed):
        reader.next(60_000)
    assert reader.next(60_000) == event(3)


# --- topics ----------------------------------------------------------------------------------------------------------

EVENTS = (
    event(1, "default", "job"),
    event(2, "default", "job", "part"),
    event(3, "default", "job2"),
    event(4, "default2", "job"),
    event(5, "default"),
    event(6, ""),  # of a session, which is in no namespace
)


@pytest.mark.parametrize(
    ("namespace", "path", "revisions"),
    [
        ("", (), [1, 2, 3, 4, 5, 6]),
        ("default", (), [1, 2, 3, 5]),
        ("default", ("job",), [1, 2]),
        ("default", ("job", "part"), [2]),
        ("default2", (), [4]),
        ("def", (), []),
        ("default", ("jo",), []),
    ],
)
def test_a_reader_hears_of_what_it_asked_for_and_of_all_below_it_and_of_nothing_else(
    context: Context,
    endpoint: str,
    publisher: FeedPublisher,
    namespace: str,
    path: tuple[str, ...],
    revisions: list[int],
) -> None:
    reader = FeedSubscriber(context, endpoint, namespace=namespace, path=path)
    subscribers(publisher, 1)
    publisher.publish(EVENTS)
    assert heard(reader, len(revisions)) == revisions


def test_the_topic_of_everything_is_empty_and_that_of_a_whole_is_a_prefix_of_those_of_its_parts() -> None:
    assert topic_of("", ()) == b""
    assert topic_of("a", ("b", "c")).startswith(topic_of("a", ("b",)))
    assert topic_of("a", ("b",)).startswith(topic_of("a", ()))
    assert not topic_of("a", ("bc",)).startswith(topic_of("a", ("b",)))
    assert not topic_of("ab", ()).startswith(topic_of("a", ()))
    assert topic_of("a", ("é",)) == b"a\0\xc3\xa9\0"


# --- what it costs, and what others can do to it ---------------------------------------------------------------------


def test_nothing_is_encoded_while_nobody_listens(
    context: Context, endpoint: str, publisher: FeedPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []

    def counted(events: list[Event]) -> bytes:
        encoded.append(events[0].revision)
        return encode_packet(events)

    monkeypatch.setattr(feed, "encode_packet", counted)
    publisher.publish((event(1), event(2)))
    assert encoded == []
    reader = FeedSubscriber(context, endpoint)
    subscribers(publisher, 1)
    publisher.publish((event(3),))
    assert encoded == [3]
    reader.close()
    subscribers(publisher, 0)
    publisher.publish((event(4),))
    assert encoded == [3]


def test_who_leaves_a_topic_that_nobody_joined_silences_nobody(
    context: Context, endpoint: str, publisher: FeedPublisher
) -> None:  # P11
    reader = FeedSubscriber(context, endpoint)
    subscribers(publisher, 1)
    with RawPeer(int(endpoint.rpartition(":")[2])) as peer:
        peer.greet(b"SUB")
        for topic in (b"", b"never joined", b"default\0job\0"):
            peer.send(zmtp_frame(b"\0" + topic) * 20)
        peer.send(zmtp_frame(b"\x01mark"))
        subscribers(publisher, 2)  # all that was sent before has been read
        publisher.publish((event(1),))
        assert heard(reader, 1) == [1]
    subscribers(publisher, 1)
    publisher.publish((event(2),))
    assert heard(reader, 1) == [2]


def test_what_readers_say_that_is_no_subscription_is_ignored(
    context: Context, endpoint: str, publisher: FeedPublisher
) -> None:  # P11
    reader = FeedSubscriber(context, endpoint)
    with RawPeer(int(endpoint.rpartition(":")[2])) as peer:
        peer.greet(b"SUB")
        for word in (b"hello", b"\x02", b"", b"\xff" * 200):
            peer.send(zmtp_frame(word, more=True) * 3 + zmtp_frame(word))
        peer.send(zmtp_frame(b"\x01mark"))
        subscribers(publisher, 2)
        publisher.publish((event(1),))
        assert heard(reader, 1) == [1]


def test_more_topics_than_are_kept_account_of_silence_nobody(
    context: Context, endpoint: str, publisher: FeedPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:  # P10
    monkeypatch.setattr(feed, "TOPICS_MAX", 10)
    with RawPeer(int(endpoint.rpartition(":")[2])) as peer:
        peer.greet(b"SUB")
        peer.send(b"".join(zmtp_frame(b"\x01topic %d" % number) for number in range(1000)))
        subscribers(publisher, 10)
        reader = FeedSubscriber(context, endpoint, namespace="default")
        until(lambda: is_reached(publisher, reader), "the reader to be heard of")
        assert len(publisher._topics) == 10
    subscribers(publisher, 0)
    publisher.publish((event(2),))
    until(lambda: (told := reader.next(60_000)) is not None and told.revision == 2, "the next event", every=0)


def test_a_topic_that_is_too_long_ends_its_connection(endpoint: str, publisher: FeedPublisher) -> None:  # P10
    with RawPeer(int(endpoint.rpartition(":")[2])) as peer:
        peer.greet(b"SUB")
        peer.send(zmtp_frame(b"\x01" + bytes(5000)))
        assert peer.is_closed()
    subscribers(publisher, 0)
