"""The helper process that renews while its parent cannot: real processes, one of which holds its GIL (P4, P8)."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

import lessor
from lessor.actors.embedded import Embedded

from ..support.patience import longer
from ..support.waiting import until


@pytest.fixture
def node() -> Iterator[Embedded]:
    with lessor.embedded() as embedded:
        yield embedded


@pytest.fixture
def observer(node: Embedded) -> Iterator[lessor.Client]:
    with lessor.connect(node.endpoints, "kept", request_timeout=30) as client:
        yield client


HOLD = """
import ctypes, os, sys, time, lessor
def hold_the_gil(seconds):
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
client = lessor.connect(sys.argv[1], "kept")
lease = client.acquire("x", ttl={ttl}, keeper="process", {more})
while not lease._keeper._shared[0] and lease.held:
    lease.progress()
if not lease.held:
    sys.exit()
print(lease._keeper.pid, flush=True)
"""


def start(node: Embedded, body: str, more: str = "", shortest: float = 1.0) -> tuple["subprocess.Popen[str]", int]:
    """Start a process that holds a lease, and return it and the number of its keeper.

    The lease is a longer one if the machine stands still for longer than the first one lasts.
    """
    for ttl in longer(shortest):
        program = (HOLD.replace("{more}", more) + body).replace("{ttl}", str(ttl))
        process = subprocess.Popen([sys.executable, "-c", program, node.endpoints], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        if said := process.stdout.readline():
            return process, int(said)
        process.communicate()
    raise AssertionError("no lease is kept until its keeper is there")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123
        return file.read().split(") ")[1][0] != "Z"


def test_a_lease_is_kept_over_work_that_holds_the_gil_and_released_at_the_end(
    node: Embedded, observer: lessor.Client
) -> None:
    work = "print(lease.held, lease.state.value, flush=True); print(lease.release())"

    def is_kept(ttl: float) -> bool:
        process, pid = start(node, "hold_the_gil({ttl} + 3); " + work, shortest=ttl)
        told, _ = process.communicate(timeout=100)
        assert process.returncode == 0
        until(lambda: not alive(pid), "the keeper has ended")
        until(lambda: observer.describe("x") == [], "it is released, or has run out")
        return told.split() == ["True", "held", "True"]

    assert any(is_kept(ttl) for ttl in longer(1.0))


def test_without_a_keeper_the_same_work_loses_its_lease(node: Embedded) -> None:
    plain = HOLD.replace(', keeper="process", {more}', "").replace("{ttl}", "1.0").split("while not")[0]
    program = plain + "hold_the_gil(4)\nprint(lease.held)"
    told = subprocess.run([sys.executable, "-c", program, node.endpoints], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def test_a_keeper_keeps_nothing_of_a_dead_parent(node: Embedded, observer: lessor.Client) -> None:
    process, pid = start(node, "hold_the_gil(90)")
    process.kill()
    process.communicate()
    until(lambda: not alive(pid), "the keeper has ended")
    until(lambda: observer.describe("x") == [], "the lease runs out")


def test_a_keeper_kills_its_parent_at_the_deadline_if_asked_though_it_holds_the_gil(node: Embedded) -> None:  # P8
    process, pid = start(node, "hold_the_gil(90)", 'on_lost="kill"')
    node.stop()
    process.communicate(timeout=80)
    assert process.returncode == -signal.SIGKILL
    until(lambda: not alive(pid), "the keeper has ended")


def test_work_without_progress_is_not_kept_for_ever(node: Embedded, observer: lessor.Client) -> None:
    process, _ = start(node, "hold_the_gil({ttl} + 4); print(lease.held, lease.loss.value)", "progress_timeout=1")
    until(lambda: observer.describe("x") == [], "the lease runs out")
    told, _ = process.communicate(timeout=60)
    assert told in ("False expired\n", "False no progress\n"), "the latter if it was lost before it could begin"


@pytest.mark.parametrize(("options", "text"), [({"ttl": None}, "needs a ttl"), ({"auto_renew": False}, "auto_renew")])
def test_a_keeper_that_could_keep_nothing_is_refused(node: Embedded, options: dict[str, None], text: str) -> None:
    with lessor.connect(node.endpoints) as client, pytest.raises(lessor.BadRequest, match=text):
        client.acquire("x", keeper="process", **options)  # type: ignore[arg-type]


def test_a_keeper_that_has_died_is_reaped_and_told_and_its_parent_renews_alone(
    observer: lessor.Client, caplog: pytest.LogCaptureFixture
) -> None:
    """P8: whoever counts on it for work that holds the GIL learns that it is gone."""

    def is_told_and_lives_on(ttl: float) -> bool:
        caplog.clear()
        lease = observer.acquire("x", ttl=ttl, keeper="process")
        os.kill(lease._keeper.pid, signal.SIGKILL)
        until(lambda: not lease.held or "the keeper of 'x' has ended (status -9)" in caplog.text, "it is told")
        if lease.lost.wait(2 * ttl):  # this process stood still
            return False
        with pytest.raises(ProcessLookupError):
            os.kill(lease._keeper.pid, 0)
        return lease.release() and caplog.text.count("has ended") == 1

    assert any(is_told_and_lives_on(ttl) for ttl in longer(1.0))


@pytest.mark.parametrize("where", ["subprocess.Popen", "tempfile.TemporaryFile"])
def test_a_keeper_that_cannot_be_started_leaves_no_lease_behind(
    node: Embedded, observer: lessor.Client, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """P10: nobody could release it, and it would be renewed for ever. In both faces."""

    def fail(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(where, fail)
    with pytest.raises(BlockingIOError):
        observer.acquire("x", ttl=600, keeper="process")
    until(lambda: observer.describe("x") == [], "it is given back")

    async def other_face() -> None:
        async with lessor.aio.connect(node.endpoints, "kept") as client:
            with pytest.raises(BlockingIOError):
                await client.try_acquire("x", ttl=600, keeper="process")
            while await client.describe("x"):
                pass

    asyncio.run(asyncio.wait_for(other_face(), 60))
