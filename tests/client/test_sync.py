"""The blocking face against a real node in this process: locks, leases, threads, the end of a client."""

import datetime as dt
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

import lessor
from lessor import Client, ClientClosed, LeaseLost, ServiceBusy, Unavailable
from lessor.actors.embedded import Embedded
from lessor.client.caller import Outcome
from lessor.client.clock import now_ms
from lessor.client.protocol import LeaseState, Protocol
from lessor.core.commands import Release

from ..support.children import as_from_a_terminal
from ..support.clients import clients
from ..support.patience import Since, longer, outlives, timed_out
from ..support.sockets import free_port
from ..support.waiting import until


@pytest.fixture(scope="module")
def node() -> Iterator[Embedded]:
    with lessor.embedded() as embedded:
        yield embedded


@pytest.fixture
def make(node: Embedded, request: pytest.FixtureRequest) -> Iterator[Callable[..., Client]]:
    """Makes clients in a namespace of this test's own, in which nothing may be left behind."""
    with clients(node, request.node.name[:200]) as connect:
        yield connect
    with lessor.connect(node.endpoints, request.node.name[:200]) as observer:
        assert observer.leases() == [], "nothing held and nobody waiting"
    assert node.failure is None


def in_thread(work: Callable[[], Any]) -> "Future[Any]":
    """Start work in a thread of its own."""
    with_one = ThreadPoolExecutor(1)
    future = with_one.submit(work)
    with_one.shutdown(wait=False)
    return future


def waiting(client: Client, name: str) -> int:
    return sum(lease.waiting for lease in client.describe(name))


# --- locks and leases ------------------------------------------------------------------------------------------------


def test_a_lock_gives_the_lease_itself_and_releases_it_at_the_end(make: Callable[..., Client]) -> None:
    client, since = make(holder="me"), Since()
    with client.lock("x", ttl=30, data=b"data") as lease:
        assert isinstance(lease, lessor.Lease)
        assert lease.held
        [seen] = client.describe("x")
        assert (seen.holder, seen.token, seen.data, seen.waiting, seen.ttl) == ("me", lease.token, b"data", False, 30.0)
        assert since.left(30, lease.remaining)
        assert since.left(30, lambda: seen.expires_in)
    assert client.describe("x") == []
    assert (lease.held, lease.lost_reason) == (False, "")


def test_the_lease_is_released_when_the_body_fails_and_the_error_is_the_body_s(make: Callable[..., Client]) -> None:
    client = make()
    lock = client.lock("x")
    with pytest.raises(ZeroDivisionError), lock:
        _ = 1 / 0
    assert client.describe("x") == []


def test_a_lease_can_be_used_in_with_by_itself(make: Callable[..., Client]) -> None:
    client = make()
    with client.acquire("x") as lease:
        assert client.describe("x")[0].token == lease.token
    assert client.describe("x") == []


def test_a_try_gives_the_lease_or_none_and_never_waits(make: Callable[..., Client]) -> None:
    first, second = make(), make()
    lease = first.try_acquire("x")
    assert lease is not None
    assert second.try_acquire("x") is None
    assert first.try_acquire("x") is None, "two claims of one client exclude each other like anybody's"
    assert lease.release()
    again = second.try_acquire("x")
    assert again is not None
    assert again.token > lease.token  # P5


def test_an_acquire_waits_for_its_turn(make: Callable[..., Client]) -> None:
    first, second = make(), make()
    lease = first.acquire("x")
    later = in_thread(lambda: second.acquire("x", timeout=30))
    until(lambda: waiting(first, "x"), "the second stands in line")
    assert not later.done()
    lease.release()
    assert later.result(timeout=60).token > lease.token


def test_an_acquire_that_times_out_says_so_and_stands_in_no_line(make: Callable[..., Client]) -> None:  # P9
    first, second = make(), make()
    first.acquire("x")
    before = now_ms()
    error = timed_out(lambda timeout: second.acquire("x", timeout=dt.timedelta(seconds=timeout)))
    assert now_ms() - before >= 200
    assert isinstance(error, TimeoutError)
    until(lambda: len(first.describe("x")) == 1, "nobody stands in line")


@pytest.mark.parametrize("why", ["held by another", "closed", "unreachable"])
def test_with_never_enters_without_the_lease(make: Callable[..., Client], why: str) -> None:
    client = make()
    lock = client.lock("x", timeout=0.2)
    match why:
        case "held by another":
            make().acquire("x")
        case "closed":
            client.close()
        case _:
            lock = lessor.connect(nobody()).lock("x", timeout=0.2)
    entered = False
    with pytest.raises(lessor.LessorError), lock:
        entered = True
    assert not entered


