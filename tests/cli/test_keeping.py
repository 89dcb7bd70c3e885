"""The commands for what the service keeps beside leases: semaphores, pins, registers, namespaces, sessions."""

import io
import sys
from types import SimpleNamespace

import pytest

import lessor
from lessor.cli import exit_codes
from lessor.client.wants import units

from .commands import Done, Run


@pytest.fixture
def ask(service: str, run: Run) -> Run:
    """Run a command against the service."""
    return lambda *words: run(*words, "--endpoints", service)


def said_no(done: Done, *words: str) -> None:
    assert (done.code, done.out) == (exit_codes.FAILED, "")
    for each in words:
        assert each in done.err


# --- semaphores ------------------------------------------------------------------------------------------------------


def test_a_semaphore_is_made_listed_shown_changed_and_deleted(client: lessor.Client, ask: Run) -> None:
    assert "created: semaphore 'seats'" in ask("semaphore", "create", "seats", "--limit", "4", "--data", "row 1").out
    said_no(ask("semaphore", "create", "seats", "--limit", "5"), "the semaphore 'seats' exists", "semaphore update")
    assert ask("semaphore", "update", "seats", "--data", "row 2", "--json").json["changed"] is True
    assert ask("semaphore", "update", "seats", "--data", "row 2", "--json").json["changed"] is False
    with client.lock(units("seats", 3)) as lease:
        (listed,) = ask("semaphores", "--json").json["semaphores"]
        assert listed == {
            "name": "seats",
            "path": ["seats"],
            "namespace": "default",
            "limit": 4,
            "units": 3,
            "waiting": 0,
            "data": "row 2",
            "data_base64": "cm93IDI=",
        }
        assert ask("semaphores").out.splitlines()[1].split() == ["seats", "3", "4", "0", "row", "2"]
        shown = ask("semaphore", "show", "seats", "--json").json
        assert (shown["semaphore"]["created"], shown["holders"][0]["token"]) == (True, lease.token)
        said_no(ask("semaphore", "delete", "seats"), "held or waited for", "--force")
        assert client.validate(lease.token) is not None
        lease.release()
    assert ask("semaphore", "delete", "seats").code == exit_codes.OK
    assert ask("semaphores", "--json").json == {"semaphores": []}
    assert "no semaphore was created" in ask("semaphores").err


def test_a_semaphore_in_use_is_deleted_by_force_only_with_a_yes(client: lessor.Client, ask: Run) -> None:
    client.create_semaphore("used", 2)
    lease = client.acquire(units("used", 1))
    assert ask("semaphore", "delete", "used", "--force").code == exit_codes.USAGE
    assert client.validate(lease.token) is not None
    assert ask("semaphore", "delete", "used", "--force", "--yes").code == exit_codes.OK
    assert client.validate(lease.token) is None


def test_what_is_no_semaphore_is_told_with_what_to_do(ask: Run) -> None:
    said_no(ask("semaphore", "show", "none"), "semaphore 'none' was not created")
    said_no(ask("semaphore", "delete", "none"), "no semaphore 'none'", "`lessor semaphore create` makes one")
    said_no(ask("semaphore", "update", "none", "--data", "x"), "no semaphore 'none'")


# --- pins ------------------------------------------------------------------------------------------------------------


def test_a_name_is_pinned_and_unpinned(ask: Run) -> None:
    assert ask("pin", "--path", "users/42", "ops").out == "pinned: '/users/42' in namespace 'default' by ops\n"
    assert ask("pin", "--path", "users/42", "ops", "--json").json["changed"] is False
    assert ask("pins", "--json").json == {
        "pins": [{"name": "users/42", "path": ["users", "42"], "namespace": "default", "entities": ["ops"]}]
    }
    assert ask("pins").out.splitlines()[1].split() == ["/users/42", "ops"]
    assert ask("pins", "--all").out.splitlines()[1].split() == ["default", "/users/42", "ops"]
    assert ask("unpin", "--path", "users/42", "ops", "--json").json["changed"] is True
    assert "it was not pinned" in ask("unpin", "--path", "users/42", "ops").out
    assert "nothing is pinned in namespace 'default'" in ask("pins").err


# --- registers -------------------------------------------------------------------------------------------------------


