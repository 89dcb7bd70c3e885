"""Each example does what it says, as processes of their own against a real node."""

import os
import queue
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

import lessor
from lessor.actors.embedded import Embedded

from ..support.children import as_from_a_terminal
from ..support.tidy import ROOT
from ..support.waiting import until

SOON_S = 60.0
TTL_S = 30
"""Of the leases in these examples: whatever happens at once comes long before one runs out."""

THE_END = "\0"
"""What stands for the end of what a child says."""


class Child:
    """An example that runs, and the lines that it says."""

    def __init__(self, node: Embedded, name: str, *arguments: object) -> None:
        words = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *map(str, arguments)]
        environment = {**os.environ, "LESSOR_ENDPOINTS": node.endpoints}
        with as_from_a_terminal():
            self.process = subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
            )
        self._lines: queue.Queue[str] = queue.Queue()
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(THE_END)

    def says(self, pattern: str) -> str:
        """Wait for a line that matches, and return it."""
        deadline = time.monotonic() + SOON_S
        while True:
            try:
                line = self._lines.get(timeout=deadline - time.monotonic())
            except (queue.Empty, ValueError):
                raise AssertionError(f"it never said {pattern!r}, but {self.said}") from None
            assert line != THE_END, f"it ended without saying {pattern!r}: {self.said}"
            self.said.append(line)
            if re.fullmatch(pattern, line):
                return line

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal, and return how it ended; it says no more than its lines."""
        self.process.send_signal(number)
        status = self.process.wait(SOON_S)
        self._reader.join(SOON_S)
        while not self._lines.empty() and (line := self._lines.get()) != THE_END:
            self.said.append(line)
        assert "Traceback" not in "\n".join(self.said), self.said
        return status

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(SOON_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


Start = Callable[..., Child]


@pytest.fixture
def node() -> Iterator[Embedded]:
    with lessor.embedded() as embedded:
        yield embedded


@pytest.fixture
def start(node: Embedded) -> Iterator[Start]:
    children = []

    def begin(name: str, *arguments: object) -> Child:
        children.append(Child(node, name, *arguments))
        return children[-1]

    yield begin
    for child in children:
        child.end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_when_the_holder_of_the_lock_stops_the_next_one_starts_at_once(start: Start, number: int) -> None:
    first = start("lock", "--semaphore", "x", "--ttl", TTL_S)
    first.says("working with token 1")
    second = start("lock", "--semaphore", "x", "--ttl", TTL_S)
    second.says("waiting for x")
    began = time.monotonic()
    assert first.stop(number) == 0
    assert first.said[-2:] == ["the lock is released", "stopped"]
    second.says("working with token 2")
    assert time.monotonic() - began < TTL_S / 2
    assert second.stop() == 0


def test_when_the_holder_of_the_lock_is_killed_the_next_one_starts_a_ttl_later(start: Start) -> None:
    first = start("lock", "--ttl", 1)
    first.says("working with token 1")
    second = start("lock", "--ttl", 1)
    second.says("waiting for my-lock")
    first.process.kill()
    second.says(r"working with token \d+")  # more than 2 if the first stood still for more than its ttl


def test_a_lock_that_is_taken_away_is_waited_for_again(start: Start, node: Embedded) -> None:
    child = start("lock", "--namespace", "n")
    child.says("working with token 1")
    with lessor.connect(node.endpoints, "n") as client:
        client.break_lease(1, "a test")
    child.says("the lock is released")
    child.says("again, since .*")
    child.says("working with token 2")
    assert child.stop() == 0


def test_whoever_waits_for_the_lock_stops_at_once_and_leaves_the_line(start: Start, node: Embedded) -> None:
    with lessor.connect(node.endpoints) as client, client.lock("my-lock"):
        child = start("lock")
        until(lambda: len(client.describe("my-lock")) == 2, "it stands in line")
        assert child.stop() == 0
        assert len(client.describe("my-lock")) == 1


def test_workers_share_the_jobs_out_by_capacity_and_take_over_from_one_that_stops(start: Start, node: Embedded) -> None:
    flags = ("--semaphore-prefix", "job-", "--tasks", 10, "--capacity", 4, "--ttl", TTL_S)
    workers = [start("workers", *flags) for _ in range(3)]
    with lessor.connect(node.endpoints) as client:

        def shares() -> list[int]:
            sessions = [lease.session for lease in client.leases()]
            return sorted(sessions.count(session) for session in set(sessions))

        # in one look: a worker may have all ten for a moment, and then releases what is too much
        until(lambda: sum(now := shares()) == 10 and max(now) <= 4, "all ten have a worker, and none too many")
        assert sorted(lease.name for lease in client.leases()) == sorted(f"job-{n}" for n in range(1, 11))
        for worker in workers:
            worker.says(r"job-\d+: begun with token \d+")
        assert workers[0].stop() == 0
        until(lambda: shares() == [4, 4], "the two that are left have as many as they can")
        assert workers[1].stop(signal.SIGTERM) == 0
        assert workers[2].stop() == 0
        assert client.leases() == []


def test_no_task_has_two_workers_though_the_service_was_away_while_one_was_tried(
    node: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P3: a task that is at work stays with its worker; and once its lease is given back its thread has ended."""
    example = runpy.run_path(str(ROOT / "examples" / "workers.py"))
    away = threading.Event()
    with lessor.connect(node.endpoints) as client, lessor.connect(node.endpoints) as other:
        really = client.try_acquire

        def flaky(name: str, ttl: float) -> lessor.Lease | None:
            if name == "job-2" and not away.is_set():
                away.set()
                raise lessor.Unavailable("no node answers", indefinite=False)
            return really(name, ttl) if name == "job-1" else None

        monkeypatch.setattr(client, "try_acquire", flaky)

        def take() -> None:
            with suppress(lessor.ClientClosed):
                example["take_tasks"](client, ["job-1", "job-2"], 2, 600)

        threading.Thread(target=take, daemon=True).start()
        until(working, "it is at work")
        assert away.wait(SOON_S)
        assert other.try_acquire("job-1") is None
        client.close()
        until(lambda: not working(), "the work has ended with its lease")
        assert other.try_acquire("job-1") is not None


