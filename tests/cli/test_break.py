"""`lessor break`: a lease is ended by its token and no other, with a reason, and never without a yes."""

import io
import sys
import threading

import pytest

import lessor
from lessor.cli import exit_codes, output
from lessor.client.states import Loss
from lessor.client.wants import read

from ..support.waiting import until
from .commands import Run


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is typed at the terminal on which the command runs."""
    keys = io.StringIO()
    monkeypatch.setattr(sys, "stdin", keys)
    monkeypatch.setattr(output, "at_a_terminal", lambda: True)
    return keys


def test_the_only_holder_of_a_name_loses_it_and_is_told_why(service: str, client: lessor.Client, run: Run) -> None:
    lease = client.acquire("x", ttl=60)
    done = run("break", "x", "--reason", "host h7 is gone", "--yes", "--endpoints", service)
    assert done.code == exit_codes.OK
    assert f"broken: token {lease.token} of tester on 'x'" in done.out
    until(lambda: lease.loss is Loss.BROKEN, "the holder is told")
    assert "host h7 is gone" in lease.lost_reason


def test_a_lease_is_named_by_its_token_in_whatever_namespace(service: str, run: Run) -> None:
    with lessor.connect(service, "elsewhere", holder="eve") as eve:
        lease = eve.acquire("x", ttl=60)
        done = run("break", "--token", str(lease.token), "--reason", "r", "--yes", "--json", "--endpoints", service)
        assert done.json == {
            "name": "x",
            "path": ["x"],
            "namespace": "elsewhere",
            "holder": "eve",
            "token": lease.token,
            "reason": "r",
        }
        assert eve.validate(lease.token) is None


def test_of_several_holders_none_is_broken_and_their_tokens_are_told(
    service: str, client: lessor.Client, run: Run
) -> None:
    one, two = client.acquire(read("shared")), client.acquire(read("shared"))
    done = run("break", "shared", "--reason", "r", "--yes", "--endpoints", service)
    assert done.code == exit_codes.FAILED
    assert "2 hold 'shared'" in done.err
    for lease in (one, two):
        assert f"--token {lease.token} " in done.err
        assert client.validate(lease.token) is not None
        lease.release()


def test_what_is_held_below_is_not_taken_for_the_name(service: str, client: lessor.Client, run: Run) -> None:
    with client.lock(("top", "part")) as lease:
        done = run("break", "top", "--reason", "r", "--yes", "--endpoints", service)
        assert done.code == exit_codes.FAILED
        assert "nobody holds just 'top'" in done.err
        assert f"--token {lease.token} " in done.err
        assert "of '/top/part'" in done.err


def test_what_nobody_holds_cannot_be_broken(service: str, client: lessor.Client, run: Run) -> None:
    """P6: the token of a lease that has ended touches no later holder."""
    old = client.acquire("y")
    old.release()
    with client.lock("y") as lease:
        done = run("break", "--token", str(old.token), "--reason", "r", "--yes", "--endpoints", service)
        assert done.code == exit_codes.FAILED
        assert f"no lease of token {old.token} is held" in done.err
        assert client.validate(lease.token) is not None
    done = run("break", "y", "--reason", "r", "--yes", "--endpoints", service)
    assert (done.code, done.out) == (exit_codes.FAILED, "")
    assert "nobody holds 'y'" in done.err


@pytest.mark.parametrize(("answer", "broken"), [("y\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_on_a_terminal_it_is_asked_first(
    answer: str, service: str, client: lessor.Client, run: Run, typed: io.StringIO, *, broken: bool
) -> None:
    lease = client.acquire("asked", ttl=60)
    typed.write(answer)
    typed.seek(0)
    done = run("break", "asked", "--reason", "r", "--endpoints", service)
    assert f"token {lease.token} of tester on 'asked'" in done.err
    assert "it may work on until then.\nBreak it? [y/N]" in done.err
    assert done.code == (exit_codes.OK if broken else exit_codes.FAILED)
    assert (client.validate(lease.token) is None) == broken
    lease.release()


def test_without_a_terminal_nothing_is_broken_unless_it_says_yes(service: str, client: lessor.Client, run: Run) -> None:
    with client.lock("unasked") as lease:
        for which in (("unasked",), ("--token", str(lease.token))):
            done = run("break", *which, "--reason", "r", "--endpoints", service)
            assert done.code == exit_codes.USAGE
            assert "say --yes" in done.err
        assert client.validate(lease.token) is not None


def test_who_waits_is_told_to_have_it_now(service: str, client: lessor.Client, run: Run) -> None:
    lease = client.acquire("passed", ttl=60)
    with lessor.connect(service, holder="next") as other:
        got: list[lessor.Lease] = []
        thread = threading.Thread(target=lambda: got.append(other.acquire("passed", ttl=60)))
        thread.start()
        until(lambda: len(client.describe("passed")) == 2, "it waits")
        done = run("break", "passed", "--reason", "r", "--yes", "--endpoints", service)
        thread.join(60)
        assert f"held now by next, token {got[0].token}" in done.out
    assert not lease.held