def test_a_register_is_written_under_a_token_and_read_by_anybody(client: lessor.Client, ask: Run) -> None:
    with client.lock("state") as lease:
        token = ("--token", str(lease.token))
        said_no(ask("register", "get", "state"), "'state' has no register")
        one = ask("register", "put", "state", "one", *token, "--version", "0", "--json").json["version"]
        told = ask("register", "put", "state", "two", *token).out
        assert ask("register", "get", "state").out == "two"
        found = ask("register", "get", "state", "--json").json
        two = found["version"]
        assert 0 < one < two
        assert f"has version {two}" in told
        assert (found["token"], found["data"]) == (lease.token, "two")
        assert ask("register", "ls", "--json").json["registers"] == [
            {"name": "state", "path": ["state"], "namespace": "default", "version": two, "token": lease.token}
        ]
        assert ask("register", "ls").out.splitlines()[1].split() == ["state", str(two), str(lease.token)]
        said_no(ask("register", "put", "state", "x", *token, "--version", f"{one}"), f"has version {two}, not {one}")
        said_no(ask("register", "put", "other", "x", *token), "does not cover 'other'", "on its name, or on a path")
        assert "erased" in ask("register", "erase", "state", *token).out
        assert ask("register", "erase", "state", *token, "--json").json["changed"] is False
    assert "there is no register" in ask("register", "ls").err


def test_an_old_token_writes_nothing(client: lessor.Client, ask: Run) -> None:
    """P5: the register is fenced."""
    with client.lock("fenced") as old:
        pass
    with client.lock("fenced") as lease:
        lease.write(b"new")
        said_no(ask("register", "put", "fenced", "late", "--token", str(old.token)), "nothing was written")
        said_no(ask("register", "erase", "fenced", "--token", str(old.token)), "nothing was written")
        assert client.read_register("fenced").data == b"new"


def test_a_register_takes_what_comes_on_stdin_as_it_is(
    client: lessor.Client, ask: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\xff\x00")))
    with client.lock("raw") as lease:
        assert ask("register", "put", "raw", "-", "--token", str(lease.token)).code == exit_codes.OK
        assert client.read_register("raw").data == b"\xff\x00"
        assert ask("register", "get", "raw", "--json").json["data_base64"] == "/wA="
        lease.erase()


# --- namespaces ------------------------------------------------------------------------------------------------------


def test_a_namespace_is_made_altered_described_and_dropped(ask: Run) -> None:
    made = ask("namespace", "create", "reports", "--default-ttl", "30s", "--lock-delay", "5s", "--json").json
    assert (made["default_ttl"], made["lock_delay"], made["ttl_max"], made["created"]) == (30, 5, 0, True)
    said_no(ask("namespace", "create", "reports"), "namespace 'reports' exists", "namespace alter")
    assert (
        ask("namespace", "alter", "reports", "--ttl-max", "1h", "--lock-delay", "0", "--json").json["ttl_max"] == 3600
    )
    text = ask("namespace", "describe", "reports").out
    for words in ("reports (created)", "default-ttl:    30.0s", "ttl-max:        1h00m", "lock-delay:     none"):
        assert words in text
    rows = {line.split()[0]: line.split() for line in ask("namespaces").out.splitlines()[1:]}
    assert rows["reports"][:6] == ["reports", "yes", "0", "0", "30.0s", "1h00m"]
    assert ask("namespace", "drop", "reports").out == "dropped: namespace 'reports'\n"
    said_no(ask("namespace", "describe", "reports"), "was not created, and is not used")
    said_no(ask("namespace", "drop", "reports"), "'reports' was not created")


def test_settings_that_contradict_each_other_are_wrong_arguments(ask: Run) -> None:
    done = ask("namespace", "create", "odd", "--default-ttl", "1h", "--ttl-max", "1m")
    assert done.code == exit_codes.USAGE
    assert "the default ttl is longer than the maximum ttl" in done.err


def test_a_namespace_in_use_is_dropped_by_force_only_with_a_yes(service: str, ask: Run) -> None:
    assert ask("namespace", "create", "busy").code == exit_codes.OK
    with lessor.connect(service, "busy", holder="bee") as bee:
        lease = bee.acquire("x", ttl=60)
        said_no(ask("namespace", "drop", "busy"), "'busy' is in use: 1 claims", "--force")
        assert ask("namespace", "drop", "busy", "--force").code == exit_codes.USAGE
        assert bee.validate(lease.token) is not None
        assert ask("namespace", "drop", "busy", "--force", "--yes", "--json").json == {"name": "busy", "dropped": True}
        assert bee.validate(lease.token) is None


# --- sessions --------------------------------------------------------------------------------------------------------


def test_each_client_s_session_is_listed_with_what_it_holds(service: str, ask: Run) -> None:
    with lessor.connect(service, "apart", description="worker 7", session_timeout=20) as worker, worker.lock("x"):
        (listed,) = ask("sessions", "--namespace", "apart", "--json").json["sessions"]
        assert (listed["description"], listed["timeout"], listed["held"], listed["waiting"]) == ("worker 7", 20, 1, 0)
        assert ask("sessions", "--namespace", "apart").out.splitlines()[1].split()[1:] == [
            *("apart", "20.0s", "0", "1", "0"),
            *("worker", "7"),
        ]
        assert listed in ask("sessions", "--all", "--json").json["sessions"]
        assert "there is no session in namespace 'nobody-s'" in ask("sessions", "--namespace", "nobody-s").err
