"""How the holder of a lease is told what becomes of it, and how another goes on with it: the blocking face (P8)."""

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

import lessor
from lessor import BadRequest, LeaseLost, LeaseState, Loss
from lessor.actors.embedded import Embedded
from lessor.client import clock, leases, ticket

from ..support.patience import Since, longer, outlives
from ..support.waiting import until


@pytest.fixture(scope="module")
def node() -> Iterator[Embedded]:
    with lessor.embedded() as embedded:
        yield embedded


@pytest.fixture
def client(node: Embedded, request: pytest.FixtureRequest) -> Iterator[lessor.Client]:
    with lessor.connect(node.endpoints, request.node.name[:200]) as connected:
        yield connected


# --- told ------------------------------------------------------------------------------------------------------------


def test_a_callback_is_called_in_a_thread_of_its_own_with_each_change_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lessor.client.caller.CLOSE_TIMEOUT_MS", 100)  # there is nobody who could be waited for

    def is_told_of_both(ttl: float) -> bool:
        told: list[tuple[LeaseState, str]] = []
        with lessor.embedded() as other, lessor.connect(other.endpoints) as away:
            lease = away.acquire("x", ttl=ttl)
            lease.on_change(lambda _, state: told.append((state, threading.current_thread().name)))
            other.stop()
            assert lease.lost.wait(60)
        until(lambda: told and told[-1] == (LeaseState.LOST, "lessor-tell"), "the loss was told")
        assert lease.state is LeaseState.LOST
        both = [(LeaseState.JEOPARDY, "lessor-tell"), (LeaseState.LOST, "lessor-tell")]
        return told == both and lease.loss is Loss.UNREACHABLE

    # a process that stands still may find a lease over that was not in jeopardy when it was looked at last
    assert any(is_told_of_both(ttl) for ttl in longer(0.9))


