"""`lessor serve`: how a node starts, what it says, and how it ends."""

import contextlib
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import lessor
from lessor.cli import exit_codes
from lessor.cli.serve import LineFormatter
from lessor.core.errors import Corrupt

from ..support.sockets import free_port
from ..support.waiting import until
from .commands import Done, finish, gone, lessor_process, read_until, run_process

pytestmark = pytest.mark.system


@contextmanager
def serving(*arguments: str, **settings: Any) -> "Iterator[subprocess.Popen[str]]":
    """A node that serves; killed if the test does not end it."""
    process = lessor_process(*arguments, **settings)
    try:
        read_until(process, " listens at ")
        yield process
    finally:
        process.kill()
        finish(process)


@pytest.fixture
def endpoint() -> str:
    return f"tcp://127.0.0.1:{free_port()}"


@pytest.fixture
def arguments(endpoint: str, tmp_path: Path) -> list[str]:
    """Of a node that is alone in its cluster."""
    return ["serve", "--node-id", "1", "--cluster", f"1={endpoint}", "--data", str(tmp_path / "data")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_stops_cleanly_when_it_is_told_to(number: signal.Signals, arguments: list[str]) -> None:
    with serving(*arguments) as process:
        process.send_signal(number)
        done = finish(process)
    assert done.code == exit_codes.OK
    assert done.out == ""
    assert f"node 1 has stopped, as {number.name} demands" in done.err.splitlines()[-1]


def test_what_was_granted_is_there_after_a_restart(arguments: list[str], endpoint: str) -> None:
    with serving(*arguments) as process, lessor.connect(endpoint) as client:
        token = client.acquire("x", ttl=60, detached=True).token
        process.send_signal(signal.SIGTERM)
        assert finish(process).code == 0
    with serving(*arguments), lessor.connect(endpoint) as client:
        assert client.describe("x")[0].token == token


def test_the_log_is_one_line_for_each_event_with_its_time(arguments: list[str]) -> None:
    process = lessor_process(*arguments)
    line, *others = read_until(process, " leads ").splitlines()
    process.terminate()
    finish(process)
    assert f" listens at {arguments[4].partition('=')[2]}" in line, "it comes first: nobody is served without a leader"
    assert "no leader is known" in others[0]
    when, level, words = line.split(maxsplit=2)
    assert when.endswith("Z")
    assert when[10] == "T"
    assert (level, words[:19]) == ("info", "node 1 of cluster '")


def test_a_record_with_a_traceback_is_one_line_too() -> None:
    def line_of(error: Exception) -> str:
        try:
            raise error
        except type(error):
            record = logging.LogRecord("x", logging.CRITICAL, "f", 1, "it\nfailed", None, sys.exc_info())
        return LineFormatter().format(record)

    line = line_of(ValueError("because"))
    assert "\n" not in line
    assert "it | failed" in line
    assert "line_of" in line
    assert "ValueError: because" in line
    assert "line_of" not in line_of(Corrupt("the words are enough"))


def refused(*arguments: str, options: tuple[str, ...] = (), **settings: Any) -> Done:
    """Run a node that must not start, and check how that is told: in one line, without a traceback."""
    done = run_process(*arguments, options=options, **settings)
    assert done.out == ""
    assert "Traceback" not in done.err
    assert done.err.startswith("lessor serve: ")
    assert done.err.count("\n") == 1
    return done


def test_a_node_refuses_to_run_without_its_assertions(arguments: list[str], tmp_path: Path) -> None:
    """DESIGN §3: the assertions are part of the node."""
    done = refused(*arguments, options=("-O",))
    assert done.code == exit_codes.USAGE
    assert "python -O" in done.err
    assert refused(*arguments, env=os.environ | {"PYTHONOPTIMIZE": "1"}).code == exit_codes.USAGE
    assert not (tmp_path / "data").exists()


def test_a_port_or_a_directory_in_use_is_told(arguments: list[str], endpoint: str, tmp_path: Path) -> None:
    with serving(*arguments):
        done = refused(*arguments[:-1], str(tmp_path / "other"))
        assert done.code == exit_codes.FAILED
        assert endpoint in done.err
        assert refused(*arguments).code == exit_codes.NODE_UNUSABLE


def test_the_directory_of_another_node_is_refused(arguments: list[str], endpoint: str, tmp_path: Path) -> None:
    with serving(*arguments):
        pass
    other = ["serve", "--node-id", "2", "--cluster", f"2={endpoint}", "--data", str(tmp_path / "data")]
    assert refused(*other).code == exit_codes.NODE_UNUSABLE
    assert refused(*arguments, "--cluster-name", "other").code == exit_codes.NODE_UNUSABLE


def test_a_damaged_journal_is_told_with_the_file(arguments: list[str], tmp_path: Path) -> None:
    with serving(*arguments):
        pass
    journal = tmp_path / "data" / "journal.db"
    journal.write_bytes(b"\0" * journal.stat().st_size)
    done = refused(*arguments)
    assert done.code == exit_codes.NODE_UNUSABLE
    assert str(journal) in done.err


def test_a_node_that_is_no_member_is_refused(arguments: list[str]) -> None:
    arguments[2] = "7"
    done = refused(*arguments)
    assert done.code == exit_codes.USAGE
    assert "node 7 is not in the cluster" in done.err


def test_a_node_whose_disk_fails_ends_at_once(arguments: list[str], endpoint: str) -> None:
    """DESIGN §3: a node that lacks one role answers some questions and not others; better none."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))

    with serving(*arguments, preexec_fn=small_files) as process, lessor.connect(endpoint, request_timeout=1) as client:
        names = (f"big-{number}" for number in range(10_000))

        def ended() -> bool:
            with contextlib.suppress(lessor.LessorError):
                client.acquire(next(names), ttl=60, data=b"x" * 60_000, timeout=1)
            return process.poll() is not None

        until(ended, "the node to end", every=0)
        done = finish(process)
    assert done.code == exit_codes.NODE_FAILED
    assert "critical" in done.err.splitlines()[-1]


def test_a_connection_that_goes_away_at_once_is_not_called_a_stranger_s(arguments: list[str], endpoint: str) -> None:
    """A client that ends just after its start does so, too."""
    with serving(*arguments) as process:
        host, port = endpoint.removeprefix("tcp://").split(":")
        socket.create_connection((host, int(port))).close()
        line = read_until(process, "handshake").splitlines()[-1]
        assert "before its handshake was over: it does not speak ZeroMQ, or it went away at once" in line


def test_a_directory_that_may_not_be_written_is_for_an_operator(arguments: list[str], tmp_path: Path) -> None:
    """A supervisor that starts the node again and again would not help."""
    for place in ("/proc/lessor", "/sys/lessor"):  # where not even root makes one
        done = refused(*arguments[:-1], place)
        assert done.code == exit_codes.NODE_UNUSABLE
        assert f"cannot use the data directory {place}: " in done.err
        assert "let the node's user read and write it, or give --data another one" in done.err
    (tmp_path / "data" / "node.db").mkdir(parents=True)
    done = refused(*arguments)
    assert done.code == exit_codes.NODE_UNUSABLE
    assert str(tmp_path / "data" / "node.db") in done.err


def test_a_node_that_is_tied_to_its_parent_ends_with_it(arguments: list[str]) -> None:
    script = """
import os, subprocess, sys
node = subprocess.Popen([*sys.argv[1:], "--parent", str(os.getpid())], stderr=subprocess.PIPE, text=True)
while " listens at " not in node.stderr.readline():
    pass
print(node.pid, flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", script, sys.executable, "-m", "lessor", *arguments]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    node = int(parent.stdout.readline())
    assert not gone(node)
    parent.kill()
    finish(parent)
    until(lambda: gone(node), "the node has ended")
    # one whose parent has ended before it could say so does not even start
    assert run_process(*arguments, "--parent", "1").code == 0


@pytest.mark.parametrize("below", ["", "deep/below"])
def test_a_file_in_place_of_the_directory_is_a_wrong_argument(below: str, endpoint: str, tmp_path: Path) -> None:
    """And no failure of the node: a supervisor that starts it again and again would not help."""
    plain = tmp_path / "plain"
    plain.write_text("text")
    node = ("serve", "--node-id", "1", "--cluster", f"1={endpoint}")
    done = run_process(*node, "--data", str(plain / below))
    assert done.code == exit_codes.USAGE
    assert f"--data: '{plain}' is no directory" in done.err
    assert "LESSOR_DATA: " in run_process(*node, env=os.environ | {"LESSOR_DATA": str(plain)}).err
    assert plain.read_text() == "text"


def test_a_directory_without_a_name_is_refused() -> None:
    """An unset variable must not make a node of the current directory."""
    found = run_process("serve", "--node-id", "1", "--cluster", "1=tcp://127.0.0.1:7411", "--data", "")
    assert found.code == exit_codes.USAGE
    assert "needs a name" in found.err
