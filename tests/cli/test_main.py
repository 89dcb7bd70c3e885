"""What all commands have in common: how errors are told, and what is done without the server."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lessor
from lessor.cli import exit_codes
from lessor.cli.dispatch import code_of
from lessor.cli.explain import explain
from lessor.client.errors import AcquireTimeout, ServiceBusy, Unavailable
from lessor.core.errors import BadRequest, Corrupt, ForeignDatabase
from lessor.transport.ports import AddressInUse

from .commands import Run, finish, lessor_process, read_until, run_process

NOBODY = "tcp://127.0.0.1:9"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadRequest("x"), exit_codes.USAGE),
        (AcquireTimeout("x"), exit_codes.NOT_ACQUIRED),
        (AcquireTimeout("x", indefinite=True), exit_codes.UNAVAILABLE),
        (Unavailable("x", indefinite=False), exit_codes.UNAVAILABLE),
        (ServiceBusy("x"), exit_codes.UNAVAILABLE),
        (Corrupt("x"), exit_codes.FAILED),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: Exception, code: int) -> None:
    assert code_of(error) == code


def test_an_indefinite_error_says_so() -> None:
    """P9."""
    assert "may have taken effect" in explain(Unavailable("x", indefinite=True))
    assert "may have taken effect" not in explain(Unavailable("x", indefinite=False))


@pytest.mark.parametrize("command", [("ls",), ("show", "x")])
def test_a_service_that_is_away_is_one_line_and_exit_code_121(command: tuple[str, ...], run: Run) -> None:
    done = run(*command, "--endpoints", NOBODY, "--request-timeout", "200ms")
    assert (done.code, done.out) == (exit_codes.UNAVAILABLE, "")
    assert done.err.startswith(f"lessor {command[0]}: the service is unavailable: ")
    assert done.err.count("\n") == 1


UNKNOWN = "tcp://nosuch.invalid:7411"
UNRESOLVED = "the host name 'nosuch.invalid' cannot be resolved"


@pytest.mark.parametrize("command", [("ls", "--request-timeout", "200ms"), ("status", "--request-timeout", "200ms")])
def test_a_host_name_that_cannot_be_resolved_is_told(command: tuple[str, ...], run: Run) -> None:
    done = run(*command, "--endpoints", f"{UNKNOWN},{NOBODY}")
    assert done.code in (exit_codes.UNAVAILABLE, exit_codes.FAILED)
    assert (done.out + done.err).count(UNRESOLVED) == 1
    assert "resolved" not in str(run(*command, "--endpoints", NOBODY))


@pytest.mark.system
@pytest.mark.parametrize("command", [("watch",), ("lock", "x")])
def test_so_it_is_while_a_command_waits(command: tuple[str, ...]) -> None:
    behind = ("--", "true") if command[0] == "lock" else ()
    process = lessor_process(*command, "--endpoints", UNKNOWN, *behind)
    assert f"; {UNRESOLVED}" in read_until(process, "resolved")
    process.terminate()
    finish(process)


@pytest.mark.system
def test_a_node_whose_own_host_name_cannot_be_resolved_says_what_to_do(tmp_path: Path) -> None:
    node = ("serve", "--node-id", "1", "--data", str(tmp_path / "data"))
    done = run_process(*node, "--cluster", f"1={UNKNOWN}")
    assert done.code == exit_codes.FAILED
    assert f"lessor serve: {UNRESOLVED}; give --bind the address to listen on\n" == done.err
    assert UNRESOLVED in run_process(*node, "--cluster", f"1={NOBODY}", "--bind", "nosuch.invalid").err


@pytest.mark.system
@pytest.mark.parametrize("bind", ["", "192.0.2.1"])
def test_a_node_whose_own_address_is_that_of_another_machine_says_what_to_do(bind: str, tmp_path: Path) -> None:
    """No machine has an address of 192.0.2.0/24, which is for examples (RFC 5737)."""
    own = "tcp://127.0.0.1:7411" if bind else "tcp://192.0.2.1:7411"
    node = ("serve", "--node-id", "1", "--data", str(tmp_path / "data"), "--cluster", f"1={own}")
    done = run_process(*node, *(["--bind", bind] if bind else []))
    assert done.code == exit_codes.USAGE
    assert done.err == "lessor serve: 192.0.2.1 is no address of this machine; give --bind the address to listen on\n"


@pytest.mark.parametrize("command", ["demo", "bench", "serve"])
def test_without_the_server_it_is_said_what_to_install(command: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("lessor.actors")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pykka", None)
    arguments = ("--node-id", "1", "--cluster", "1=tcp://127.0.0.1:7411", "--data", "x") if command == "serve" else ()
    done = run(command, *arguments)
    assert (done.code, done.out) == (exit_codes.USAGE, "")
    assert 'pip install "lessor[server]"' in done.err
    assert "pykka" in done.err


def test_python_m_lessor_is_the_command() -> None:
    assert run_process("--version").out == f"lessor {lessor.__version__}\n"


def test_output_that_nobody_reads_any_more_ends_the_command_quietly(service: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = finish(lessor_process("ls", "--json", "--endpoints", service, stdout=writing))
    os.close(writing)
    assert (done.code, done.err) == (exit_codes.BROKEN_PIPE, "")


@pytest.mark.parametrize("command", ["ls", "status --json", "--help"])
@pytest.mark.parametrize("redirected", [">/dev/full", ">&-"])
def test_output_that_cannot_be_written_is_one_line_and_no_answer(command: str, redirected: str, service: str) -> None:
    line = f'unset PYTHONUNBUFFERED; exec "$0" -m lessor {command} {redirected}'
    with lessor.connect(service) as holder, holder.acquire("x"):
        environment = os.environ | {"LESSOR_ENDPOINTS": service}
        done = subprocess.run(
            ["/bin/sh", "-c", line, sys.executable], env=environment, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == exit_codes.NOT_WRITTEN
    assert done.stderr.startswith("lessor: cannot write to stdout: ")
    assert done.stderr.count("\n") == 1


LOADED_BY_THE_ENTRY = """
import sys
before = set(sys.modules)
import lessor.cli.main
print(*sorted(set(sys.modules) - before))
"""


def test_the_entry_loads_nothing_before_it_heeds_ctrl_c() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED_BY_THE_ENTRY], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["lessor", "lessor.cli", "lessor.cli.main"]


@pytest.mark.system
@pytest.mark.parametrize("loaded", ["lessor.cli.main", "zmq", "lessor.core.commands", "lessor.cli.watch"])
def test_ctrl_c_ends_a_command_quietly_however_early_it_comes(loaded: str) -> None:
    """Each module is told on stderr when it has been loaded; `watch` would go on for ever."""
    arguments = ("watch", "--endpoints", NOBODY)
    process = lessor_process(*arguments, options=("-X", "importtime"))
    read_until(process, f" {loaded}\n")
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == exit_codes.INTERRUPTED
    assert [line for line in done.err.splitlines() if not line.startswith(("import time:", "lessor watch: "))] == []


def test_the_installed_command_is_there() -> None:
    script = Path(sys.executable).parent / "lessor"
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("lessor ")


def test_every_name_of_the_package_is_there_although_it_is_loaded_late() -> None:
    done = subprocess.run([sys.executable, "-c", "from lessor import *; connect"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {name for name in lessor.__all__ if getattr(lessor, name, None) is not None} == set(lessor.__all__)
    assert set(lessor.__all__) <= set(dir(lessor))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        lessor.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_what_an_embedded_node_may_raise_is_found_beside_it() -> None:
    assert issubclass(lessor.StorageFailed, lessor.LessorError)
    assert lessor.ForeignDatabase is ForeignDatabase
    assert lessor.AddressInUse is AddressInUse
