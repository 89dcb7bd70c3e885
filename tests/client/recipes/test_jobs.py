"""Scheduled jobs of the blocking face with a real node: once at a time, and not again too soon."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

import lessor
from lessor import BadRequest, LeaseLost
from lessor.actors.embedded import Embedded
from lessor.recipes import SKIPPED, singleton

from ...support.waiting import until

SOON_S = 60.0


def test_a_singleton_runs_once_at_a_time_and_is_skipped_or_waited_for(
    one: lessor.Client, other: lessor.Client, aside: Callable[..., "Future[Any]"]
) -> None:
    begun, go = threading.Event(), threading.Event()

    @one.singleton("job")
    def long_job(word: str) -> str:
        begun.set()
        assert go.wait(SOON_S)
        return word

    running = aside(long_job, "done")
    assert begun.wait(SOON_S)
    skipping = other.singleton("job")(lambda: "ran")
    waiting = other.singleton("job", timeout=None)(lambda: "ran")
    assert skipping() is SKIPPED
    assert not SKIPPED
    waited = aside(waiting)
    until(lambda: any(view.waiting for view in other.leases()), "it waits")
    go.set()
    assert (running.result(SOON_S), waited.result(SOON_S)) == ("done", "ran")
    assert skipping() == "ran"
    assert long_job.__name__ == "long_job"


def test_a_fast_job_is_not_run_again_by_a_host_whose_clock_is_late(one: lessor.Client, node: Embedded) -> None:
    """Though the first host's client, and so its process, has ended meanwhile."""
    with lessor.connect(node.endpoints, one.namespace) as early:
        assert early.singleton("job", min_hold=3600)(lambda: 1)() == 1
    assert one.singleton("job", min_hold=3600)(lambda: 2)() is SKIPPED


def test_a_job_that_has_run_holds_up_nothing_but_itself(one: lessor.Client) -> None:
    assert one.singleton("job", min_hold=3600)(lambda: "ran")() == "ran"
    for name in ("job", ("job", "part"), "jobs"):
        one.acquire(name, timeout=0).release()


def test_a_job_has_a_name(one: lessor.Client) -> None:
    with pytest.raises(BadRequest):
        one.singleton(())


def test_a_job_runs_again_once_the_shortest_time_is_over(one: lessor.Client, other: lessor.Client) -> None:
    job = one.singleton("job", min_hold=0.5)(lambda: 1)
    began = time.monotonic()
    assert job() == 1
    assert other.singleton("job", min_hold=0.5, timeout=SOON_S)(lambda: 2)() == 2
    assert time.monotonic() - began >= 0.5


def test_a_job_that_fails_or_loses_its_lease_says_so(one: lessor.Client, other: lessor.Client) -> None:
    @one.singleton("job")
    def fail() -> None:
        raise ZeroDivisionError

    told = threading.Event()

    @one.singleton("job", on_lost=lambda _: told.set())
    def lose() -> None:
        [view] = other.describe("job")
        other.break_lease(view.token, "a test")
        assert told.wait(SOON_S)

    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.raises(LeaseLost):
        lose()
    assert one.singleton("job")(lambda: "ran")() == "ran"


def test_a_singleton_without_a_client_finds_the_service_by_itself(
    node: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESSOR_ENDPOINTS", node.endpoints)

    @singleton("a job without a client")
    def job() -> str:
        with lessor.connect(node.endpoints) as observer:
            return observer.leases()[-1].name

    assert job() == "a job without a client"
