"""The inbox: everything that has arrived is one batch, in order, and whoever sleeps is woken by whatever comes."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pykka
import pytest
from pykka._envelope import Envelope  # what Pykka puts into an inbox has no public name
from pykka.messages import _ActorStop

from lessor.actors.inbox import PATIENCE_MESSAGES, RARE_TURNS, Batch, Inbox
from lessor.actors.shell import now_ms
from lessor.transport.sockets import Context, Socket, dealer, receive, router, send

from ..support.sockets import HOST, a_context, free_port
from ..support.waiting import until


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    """An inbox whose actor has had its first look at the clock, and sleeps until something comes."""
    inbox = Inbox()
    assert messages(inbox.get()) == []
    inbox.wake_at_ms = None
    yield inbox
    inbox.close()


def messages(got: Any) -> list[Any]:
    assert isinstance(got, Batch)
    assert got.message is got, "it is its own envelope"
    assert got.reply_to is None
    return got.messages


def tell(inbox: Inbox, *told: Any) -> None:
    for message in told:
        inbox.put(Envelope(message))


def get_soon(inbox: Inbox) -> list[Any]:
    """What `get` returns, in a thread of its own so that a test cannot hang."""
    got: list[Any] = []
    getter = threading.Thread(target=lambda: got.append(inbox.get()), daemon=True)
    getter.start()
    getter.join(60)
    assert got, "the inbox sleeps although something has arrived"
    return messages(got[0])


@dataclass
class Line:
    """A socket that an inbox reads, and the other end of it."""

    port: Socket
    far: Socket

    def read(self, batch: list[Any]) -> None:
        batch.extend(frames[-1] for frames in receive(self.port))

    def say(self, *words: bytes) -> None:
        for word in words:
            assert send(self.far, [word])

    def wait_for(self) -> None:
        """Wait until something is there to be read."""
        assert self.port.poll(60_000)


@pytest.fixture
def context() -> Iterator[Context]:
    with a_context() as context:
        yield context


def a_line(context: Context) -> Line:
    endpoint = f"tcp://{HOST}:{free_port()}"
    line = Line(router(context, endpoint), dealer(context, endpoint))
    until(lambda: send(line.far, [b"hello"]), "the connection", every=0.005)
    assert until(lambda: receive(line.port), "the greeting", every=0.005)
    return line


# --- batches ---------------------------------------------------------------------------------------------------------


def test_everything_that_was_told_is_one_batch_in_order(inbox: Inbox) -> None:
    tell(inbox, *range(1000))
    assert get_soon(inbox) == list(range(1000))
    assert inbox.empty()


def test_what_was_told_and_what_came_by_socket_is_one_batch(inbox: Inbox, context: Context) -> None:
    first, second = a_line(context), a_line(context)
    inbox.read_from(first.port, first.read)
    inbox.read_from(second.port, second.read)
    first.say(b"a", b"b")
    second.say(b"c")
    second.wait_for()
    first.wait_for()
    tell(inbox, 1, 2)
    batch = get_soon(inbox)
    assert batch[:2] == [1, 2]
    while len(batch) < 5:  # a message may come right after the first look
        batch += get_soon(inbox)
    assert sorted(batch[2:]) == [b"a", b"b", b"c"]
    assert batch.index(b"a") < batch.index(b"b")


def test_a_busy_socket_does_not_keep_out_what_was_told_nor_the_other_way_round(inbox: Inbox, context: Context) -> None:
    line = a_line(context)
    inbox.read_from(line.port, line.read)
    got: list[Any] = []
    for turn in range(50):
        line.say(b"%d" % turn)
        tell(inbox, turn)
        got += get_soon(inbox)
    while len(got) < 100:
        got += get_soon(inbox)
    assert [word for word in got if isinstance(word, int)] == list(range(50))
    assert [int(word) for word in got if isinstance(word, bytes)] == list(range(50))


def test_an_actor_whose_socket_cannot_be_read_is_told_so(inbox: Inbox, context: Context) -> None:  # a role that fails
    line = a_line(context)

    def read(batch: list[Any]) -> None:
        raise OSError(28, "No space left on device")

    inbox.read_from(line.port, read)
    line.say(b"hello")
    got = inbox.get()
    assert isinstance(got, Batch)
    assert isinstance(got.error, OSError)


# --- waking up -------------------------------------------------------------------------------------------------------


def asleep(inbox: Inbox) -> threading.Thread:
    """A thread that sleeps in `get`, and keeps what it got in its attribute `got`."""
    got: list[Any] = []

    class Getter(threading.Thread):
        def run(self) -> None:
            got.append(inbox.get())

    getter = Getter(daemon=True)
    getter.got = got  # type: ignore[attr-defined]
    getter.start()
    until(lambda: inbox._asleep, "the actor to sleep", every=0.001)
    return getter


def woken(getter: threading.Thread) -> Any:
    getter.join(60)
    assert not getter.is_alive(), "nobody woke it up"
    return getter.got[0]  # type: ignore[attr-defined]


def test_a_message_wakes_the_actor(inbox: Inbox) -> None:
    getter = asleep(inbox)
    tell(inbox, "hello")
    assert messages(woken(getter)) == ["hello"]


def test_a_packet_wakes_the_actor(inbox: Inbox, context: Context) -> None:
    line = a_line(context)
    inbox.read_from(line.port, line.read)
    getter = asleep(inbox)
    line.say(b"hello")
    assert messages(woken(getter)) == [b"hello"]


def test_what_can_wait_is_found_by_an_actor_that_something_else_wakes(inbox: Inbox) -> None:
    inbox.patient = (int,)
    getter = asleep(inbox)
    tell(inbox, 1, 2)
    assert inbox._asleep, "woken for what can wait"
    tell(inbox, "hello")
    assert messages(woken(getter)) == [1, 2, "hello"]
    tell(inbox, 3)
    assert get_soon(inbox) == [3], "there before the actor fell asleep"


def test_an_actor_that_sleeps_is_woken_when_much_has_come_that_can_wait(inbox: Inbox) -> None:  # P10
    inbox.patient = (int,)
    getter = asleep(inbox)
    tell(inbox, *range(PATIENCE_MESSAGES))
    assert inbox._asleep
    tell(inbox, PATIENCE_MESSAGES)
    assert messages(woken(getter)) == list(range(PATIENCE_MESSAGES + 1))


def test_nothing_is_lost_or_reordered_when_several_threads_tell_a_sleepy_actor(inbox: Inbox) -> None:
    tellers, each = 4, 2_000
    go = threading.Barrier(tellers)

    def run(teller: int) -> None:
        go.wait()
        for number in range(each):
            tell(inbox, (teller, number))

    threads = [threading.Thread(target=run, args=(teller,)) for teller in range(tellers)]
    for thread in threads:
        thread.start()
    got: list[tuple[int, int]] = []
    batches = 0
    while len(got) < tellers * each:
        got += get_soon(inbox)
        batches += 1
    for thread in threads:
        thread.join()
    for teller in range(tellers):
        assert [number for who, number in got if who == teller] == list(range(each))
    assert batches < len(got), "what has arrived meanwhile is taken at once"


def test_a_ping_pong_of_two_sleepy_actors_never_misses_a_wake_up() -> None:
    here, there = Inbox(), Inbox()
    here.wake_at_ms = there.wake_at_ms = None
    rounds = 2_000

    def answer() -> None:
        left = rounds
        while left:
            for message in messages(there.get()):
                left -= 1
                tell(here, message)

    other = threading.Thread(target=answer, daemon=True)
    other.start()
    done = threading.Event()

    def ask() -> None:
        for number in range(rounds):
            tell(there, number)
            assert messages(here.get()) == [number]
        done.set()

    threading.Thread(target=ask, daemon=True).start()
    assert done.wait(120), "a wake-up was missed"
    other.join()
    here.close()
    there.close()


def test_who_tells_an_actor_that_is_just_ending_never_rings_a_descriptor_that_was_given_back() -> None:
    """Its number may be that of a database by then."""
    inbox = Inbox()
    story: list[str] = []
    ringing = threading.Event()

    class Waker:
        def ring(self) -> None:
            ringing.set()
            closer.join(0.2)
            story.append("rung")

        def close(self) -> None:
            story.append("closed")

    inbox._waker.close()
    inbox._waker = Waker()  # type: ignore[assignment]
    inbox._asleep = True

    def close() -> None:
        ringing.wait(10)
        inbox.close()

    closer = threading.Thread(target=close)
    closer.start()
    tell(inbox, "late")
    closer.join()
    assert story == ["rung", "closed"]
    inbox._asleep = True
    tell(inbox, "too late")
    assert story == ["rung", "closed"]


# --- time ------------------------------------------------------------------------------------------------------------


def test_a_new_actor_gets_its_first_look_at_the_clock_at_once() -> None:
    inbox = Inbox()
    assert messages(inbox.get()) == []
    inbox.close()


def test_an_actor_that_wants_to_be_woken_is_woken_then_with_an_empty_batch(inbox: Inbox) -> None:
    wanted = inbox.wake_at_ms = now_ms() + 60
    assert get_soon(inbox) == []
    assert now_ms() >= wanted
    inbox.wake_at_ms = now_ms() - 5
    assert get_soon(inbox) == [], "what is over is due at once"


def test_a_message_comes_before_its_time_and_the_time_is_still_kept(inbox: Inbox) -> None:
    inbox.wake_at_ms = now_ms() + 60_000
    getter = asleep(inbox)
    tell(inbox, "early")
    assert messages(woken(getter)) == ["early"]


def test_an_actor_without_a_wish_sleeps_until_something_comes(inbox: Inbox) -> None:
    getter = asleep(inbox)
    getter.join(0.1)
    assert getter.is_alive()
    tell(inbox, "at last")
    assert messages(woken(getter)) == ["at last"]


def test_an_idle_actor_costs_no_processor_time(inbox: Inbox, context: Context) -> None:
    line = a_line(context)
    inbox.read_from(line.port, line.read)
    getter = asleep(inbox)
    assert getter.ident is not None
    its_time = time.pthread_getcpuclockid(getter.ident)  # this process may have other things to do
    before = time.clock_gettime(its_time)
    getter.join(0.3)
    assert time.clock_gettime(its_time) - before < 0.15
    tell(inbox, "end")
    woken(getter)


def test_an_actor_that_sleeps_gets_up_to_look_and_sleeps_on(inbox: Inbox) -> None:
    looks: list[int] = []

    def look() -> int:
        looks.append(now_ms())
        return 20

    inbox.look_with(look)
    getter = asleep(inbox)
    until(lambda: len(looks) > 3, "looks", every=0.005)
    assert looks[3] - looks[0] >= 3 * 20
    assert getter.is_alive(), "looking is no reason for a batch"
    tell(inbox, "end")
    assert messages(woken(getter)) == ["end"]


def test_an_actor_that_is_awake_looks_after_half_of_the_time(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000]
    monkeypatch.setattr("lessor.actors.inbox.time", SimpleNamespace(monotonic_ns=lambda: now[0] * 1_000_000))
    looks: list[int] = []

    def look() -> int:
        looks.append(now[0])
        return 100

    inbox.look_with(look)
    inbox.wake_at_ms = 0  # it never sleeps
    for passed in (0, 49, 50, 60, 99, 150):
        now[0] = 1_000 + passed
        assert get_soon(inbox) == []
    assert looks == [1_000, 1_050, 1_150], "at first, after half of the time, and after more than half of it"


# --- monitors --------------------------------------------------------------------------------------------------------


def test_a_rare_socket_wakes_a_sleeping_actor(inbox: Inbox, context: Context) -> None:
    line = a_line(context)
    inbox.read_from(line.port, line.read, rare=True)
    getter = asleep(inbox)
    line.say(b"lost")
    assert messages(woken(getter)) == [b"lost"]


def test_a_rare_socket_is_read_now_and_then_by_an_actor_that_never_sleeps(inbox: Inbox, context: Context) -> None:
    line = a_line(context)
    inbox.read_from(line.port, line.read, rare=True)
    line.say(b"lost")
    line.wait_for()
    for turn in range(RARE_TURNS + 1):
        tell(inbox, turn)
        if b"lost" in get_soon(inbox):
            return
    pytest.fail("it was never read")


def test_a_rare_socket_whose_reader_has_nothing_to_say_lets_the_actor_sleep_again(
    inbox: Inbox, context: Context
) -> None:
    line = a_line(context)
    looks: list[int] = []
    inbox.read_from(line.port, lambda _: looks.append(len(receive(line.port))), rare=True)
    getter = asleep(inbox)
    line.say(b"noted")
    until(lambda: looks, "the reader to look", every=0.005)
    until(lambda: inbox._asleep, "the actor to sleep again", every=0.005)
    tell(inbox, "end")
    assert messages(woken(getter)) == ["end"]
    assert looks == [1]


# --- Pykka's own messages --------------------------------------------------------------------------------------------


def test_an_order_to_stop_comes_alone_and_after_what_came_before_it(inbox: Inbox) -> None:
    stop = Envelope(_ActorStop())
    tell(inbox, 1, 2)
    inbox.put(stop)
    tell(inbox, 3)
    assert messages(inbox.get()) == [1, 2]
    assert inbox.get() is stop
    assert messages(inbox.get()) == [3]


def test_a_message_that_wants_an_answer_comes_alone(inbox: Inbox) -> None:
    question: Any = Envelope("question", reply_to=pykka.ThreadingFuture())
    inbox.put(question)
    tell(inbox, "statement")
    assert inbox.get() is question
    assert messages(inbox.get()) == ["statement"]


def test_what_is_left_when_the_actor_has_ended_is_handed_over_one_by_one() -> None:
    inbox = Inbox()
    left = [Envelope(number) for number in range(3)]
    inbox.close()
    for envelope in left:
        inbox.put(envelope)
    assert [inbox.get() for _ in left] == left
    assert inbox.empty()