def test_a_lease_is_renewed_in_the_background(make: Callable[..., Client]) -> None:
    client = make()

    def lives_on(ttl: float) -> bool:
        lease = client.acquire("x", ttl=ttl)
        return outlives(lease, ttl) and [view.token for view in client.describe("x")] == [lease.token]

    assert any(lives_on(ttl) for ttl in longer(0.4))


def test_a_lease_that_is_not_renewed_is_lost_at_its_deadline(make: Callable[..., Client]) -> None:  # P8
    client = make()
    lease = client.acquire("x", ttl=0.2, auto_renew=False)
    until(lambda: not lease.held, "it expired", timeout=1)
    assert lease.lost_reason.startswith("it expired"), "while this process stood still, as the case may be"
    assert lease.release() is False
    with pytest.raises(LeaseLost, match="'x' is not held any more: it expired"):
        lease.renew()


def test_a_renewal_lengthens_and_never_shortens(make: Callable[..., Client]) -> None:  # P4
    lease = make().acquire("x", ttl=10)
    since = Since()
    lease.renew(ttl=60)
    assert since.left(60, lease.remaining)
    lease.renew(ttl=1)
    lease.renew()
    assert since.left(60, lease.remaining)


def test_a_lease_that_somebody_else_released_is_lost_at_once(make: Callable[..., Client]) -> None:  # P8
    client, other = make(), make()
    lease = client.acquire("x")
    other._caller.ask(lambda done, deadline: other._caller.protocol.call(Release(lease.token), done, deadline))
    until(lambda: not lease.held, "the push has come")
    assert "not held any more" in lease.lost_reason
    with pytest.raises(LeaseLost):
        lease.renew()


def test_the_release_of_a_lost_lease_is_no_success_and_yet_frees_the_name(make: Callable[..., Client]) -> None:
    client = make()
    lease = client.acquire("x")
    client._caller.protocol._leases.end(lease._record, LeaseState.LOST, "its deadline came during an outage")
    assert lease.release() is False
    assert client.describe("x") == []


def test_a_release_names_the_grant_and_a_second_one_touches_nobody(make: Callable[..., Client]) -> None:  # P6
    first, second = make(), make()
    lease = first.acquire("x")
    assert lease.release() is True
    taken = second.acquire("x")
    assert lease.release() is False
    first._caller.ask(lambda done, deadline: first._caller.protocol.call(Release(lease.token), done, deadline))
    assert taken.held
    assert first.describe("x")[0].token == taken.token


def test_a_released_lease_cannot_be_renewed(make: Callable[..., Client]) -> None:
    lease = make().acquire("x")
    lease.release()
    with pytest.raises(LeaseLost, match="it was released"):
        lease.renew()


def test_a_lease_without_a_ttl_lives_with_its_client(make: Callable[..., Client]) -> None:
    leases = (make(session_timeout=timeout).acquire("x", ttl=None) for timeout in longer(0.5))
    lease = next(lease for lease in leases if outlives(lease, 0.4))  # the pings keep it
    with pytest.raises(lessor.BadRequest, match="no ttl"):
        lease.renew()


def test_a_lock_object_may_be_shared_by_threads_and_each_releases_its_own_lease(make: Callable[..., Client]) -> None:
    client = make()
    lock = client.lock("x", timeout=20)
    with lock as mine:
        mine.release()  # as if it had been lost
        entered, leave = threading.Event(), threading.Event()

        def other() -> bool:
            with lock as theirs:
                entered.set()
                leave.wait(60)
                return theirs.held

        future = in_thread(other)
        assert entered.wait(10)
    leave.set()
    assert future.result(timeout=60), "the end of the first body has not released the other's lease"


# --- looking ---------------------------------------------------------------------------------------------------------


def test_a_queue_is_described_in_order_with_the_holder_first(make: Callable[..., Client]) -> None:
    first, second = make(holder="first"), make(holder="second")
    lease = first.acquire("x")
    later = in_thread(lambda: second.acquire("x", timeout=30))
    until(lambda: waiting(first, "x"), "the second stands in line")
    assert [(seen.holder, seen.waiting) for seen in first.describe("x")] == [("first", False), ("second", True)]
    lease.release()
    later.result(timeout=60)


