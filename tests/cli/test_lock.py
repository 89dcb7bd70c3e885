"""`lessor lock`: the command runs only while the lock is held, and is stopped before it can be anybody else's."""

import argparse
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import lessor
from lessor.cli import exit_codes
from lessor.cli import lock as cli_lock
from lessor.client import clock
from lessor.client.wants import read, units

from ..support.sockets import free_port
from ..support.waiting import until
from .commands import Run, finish, gone, lessor_process, read_until, run_process, written

pytestmark = pytest.mark.system

# Notes its process number, then goes on until it is killed; it takes no hint. So does what it starts.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: open(sys.argv[1] + ".told", "a").write("x"))
other = os.fork()
if other:
    open(sys.argv[1], "w").write(f"{os.getpid()} {other}\\n")
else:
    os.setsid()
while True:
    time.sleep(0.05)
"""


GO = ("sh", "-c", "echo go; exec sleep 600")


def lock(service: str, name: str, *options: str) -> tuple[str, ...]:
    """The words of a command whose lease does not end meanwhile on a machine that is busy, unless `options` say so."""
    return ("lock", name, "--endpoints", service, "--ttl", "600", *options, "--")


def test_the_exit_code_is_that_of_the_command(service: str) -> None:
    assert run_process(*lock(service, "x"), "sh", "-c", "exit 7").code == 7
    assert run_process(*lock(service, "x"), "true").code == 0


def test_a_name_that_begins_with_a_dash_is_locked_and_shown(service: str, client: lessor.Client, run: Run) -> None:
    done = run_process(
        "lock", "--endpoints", service, "--", "-x", "--", "sh", "-c", 'echo "$LESSOR_LOCK_NAME" "$@"', "--"
    )
    assert (done.code, done.out) == (0, "-x\n")
    with client.lock("-x"):
        assert run("show", "--endpoints", service, "--json", "--", "-x").json["holder"] == "tester"


def test_a_command_that_a_signal_killed_is_told_as_a_shell_tells_it(service: str) -> None:
    done = run_process(*lock(service, "x"), "sh", "-c", "kill -9 $$")
    assert done.code == exit_codes.SIGNALLED + signal.SIGKILL


def test_the_command_has_the_standard_streams_and_is_told_its_token(service: str, client: lessor.Client) -> None:
    with client.lock("x") as before:
        pass
    reading, writing = os.pipe()
    os.write(writing, b"input\n")
    os.close(writing)
    script = (
        'read line; echo "$line $LESSOR_LOCK_NAME $LESSOR_LOCK_NAMESPACE $LESSOR_LOCK_TOKEN"; echo oops >&2; exit 3'
    )
    done = run_process(*lock(service, "x"), "sh", "-c", script, stdin=reading)
    os.close(reading)
    line, name, namespace, token = done.out.split()
    assert (line, name, namespace) == ("input", "x", "default")
    assert int(token) > before.token
    assert (done.err, done.code) == ("oops\n", 3)


def test_several_names_and_paths_are_held_at_once(service: str, client: lessor.Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    words = ("lock", "left", "users/42", "--path", "--endpoints", service, "--ttl", "600", "--")
    process = lessor_process(*words, "sh", "-c", 'echo "$LESSOR_LOCK_NAME"; cat "$0"', str(gate))
    until(lambda: client.describe("left"), "it is held")
    assert {resource.path for resource in client.describe("left")[0].resources} == {("left",), ("users", "42")}
    assert client.try_acquire(("users", "42", "deep")) is None
    gate.write_text("")
    assert finish(process).out == "left\nusers/42\n"


def test_those_who_read_share_and_who_writes_does_not(service: str, client: lessor.Client) -> None:
    with client.lock(read("cat")):
        assert run_process(*lock(service, "cat", "--read", "--timeout", "0"), "true").code == 0
        done = run_process(*lock(service, "cat", "--timeout", "0"), "true")
        assert done.code == exit_codes.NOT_ACQUIRED
        assert "'cat' is not free: held by tester" in done.err
        assert "(read, token" in done.err


def test_units_of_a_semaphore_are_taken_while_there_are_some(service: str, client: lessor.Client) -> None:
    with client.lock(units("seats", 3, limit=4)):
        words = ("--count", "1", "--limit", "4", "--timeout", "0")
        assert run_process(*lock(service, "seats", *words), "true").code == 0
        done = run_process(*lock(service, "seats", *words, "--count", "2"), "true")
        assert done.code == exit_codes.NOT_ACQUIRED
        assert "(3 of 4 units, token" in done.err


def test_what_the_service_refuses_is_no_exit_code_of_the_command(service: str, tmp_path: Path) -> None:
    """Exit code 1 would be the command's own."""
    done = run_process(*lock(service, "none", "--count", "1", "-E", "0"), "touch", str(tmp_path / "ran"))
    assert done.code == exit_codes.USAGE
    assert "no semaphore 'none'" in done.err
    assert not (tmp_path / "ran").exists()


