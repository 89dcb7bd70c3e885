"""`lessor show` and `lessor ls` of shared, counted and overlapping claims: who is in the way, and why."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import lessor
from lessor.cli import exit_codes
from lessor.client.wants import Want, read, units, write

from ..support.waiting import until
from .commands import Run


@pytest.fixture
def other(service: str) -> Iterator[lessor.Client]:
    with lessor.connect(service, holder="other") as connected:
        yield connected


@contextmanager
def waiting(client: lessor.Client, want: Want, name: str, before: int) -> Iterator[None]:
    """Somebody waits where so many claims are described before him; the block lets him have it in the end."""
    thread = threading.Thread(target=lambda: client.acquire(want, ttl=60).release())
    thread.start()
    until(lambda: len(client.describe(name)) > before, "he stands in line")
    yield
    thread.join(60)


def test_all_who_read_are_shown_and_who_waits_has_its_place(
    service: str, client: lessor.Client, other: lessor.Client, run: Run
) -> None:
    one, two = client.acquire(read("cat"), data=b"shelf 1"), other.acquire(read("cat"))
    with waiting(client, write("cat"), "cat", 2), waiting(other, read("cat"), "cat", 3):
        shown = run("show", "cat", "--json", "--endpoints", service).json
        assert [(holder["holder"], holder["token"], holder["mode"]) for holder in shown["holders"]] == [
            ("tester", one.token, "read"),
            ("other", two.token, "read"),
        ]
        assert (shown["holder"], shown["token"]) == ("tester", one.token), "the first of them"
        line = [(waiter["place"], waiter["holder"], waiter["mode"]) for waiter in shown["waiting"]]
        assert line == [(1, "tester", "write"), (2, "other", "read")]
        text = run("show", "cat", "--endpoints", service).out
        for words in ("holders:     2", "shelf 1", "1. tester, for", "2. other, read, for"):
            assert words in text
        one.release()
        two.release()


def test_who_waits_first_in_line_here_and_is_kept_back_elsewhere_is_shown_with_what_keeps_him_back(
    service: str, client: lessor.Client, other: lessor.Client, run: Run
) -> None:
    lease = other.acquire("b")

    def ask() -> None:
        with client.lock_all(["a", "b", "c"]):
            pass

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: client.describe("a"), "he stands in line")
    done = run("show", "a", "--endpoints", service)
    assert f"kept back:   the first in line also asks for 'b', which other holds (token {lease.token})" in done.out
    shown = run("show", "a", "--json", "--endpoints", service).json
    assert shown["kept_back_by"] == [{"path": ["b"], "holder": "other", "token": lease.token, "waiting": False}]
    with waiting(other, write("a"), "a", 1):
        assert run("show", "b", "--json", "--endpoints", service).json["kept_back_by"] == [], "he is in the way himself"
        lease.release()
    thread.join(60)


def test_a_semaphore_is_shown_with_its_units(
    service: str, client: lessor.Client, other: lessor.Client, run: Run
) -> None:
    with client.lock(units("seats", 3, limit=4)), other.lock(units("seats", 1, limit=4)):
        shown = run("show", "seats", "--json", "--endpoints", service).json
        assert (shown["semaphore"]["limit"], shown["semaphore"]["units"]) == (4, 4)
        assert shown["semaphore"]["created"] is False
        assert [(holder["mode"], holder["count"]) for holder in shown["holders"]] == [("count", 3), ("count", 1)]
        assert "4 of 4 units held; made by its claims" in run("show", "seats", "--endpoints", service).out
        listed = run("ls", "--endpoints", service).out
        assert "3 of 4 units" in listed
        assert "1 of 4 units" in listed


@pytest.mark.parametrize(
    ("held", "asked", "words"),
    [
        (("users",), "users/42", "above it:    'users' is held by other (write, token"),
        (("users", "42"), "users", "below it:    '/users/42' is held by other (write, token"),
        ((), "users", "above it:    the whole namespace is held by other (write, token"),
    ],
)
def test_what_overlaps_a_path_is_told(
    held: tuple[str, ...], asked: str, words: str, service: str, other: lessor.Client, run: Run
) -> None:
    with other.lock(write(*held)) as lease:
        done = run("show", "--path", asked, "--endpoints", service)
        assert done.code == exit_codes.OK, "it is not free"
        assert words in done.out
        assert "nobody holds just this" in done.out
        shown = run("show", "--path", asked, "--json", "--endpoints", service).json
        assert shown["holder"] is None
        assert [(each["path"], each["token"]) for each in shown["overlapping"]] == [(list(held), lease.token)]


def test_a_name_with_a_slash_is_not_the_path_of_these_segments(service: str, client: lessor.Client, run: Run) -> None:
    with client.lock("a/b"):
        assert run("show", "a/b", "--endpoints", service).code == exit_codes.OK
        assert run("show", "--path", "a/b", "--endpoints", service).code == exit_codes.FAILED
        assert run("show", "--path", r"a\/b", "--endpoints", service).code == exit_codes.OK


def test_each_path_of_a_claim_has_its_line(service: str, client: lessor.Client, run: Run) -> None:
    with client.lock([write("left"), read("sub", "right")]) as lease:
        leases = run("ls", "--json", "--endpoints", service).json["leases"]
        assert [(each["path"], each["token"], each["mode"]) for each in leases] == [
            (["left"], lease.token, "write"),
            (["sub", "right"], lease.token, "read"),
        ]
        assert "/sub/right" in run("ls", "--endpoints", service).out
        assert "held with:   /sub/right (read)" in run("show", "left", "--endpoints", service).out


def test_pins_and_the_register_s_version_are_shown(service: str, client: lessor.Client, run: Run) -> None:
    with client.lock("kept") as lease:
        version = lease.write(b"one").version
        client.pin("kept", "ops")
        shown = run("show", "kept", "--json", "--endpoints", service).json
        assert (shown["pins"], shown["register_version"]) == (["ops"], version)
        text = run("show", "kept", "--endpoints", service).out
        assert "pinned by:   ops" in text
        assert f"register:    version {version}" in text
        client.unpin("kept", "ops")


def test_a_name_that_stays_closed_says_for_how_long_and_why(service: str, client: lessor.Client, run: Run) -> None:
    """Also what is below it is closed."""
    client.create_namespace("delayed", lock_delay=60)
    with lessor.connect(service, "delayed", holder="late") as late:
        lease = late.acquire("x")
        client.break_lease(lease.token, "its disk is full")
        where = ("--namespace", "delayed", "--endpoints", service)
        done = run("show", "x", *where)
        assert done.code == exit_codes.FAILED
        assert f"last lapse:  token {lease.token} of late ended" in done.out
        assert "its disk is full" in done.out
        assert "stays closed for" in done.err
        shown = run("show", "x", "--json", *where).json
        assert 0 < shown["closed_for"] <= 60
        assert (shown["lapsed"]["token"], shown["lapsed"]["why"]) == (lease.token, "its disk is full")
        below = run("show", "--path", "x/y", *where)
        assert "on 'x' (lock delay)" in below.out
        assert "stays closed for" in below.err


def test_who_only_observes_has_no_place_in_line(service: str, client: lessor.Client, run: Run) -> None:
    with client.lock("seen"):
        thread = threading.Thread(target=lambda: client.wait_free("seen", 60))
        thread.start()
        until(lambda: len(client.describe("seen")) == 2, "it observes")
        shown = run("show", "seen", "--json", "--endpoints", service).json
        assert (shown["waiting"], shown["observing"]) == ([], 1)
        assert "1 waits until it is free" in run("show", "seen", "--endpoints", service).out
    thread.join(60)