def test_all_leases_of_a_namespace_are_listed_page_after_page(
    make: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lessor.core.limits.LIST_PAGE_MAX", 3)
    client = make()
    names = [f"name {number}" for number in range(8)]
    for name in names:
        client.acquire(name)
    assert [seen.name for seen in client.leases()] == names
    assert {seen.name for seen in client.leases(all_namespaces=True)} >= set(names)


def test_expire_times_are_aware_datetimes_minus_the_gap_for_the_holder_and_plus_for_others(
    make: Callable[..., Client],
) -> None:
    client = make()
    before = dt.datetime.now(dt.UTC)
    lease = client.acquire("x", ttl=30)
    [seen] = client.describe("x")
    mine, others = (each.expire_time_with_safety_gap(dt.timedelta(seconds=5)) for each in (lease, seen))
    after = dt.datetime.now(dt.UTC)
    assert (mine - before).total_seconds() > 24.8
    assert (mine - after).total_seconds() < 25.1
    assert (others - before).total_seconds() > 34.8
    assert (others - after).total_seconds() < 35.2
    assert others - mine >= dt.timedelta(seconds=10)
    unsafe = [dt.datetime.fromtimestamp(each.expire_time_unsafe() / 1000, dt.UTC) for each in (lease, seen)]
    assert all(
        abs(each - before - dt.timedelta(seconds=30)) < after - before + dt.timedelta(seconds=1) for each in unsafe
    )


# --- threads ---------------------------------------------------------------------------------------------------------


def test_many_threads_of_one_client_take_turns_and_their_tokens_grow(make: Callable[..., Client]) -> None:  # P3, P5
    client = make()
    inside: list[int] = []
    tokens: list[int] = []

    def work() -> None:
        for _ in range(5):
            with client.lock("x", timeout=60) as lease:
                inside.append(lease.token)
                tokens.append(lease.token)
                assert inside == [lease.token]
                inside.remove(lease.token)

    with ThreadPoolExecutor(24) as pool:
        for future in [pool.submit(work) for _ in range(24)]:
            future.result(timeout=60)
    assert len(tokens) == 120
    assert tokens == sorted(set(tokens))


def test_many_threads_hold_many_names_at_once(make: Callable[..., Client]) -> None:
    client = make()
    together = threading.Barrier(40)

    def work(number: int) -> int:
        with client.lock(f"name {number}") as lease:
            together.wait(30)
            return lease.token

    with ThreadPoolExecutor(40) as pool:
        assert len(set(pool.map(work, range(40)))) == 40
    assert sum(thread.name == "lessor-client" for thread in threading.enumerate()) <= 2


# --- the end ---------------------------------------------------------------------------------------------------------


def test_closing_releases_withdraws_and_tells_whoever_waits(make: Callable[..., Client]) -> None:
    client, other = make(), make()
    lease = client.acquire("x")
    held = other.acquire("y")
    later = in_thread(lambda: client.acquire("y"))
    until(lambda: waiting(other, "y"), "it stands in line")
    client.close()
    assert isinstance(later.exception(timeout=60), ClientClosed)
    assert other.describe("x") == []
    assert len(other.describe("y")) == 1
    assert held.held
    assert not lease.held


def test_closing_twice_or_unused_or_from_many_threads_is_quiet(make: Callable[..., Client]) -> None:
    make().close()
    client = make()
    client.acquire("x")
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(client.close) for _ in range(4)]:
            future.result(timeout=60)
    client.close()
    assert client.lock("x") is not None, "only its use is refused"


def test_a_client_that_was_never_used_has_no_thread(make: Callable[..., Client]) -> None:
    before = set(threading.enumerate())
    client = make()
    client.lock("x")
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("used", [False, True])
def test_a_closed_client_refuses_everything(make: Callable[..., Client], *, used: bool) -> None:
    client = make()
    lease = client.acquire("x") if used else None
    client.close()
    asked: list[Callable[[], Any]] = [
        lambda: client.acquire("x"),
        lambda: client.try_acquire("x"),
        lambda: client.lock("x").__enter__(),
        lambda: client.describe("x"),
        client.leases,
    ]
    for ask in asked:
        with pytest.raises(ClientClosed):
            ask()
    if lease is not None:
        assert lease.release() is False
        with pytest.raises(LeaseLost):
            lease.renew()


def test_closing_tells_a_thread_that_asks_a_service_that_is_not_there() -> None:
    client = lessor.connect(nobody(), request_timeout=60)
    asked = in_thread(lambda: client.describe("x"))
    until(client._caller.protocol._calls.under_way, "it has asked")
    client.close()
    assert isinstance(asked.exception(timeout=50), ClientClosed)


def test_a_detached_lease_survives_its_client(make: Callable[..., Client]) -> None:
    client, other = make(), make()
    client.acquire("x", ttl=0.4, detached=True, auto_renew=False)
    client.close()
    until(lambda: other.describe("x") == [], "it expires by itself")
    assert [event.kind for event in other.events("x", since=0).events] == ["granted", "expired"]