def test_a_command_is_told_to_stop_before_it_has_held_for_too_long(service: str) -> None:
    done = run_process(*lock(service, "x", "--max-hold", "2s", "--grace", "1500ms"), "sleep", "60")
    assert done.code == exit_codes.LEASE_LOST
    # on a machine that stood still, it may be known only when it is over
    assert "the lease may be held for 2.0s in all (--max-hold)" in done.err or "(max_hold)" in done.err


class StandsStill:
    """A command that takes half a second of its lease to begin, and ends when it is told to."""

    def __init__(self, lease: lessor.Lease) -> None:
        until(lambda: lease.remaining() < 29.5, "it has begun")
        self._told = False

    def poll(self) -> int | None:
        return 0 if self._told else None

    def stop(self) -> None:
        self._told = True

    def kill(self) -> None:
        pass


@pytest.mark.parametrize(
    ("ttl", "max_hold", "why"),
    [(600, 30, "may be held for 30.0s in all (--max-hold), and that ends in 2"), (30, 600, "could not be renewed")],
)
def test_why_it_is_told_to_stop_depends_on_no_clock_of_its_own(
    ttl: int,
    max_hold: int,
    why: str,
    client: lessor.Client,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """If it stood still after the grant, the end of the longest hold was taken for a renewal that had failed."""
    lease = client.acquire("x", ttl, max_hold=max_hold)
    monkeypatch.setattr(cli_lock, "Command", lambda *_: StandsStill(lease))
    options = argparse.Namespace(behind=["work"], wants=[], max_hold=max_hold)
    signals: Any = SimpleNamespace(next=lambda _: None, give_back=None)
    assert cli_lock._guard(lease, options, 29.9, signals) == exit_codes.LEASE_LOST
    assert why in capsys.readouterr().err
    lease.release()


def test_a_name_that_is_closed_for_a_while_says_so(service: str, client: lessor.Client) -> None:
    client.create_namespace("delayed", lock_delay=60)
    with lessor.connect(service, "delayed") as there:
        client.break_lease(there.acquire("x").token, "gone")
        done = run_process(*lock(service, "x", "--namespace", "delayed", "--timeout", "0"), "true")
    assert done.code == exit_codes.NOT_ACQUIRED
    assert "since its last lease lapsed (lock delay)" in done.err


def test_while_the_command_runs_nobody_else_gets_in_and_then_at_once(
    service: str, client: lessor.Client, tmp_path: Path
) -> None:
    """P3; and nobody waits for the ttl to run out."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    process = lessor_process(*lock(service, "x", "--holder", "me"), "cat", str(gate))
    until(lambda: client.describe("x"), "it is held")
    assert client.describe("x")[0].holder == "me"
    assert client.try_acquire("x") is None
    gate.write_text("")
    lease = client.acquire("x", timeout=60)
    lease.release()
    assert finish(process).code == 0


def test_what_is_not_free_is_told_with_its_holder(service: str, client: lessor.Client, tmp_path: Path) -> None:
    """P9: exit code 120 means that the command certainly was not run."""
    ran = tmp_path / "ran"
    with client.lock("x") as lease:
        done = run_process(*lock(service, "x", "--timeout", "0"), "touch", str(ran))
        assert done.code == exit_codes.NOT_ACQUIRED
        assert "'x' is not free: held by tester" in done.err
        assert f"(token {lease.token})" in done.err
        done = run_process(*lock(service, "x", "--timeout", "100ms"), "touch", str(ran))
        assert done.code == exit_codes.NOT_ACQUIRED
        assert "'x' was not granted in 100ms" in done.err
        assert run_process(*lock(service, "x", "--timeout", "0", "-E", "0"), "touch", str(ran)).code == 0
    assert not ran.exists()


def test_whoever_waits_is_told_for_whom(service: str, client: lessor.Client) -> None:
    lease = client.acquire("x")
    process = lessor_process(*lock(service, "x"), "true")
    assert "waiting for 'x', held by tester for" in read_until(process, "waiting")
    lease.release()
    done = finish(process)
    assert done.code == 0
    assert "was granted after" in done.err


def test_whoever_waits_for_a_service_that_is_away_is_told_so_and_gets_the_lock_when_it_is_there(
    tmp_path: Path,
) -> None:
    port = free_port()
    endpoint = f"tcp://127.0.0.1:{port}"
    process = lessor_process(*lock(endpoint, "x"), "true")
    said = read_until(process, "waiting")
    assert said == f"lessor lock: waiting for 'x', but no node answers at {endpoint}; still trying\n"
    with lessor.embedded(tmp_path / "data", port):
        done = finish(process)
    assert done.code == 0
    assert "'x' was granted after" in done.err


class Patient:
    """An acquire that never ends, and the signals meanwhile: none, until the wait has been told so many times."""

    started = 1000.0

    def __init__(self, times: int) -> None:
        self.done = False
        self.now = self.started + 0.25
        self.waits: list[float] = []
        self.times = times

    def next(self, timeout: float) -> tuple[int, bool] | None:
        self.now += timeout
        self.waits.append(self.now - self.started)
        return None if len(self.waits) <= self.times else (signal.SIGTERM, False)


@pytest.mark.parametrize("quiet", [False, True])
def test_the_wait_is_told_again_but_ever_more_rarely(monkeypatch: pytest.MonkeyPatch, *, quiet: bool) -> None:
    told: list[threading.Thread] = []
    monkeypatch.setattr(cli_lock, "_tell", lambda *_: told.append(threading.current_thread()))
    patient: Any = Patient(6)
    monkeypatch.setattr(cli_lock, "time", SimpleNamespace(monotonic=lambda: patient.now))
    options = argparse.Namespace(quiet=quiet, name="x")
    assert cli_lock._wait(patient, patient, options) == exit_codes.SIGNALLED + signal.SIGTERM
    assert patient.waits == [1, 5, 25, 125, 425, 725, 1025]
    until(lambda: len(told) == (0 if quiet else 6), "all of it was told")


def test_quiet_is_quiet(service: str, client: lessor.Client) -> None:
    lease = client.acquire("x")
    process = lessor_process(*lock(service, "x", "--quiet"), "true")
    until(lambda: [view for view in client.describe("x") if view.waiting and view.held_for > 1.2], "it has waited")
    lease.release()
    assert finish(process).err == ""


def test_a_service_that_is_away_is_exit_code_121_and_not_the_word_of_a_holder() -> None:
    done = run_process(*lock("tcp://127.0.0.1:9", "x", "--timeout", "200ms"), "true")
    assert done.code == exit_codes.UNAVAILABLE
    assert "the service is unavailable" in done.err
    done = run_process(*lock("tcp://127.0.0.1:9", "x", "--timeout", "0", "--request-timeout", "200ms"), "true")
    assert done.code == exit_codes.UNAVAILABLE


def test_a_command_that_is_not_there_keeps_nobody_waiting(service: str, client: lessor.Client, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("text")
    with client.lock("x"):
        assert run_process(*lock(service, "x"), "no-such-command").code == exit_codes.NOT_FOUND
        done = run_process(*lock(service, "x"), str(plain))
        assert done.code == exit_codes.NOT_EXECUTABLE
        assert "cannot be run: permission denied" in done.err
    plain.chmod(0o755)
    plain.write_text("#!/no/such/interpreter\n")
    done = run_process(*lock(service, "x"), str(plain))
    assert done.code == exit_codes.NOT_EXECUTABLE
    assert "cannot be run" in done.err


def test_a_ttl_out_of_bounds_is_a_wrong_argument(service: str) -> None:
    done = run_process(*lock(service, "x", "--ttl", "1ms"), "true")
    assert done.code == exit_codes.USAGE
    assert "ttl" in done.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_signals_are_handed_on_and_the_lock_is_held_until_the_command_has_ended(
    number: signal.Signals, service: str, client: lessor.Client, tmp_path: Path
) -> None:
    ready, gate = tmp_path / "ready", tmp_path / "gate"
    os.mkfifo(gate)
    script = f"""
import signal, sys
def told(number, frame):
    print("told", flush=True)
    open({str(gate)!r}).read()
    sys.exit(9)
signal.signal({int(number)}, told)
open({str(ready)!r}, "w").write("ready\\n")
while True:
    signal.pause()
"""
    process = lessor_process(*lock(service, "x"), sys.executable, "-c", script)
    written(ready)
    process.send_signal(number)
    assert process.stdout is not None
    assert process.stdout.readline() == "told\n"
    assert client.try_acquire("x") is None, "it is still held"
    gate.write_text("")
    assert finish(process).code == 9
    lease = client.try_acquire("x")
    assert lease is not None
    lease.release()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_waiting_leaves_no_ghost_in_the_line(
    number: signal.Signals, service: str, client: lessor.Client
) -> None:
    """P7: nothing dead stays in a queue."""
    with client.lock("x"):
        process = lessor_process(*lock(service, "x"), "true")
        until(lambda: len(client.describe("x")) == 2, "it stands in line")
        process.send_signal(number)
        assert finish(process).code == exit_codes.SIGNALLED + number
        assert len(client.describe("x")) == 1


def test_the_death_of_lessor_itself_is_that_of_the_command(service: str, client: lessor.Client, tmp_path: Path) -> None:
    """Nobody would stop the command any more when the lease ends."""
    noted = tmp_path / "pid"
    command_line = (*lock(service, "x"), sys.executable, "-c", STUBBORN, str(noted))
    process = lessor_process(*command_line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    command, other = map(int, written(noted).split())
    process.kill()
    process.wait()
    try:
        until(lambda: gone(command), "the command is gone")
    finally:
        os.kill(other, signal.SIGKILL)
    assert client.release(client.describe("x")[0].token)


def test_a_lost_lease_stops_the_command_and_all_that_it_started(tmp_path: Path) -> None:
    """P8, consul#9788: told before the end, and killed by the end, also one that has left its process group."""
    noted = tmp_path / "pid"
    with lessor.embedded(tmp_path / "data") as node:
        arguments = lock(node.endpoints, "x", "--ttl", "7", "--grace", "3500ms")
        process = lessor_process(*arguments, sys.executable, "-c", STUBBORN, str(noted))
        command, other = map(int, written(noted).split())
    # the service is gone: the lease cannot be renewed
    said = read_until(process, "is told to stop")
    assert "the lease could not be renewed and ends in" in said
    until((tmp_path / "pid.told").exists, "it was told to stop")
    done = finish(process)
    assert done.code == exit_codes.LEASE_LOST
    assert "is killed: the lease has ended" in done.err
    assert gone(command)
    assert gone(other)


def test_a_command_that_stops_when_told_is_not_killed(tmp_path: Path) -> None:
    with lessor.embedded(tmp_path / "data") as node:
        process = lessor_process(*lock(node.endpoints, "x", "--ttl", "7", "--grace", "3500ms"), *GO)
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
    done = finish(process)
    assert done.code == exit_codes.LEASE_LOST
    assert "is told to stop" in done.err
    assert "is killed" not in done.err


def test_a_lease_that_the_service_gives_up_stops_the_command_at_once(service: str, client: lessor.Client) -> None:
    """P8: not only at the next deadline, which may be far away. Released by its token, as an operator's break is."""
    process = lessor_process(*lock(service, "x", "--ttl", "60"), *GO)
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    client.release(client.describe("x")[0].token)
    done = finish(process)
    assert done.code == exit_codes.LEASE_LOST
    assert "the lease is lost: the service says that it is not held any more" in done.err


def test_an_operator_s_reason_is_told_as_his(service: str, client: lessor.Client) -> None:
    process = lessor_process(*lock(service, "x", "--ttl", "60"), *GO)
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    client.break_lease(client.describe("x")[0].token, "host h7 is gone")
    done = finish(process)
    assert done.code == exit_codes.LEASE_LOST
    assert "the lease is lost: an operator broke it: host h7 is gone; " in done.err


class Suspended:
    """A lease, a command and signals on a machine that falls asleep soon after the command has begun."""

    namespace, token, why_lost = "n", 1, "it expired while the machine was suspended"

    def __init__(self, monkeypatch: pytest.MonkeyPatch, asleep_s: float) -> None:
        self.did: list[tuple[str, float]] = []
        self._asleep_s = asleep_s
        self._now = self._until = 1000.0
        self._until += 30.0
        monkeypatch.setattr(cli_lock, "Command", lambda *_: self)
        monkeypatch.setattr(clock, "_read_ns", lambda: int(self._now * 1e9))

    def remaining(self) -> float:
        return max(0.0, self._until - self._now)

    def poll(self) -> int | None:
        return -signal.SIGKILL if self.did and self.did[-1][0] == "kill" else None

    def stop(self) -> None:
        self.did.append(("stop", self._now))

    def kill(self) -> None:
        self.did.append(("kill", self._now))

    def give_back(self) -> None:
        pass

    def next(self, timeout: float) -> None:
        """Time passes while a signal is waited for; the first time the machine sleeps, too."""
        self._now += timeout + self._asleep_s
        self._asleep_s = 0.0


@pytest.mark.parametrize(("asleep_s", "grace_s"), [(120.0, 0.0), (28.0, 2.0)])
def test_after_a_suspend_the_command_has_only_what_is_left_of_the_lease(
    monkeypatch: pytest.MonkeyPatch, asleep_s: float, grace_s: float
) -> None:
    """P3: nothing, if the lease has ended meanwhile, though most clocks stood still."""
    world: Any = Suspended(monkeypatch, asleep_s)
    options = argparse.Namespace(behind=["work"], wants=[], max_hold=None)
    assert cli_lock._guard(world, options, 5.0, world) == exit_codes.LEASE_LOST
    (stopped, stopped_at), (killed, killed_at) = world.did[:2]
    assert (stopped, killed) == ("stop", "kill")
    assert killed_at - stopped_at <= grace_s