def test_a_change_for_which_there_was_no_thread_is_told_with_the_next(
    client: lessor.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = client.acquire("x", ttl=60)
    told: list[LeaseState] = []
    lease.on_change(lambda _, state: told.append(state))

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with client._caller._steps:
            leases._move(lease._record, LeaseState.JEOPARDY)
    client.break_lease(lease.token, "in the way")
    until(lambda: LeaseState.LOST in told, "the loss was told")
    # in between, the client itself may have looked, and found the lease well
    assert [state for state in told if state is not LeaseState.HELD] == [LeaseState.JEOPARDY, LeaseState.LOST]


def test_a_callback_that_never_ends_delays_nothing_but_itself(client: lessor.Client) -> None:
    stuck, leave = threading.Event(), threading.Event()
    lost: list[str] = []
    first = client.acquire("x", ttl=0.3, auto_renew=False, on_lost=lambda lease: lost.append(lease.name))

    def never_end(*_: object) -> None:
        stuck.set()
        leave.wait(60)

    first.on_change(never_end)
    second = client.acquire("y", ttl=0.6, auto_renew=False, on_lost=lambda lease: lost.append(lease.name))
    assert stuck.wait(60)
    assert second.lost.wait(60)
    until(lambda: sorted(lost) == ["x", "y"], "both losses were told")
    until(lambda: client.describe("x") == [], "and the service has ended the lease")
    assert not leave.is_set()
    leave.set()


def test_an_error_in_a_callback_is_logged_and_harms_nothing(
    client: lessor.Client, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[LeaseState] = []
    with caplog.at_level(logging.ERROR):
        lease = client.acquire("x", on_lost=lambda _: 1 / 0)
        lease.on_change(lambda *_: 1 / 0)
        lease.on_change(lambda _, state: told.append(state))
        client.break_lease(lease.token, "for a test")
        until(lambda: told, "the second callback was called all the same")
        until(lambda: caplog.text.count("a callback of a lease failed") == 2, "both errors are in the log")
    assert told == [LeaseState.LOST]


def test_what_is_over_is_told_of_at_once(client: lessor.Client) -> None:
    lease = client.acquire("x")
    client.break_lease(lease.token, "for a test")
    assert lease.lost.wait(60)
    told: list[LeaseState] = []
    lease.on_change(lambda _, state: told.append(state))
    until(lambda: told == [LeaseState.LOST], "it was told")
    with pytest.raises(LeaseLost) as caught:
        lease.check()
    assert caught.value.loss is lease.loss is Loss.BROKEN


def test_a_release_is_a_change_and_no_loss(client: lessor.Client) -> None:
    told: list[LeaseState] = []
    lease = client.acquire("x", on_lost=lambda _: told.append(LeaseState.LOST))
    lease.on_change(lambda _, state: told.append(state))
    lease.check()
    lease.release()
    until(lambda: told, "it was told")
    assert told == [LeaseState.RELEASED]
    assert not lease.lost.is_set()
    with pytest.raises(LeaseLost, match="it was released"):
        lease.check()


def test_the_end_of_a_lease_is_told_by_one_event_whether_it_was_released_or_lost(client: lessor.Client) -> None:
    """So that a thread that works under it has one thing to wait for."""
    released, lost = client.acquire("x"), client.acquire("y", ttl=0.3, auto_renew=False)
    ends = [released.ended, lost.ended]
    assert not ends[0].is_set()
    released.release()
    assert [end.wait(60) for end in ends] == [True, True]
    assert [lease.lost.is_set() for lease in (released, lost)] == [False, True]
    late = client.acquire("x")
    late.release()
    assert late.ended.is_set(), "also if nobody had asked for it before"


def test_a_loss_is_told_though_the_main_thread_works_without_pause(client: lessor.Client) -> None:
    """Once, at least: a machine that stands still is late by that."""

    def late_ms() -> int:
        lease = client.acquire("x", ttl=0.5, auto_renew=False)
        lost = lease.lost
        while not lost.is_set():
            sum(range(10_000))
        return clock.now_ms() - lease._protocol.safe_until_ms(lease._record)

    assert any(late_ms() < 1_000 for _ in range(10))


def test_a_suspend_is_noticed_and_the_loss_is_told_first_thing(node: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    with lessor.connect(node.endpoints, "suspended", session_timeout=300) as client:
        lease = client.acquire("x", ttl=300)  # without the suspend nothing would be due for a minute
        lost = lease.lost
        protocol = client._caller.protocol
        until(lambda: (protocol.wake_at_ms() or 0) > clock.now_ms() + 20_000, "nothing is due")
        really = clock._read_ns
        with monkeypatch.context() as asleep:
            asleep.setattr(clock, "_read_ns", lambda: really() + 3_600_000_000_000)
            assert not lease.held, "whoever looks knows at once"
            assert lost.wait(60)
            assert lease.loss is Loss.SUSPENDED
            client.close()


TERMINATED = """
import sys, threading, lessor
client = lessor.connect(sys.argv[1], "terminated")
lease = client.acquire("x", ttl=0.3, auto_renew=False, on_lost=sys.argv[2])
threading.Event().wait(90)
"""


@pytest.mark.parametrize(("word", "number"), [("terminate", signal.SIGTERM), ("kill", signal.SIGKILL)])
def test_a_process_that_asked_for_it_is_ended_when_its_lease_is_lost(
    node: Embedded, word: str, number: signal.Signals
) -> None:
    done = subprocess.run([sys.executable, "-c", TERMINATED, node.endpoints, word], timeout=60, check=False)
    assert done.returncode == -number


def test_what_on_lost_cannot_mean_is_refused(client: lessor.Client) -> None:
    with pytest.raises(BadRequest, match="on_lost is a callable, 'terminate' or 'kill', not 'die'"):
        client.acquire("x", on_lost="die")  # type: ignore[arg-type]
    assert client.describe("x") == []


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        ({"max_hold": 0}, "a max_hold is from 0.1 s"),
        ({"progress_timeout": 0}, "a progress_timeout is from 0.001 s"),
        ({"progress_timeout": 5, "ttl": None}, "needs a ttl and auto_renew"),
        ({"progress_timeout": 5, "auto_renew": False}, "needs a ttl and auto_renew"),
        ({"max_hold": "1"}, "not a str"),
    ],
)
def test_terms_that_cannot_be_kept_are_refused(client: lessor.Client, terms: dict[str, int], text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        client.acquire("x", **terms)  # type: ignore[arg-type]
    assert client.describe("x") == []


def test_how_late_a_renewal_is_can_be_seen(client: lessor.Client) -> None:
    def lateness(ttl: float) -> float:
        with client.acquire("x", ttl=ttl) as lease:
            return lease.renewal_lateness if outlives(lease, 0) else -1.0

    assert any(0 <= lateness(ttl) < 0.5 for ttl in longer(0.6))
    assert client.acquire("y", auto_renew=False).renewal_lateness == 0.0


def test_a_lease_is_lost_and_free_after_max_hold(client: lessor.Client) -> None:
    lease = client.acquire("x", ttl=30, max_hold=0.3)
    assert lease.remaining() <= 0.3
    assert lease.lost.wait(60)
    assert lease.loss is Loss.MAX_HOLD
    again = client.acquire("x", timeout=60)
    assert again.held


# --- tickets ---------------------------------------------------------------------------------------------------------


def test_a_detached_lease_goes_on_with_whoever_has_its_ticket(node: Embedded, client: lessor.Client) -> None:
    def lives_on(ttl: float) -> bool:
        with lessor.connect(node.endpoints, client.namespace, holder="first") as first:
            lease = first.acquire("x", ttl=ttl, detached=True, auto_renew=False)
            handed = lease.ticket()
        assert set(handed) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
        assert len(handed) < 200
        try:
            taken = client.resume(handed)
        except LeaseLost:
            return False
        assert (taken.name, taken.token, taken.holder, taken.namespace) == ("x", lease.token, "first", client.namespace)
        return outlives(taken, ttl) and taken.release()

    assert any(lives_on(ttl) for ttl in longer(0.6))
    assert client.describe("x") == []


def test_a_lease_of_another_session_can_be_renewed_and_released_by_its_ticket(
    node: Embedded, client: lessor.Client
) -> None:  # P6
    with lessor.connect(node.endpoints, client.namespace) as owner:
        lease = owner.acquire("x", ttl=30)
        taken = client.resume(lease.ticket(), auto_renew=False)
        since = Since()
        taken.renew(60)
        assert since.left(60, taken.remaining)
        assert taken.release()
        assert lease.lost.wait(60), "its owner is told"
    with pytest.raises(LeaseLost):
        client.resume(lease.ticket())


def test_a_lease_that_was_resumed_is_released_with_its_new_client(node: Embedded, client: lessor.Client) -> None:
    owner = lessor.connect(node.endpoints, client.namespace)
    lease = owner.acquire("x", ttl=30)
    with lessor.connect(node.endpoints, client.namespace) as other:
        assert other.resume(lease.ticket()).held
    assert client.describe("x") == []
    owner.close()


def test_a_lease_without_a_ttl_goes_over_to_the_session_of_whoever_resumes_it(
    node: Embedded, client: lessor.Client
) -> None:
    owner = lessor.connect(node.endpoints, client.namespace)
    lease = owner.acquire("x", ttl=None)
    taken = client.resume(lease.ticket())
    owner.close()
    assert taken.held
    assert taken.release()


@pytest.mark.parametrize("text", ["", "x", "nonsense!", "A" * 5000, None, 7, "AAAAAAAA", "é"])
def test_what_is_no_ticket_is_refused(client: lessor.Client, text: str) -> None:  # P11
    with pytest.raises(BadRequest, match="ticket"):
        client.resume(text)


def test_a_ticket_that_was_damaged_on_its_way_is_refused() -> None:
    whole = str(ticket.Ticket("default", ("näme",), 7, 8, 30_000, "me", detached=True))
    assert ticket.read(whole) == ticket.Ticket("default", ("näme",), 7, 8, 30_000, "me", detached=True)
    for at in range(len(whole) - 1):
        with pytest.raises(BadRequest):
            ticket.read(whole[:at] + ("A" if whole[at] != "A" else "B") + whole[at + 1 :])
        with pytest.raises(BadRequest):
            ticket.read(whole[:at])