def test_a_service_that_is_not_there_is_unavailable_and_nothing_has_happened() -> None:  # P9
    with lessor.connect(nobody(), request_timeout=0.3) as client:
        asked: list[Callable[[], Any]] = [
            lambda: client.acquire("x", timeout=0.2),
            lambda: client.try_acquire("x"),
            lambda: client.describe("x"),
        ]
        for ask in asked:
            with pytest.raises(Unavailable) as caught:
                ask()
            assert isinstance(caught.value, ConnectionError)
            assert not caught.value.indefinite


def test_a_client_whose_thread_fails_says_so_to_everybody_and_can_still_be_closed(
    make: Callable[..., Client], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = make(session_timeout=600)
    lease = client.acquire("x", ttl=600)  # so that nothing comes but the answer that is asked for here
    monkeypatch.setattr(client._caller.protocol, "receive", lambda *_: 1 / 0)
    with pytest.raises(Unavailable, match="division by zero") as caught:
        client.describe("x")
    assert caught.value.indefinite
    assert not lease.held
    assert "division" in lease.lost_reason
    assert "the client's thread failed" in caplog.text
    with pytest.raises(ClientClosed):
        client.describe("x")
    engine = client._caller._engine
    assert engine is not None
    until(lambda: not engine._thread.is_alive(), "its thread ends")
    monkeypatch.setattr(engine, "_waker", None)  # closed: its file may be somebody else's by now
    client.close()
    assert make().release(lease.token), "it is left to end by itself"


def test_an_error_of_the_release_does_not_hide_that_of_the_body(
    make: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (Unavailable("silence", indefinite=True), ServiceBusy("busy"), ClientClosed("closed")):
        lease = make().acquire("x")
        with monkeypatch.context() as patched:
            patched.setattr(lease, "release", lambda error=error: (_ for _ in ()).throw(error))
            with pytest.raises(ZeroDivisionError), lease:
                _ = 1 / 0
        lease.release()


def nobody() -> str:
    """An endpoint where no service is."""
    return f"tcp://127.0.0.1:{free_port()}"


# --- Ctrl-C, and programs that end without closing -------------------------------------------------------------------

INTERRUPTED = """
import signal, sys, threading
import lessor

client, holder = lessor.connect(sys.argv[1], "ctrl-c", holder="waiter"), lessor.connect(sys.argv[1], "ctrl-c")
main = threading.main_thread().ident

def interrupt(name):
    while not any(lease.waiting for lease in holder.describe(name)):
        pass
    signal.pthread_kill(main, signal.SIGINT)

for turn in range(10):
    with holder.lock("x"):
        threading.Thread(target=interrupt, args=("x",)).start()
        entered = False
        try:
            with client.lock("x", timeout=None if turn % 2 else 60):
                entered = True
        except KeyboardInterrupt:
            pass
        assert not entered
        client.describe("x")  # what was sent before has been answered
        assert [lease.holder for lease in holder.describe("x")] == [holder.holder], holder.describe("x")
        assert not client._caller.protocol.leases
print("left nothing behind", flush=True)
"""

LEFT_OPEN = """
import sys, threading
import lessor

client = lessor.connect(sys.argv[1], "left open", session_timeout=0.5, request_timeout=60)
lease = client.acquire("x", ttl=None)
threading.Thread(target=lambda: client.acquire("x"), daemon=True).start()
print(lease.token, flush=True)
"""


def run(program: str, *arguments: str) -> str:
    with as_from_a_terminal():
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_an_outcome_may_be_told_by_two_threads_at_once() -> None:
    class Undone:
        """A lock that another thread releases just after it was looked at."""

        def locked(self) -> bool:
            return True

        def release(self) -> None:
            raise RuntimeError("release unlocked lock")

    outcome = Outcome()
    outcome._undone = Undone()  # type: ignore[assignment]
    outcome.set("told")
    assert outcome.value == "told"


def test_a_lease_is_looked_at_while_its_session_ends(
    make: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make()
    lease = client.acquire("x", ttl=None)
    protocol = client._caller.protocol
    sessions = iter([protocol.session, None, None])

    class Ending(Protocol):
        session = property(lambda _: next(sessions))

    with client._caller._steps, monkeypatch.context() as patched:
        patched.setattr(protocol, "__class__", Ending)
        held = lease.held
    assert held


def test_ctrl_c_while_waiting_leaves_no_ghost_in_the_queue(node: Embedded) -> None:
    assert run(INTERRUPTED, node.endpoints) == "left nothing behind\n"


def test_a_program_that_ends_without_closing_ends_at_once_and_its_session_soon_after(node: Embedded) -> None:
    token = int(run(LEFT_OPEN, node.endpoints))
    assert token > 0
    with lessor.connect(node.endpoints, "left open") as observer:
        until(lambda: observer.leases() == [], "its session ends")