def working() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "(work)" in thread.name]


def test_one_of_many_hosts_runs_the_job(start: Start) -> None:
    """P3: also the host that comes late, since the job has just run."""
    children = [start("singleton_job", "--min-hold", 600) for _ in range(3)]
    ended = sorted(child.process.wait(SOON_S) for child in children)
    assert ended == [0, 1, 1]
    late = start("singleton_job", "--min-hold", 600)
    late.says("skipped: it runs elsewhere, or has just run")
    assert late.process.wait(SOON_S) == 1


def test_a_job_is_waited_for_and_can_be_stopped(start: Start) -> None:
    first = start("singleton_job", "--work", 600)
    first.says("running")
    second = start("singleton_job", "--wait", 600)
    assert first.stop() == 130
    second.says("running")
    second.says("done")
    assert second.process.wait(SOON_S) == 0


def test_candidates_lead_one_after_the_other_and_all_say_who(start: Start) -> None:
    first = start("leader", "--value", "a", "--ttl", TTL_S)
    first.says("leading with token 1")
    first.says("the leader is a")
    second = start("leader", "--value", "b", "--ttl", TTL_S)
    second.says("the leader is a")
    assert first.stop() == 0
    second.says("leading with token 2")
    second.says("the leader is b")
    assert second.stop(signal.SIGTERM) == 0
    assert second.said[-1] == "stopped"


FLAGS = {
    "lock": "--endpoints --namespace --semaphore",
    "workers": "--endpoints --namespace --semaphore-prefix --tasks --capacity",
    "singleton_job": "--endpoints --job --wait --min-hold",
    "leader": "--endpoints --election --value",
}


@pytest.mark.parametrize("name", FLAGS)
def test_the_help_of_each_names_its_options(start: Start, name: str) -> None:
    child = start(name, "--help")
    assert child.process.wait(SOON_S) == 0
    child.stop()
    assert all(flag in "\n".join(child.said) for flag in FLAGS[name].split())
