"""`lessor ls` and `lessor show` of plain leases, against a service in this process."""

import threading

import pytest

import lessor
from lessor.cli import exit_codes

from ..support.waiting import until
from .commands import Run

KEYS = {
    "name",
    "path",
    "mode",
    "count",
    "holders",
    "observing",
    "namespace",
    "holder",
    "token",
    "ttl",
    "expires_in",
    "held_for",
    "session",
    "detached",
    "data",
    "data_base64",
    "waiting",
}
SHOWN = KEYS | {"overlapping", "kept_back_by", "semaphore", "pins", "closed_for", "lapsed", "register_version"}


@pytest.fixture
def lease(client: lessor.Client) -> lessor.Lease:
    return client.acquire("nightly", ttl=30, data="überall".encode())


@pytest.fixture
def waiter(client: lessor.Client, lease: lessor.Lease) -> threading.Thread:
    thread = threading.Thread(target=lambda: client.acquire("nightly", ttl=30, holder="second").release())
    thread.start()
    until(lambda: len(client.describe("nightly")) == 2, "the second one stands in line")
    return thread


def test_show_tells_all_about_one_lease(service: str, lease: lessor.Lease, waiter: threading.Thread, run: Run) -> None:
    done = run("show", "nightly", "--json", "--endpoints", service)
    assert done.code == 0
    shown = done.json
    assert set(shown) == SHOWN
    assert (shown["name"], shown["namespace"], shown["holder"]) == ("nightly", "default", "tester")
    assert (shown["token"], shown["ttl"], shown["detached"]) == (lease.token, 30, False)
    assert 0 < shown["expires_in"] <= 30
    assert shown["session"] > 0
    assert shown["data"] == "überall"
    assert [waiting["holder"] for waiting in shown["waiting"]] == ["second"]

    text = run("show", "nightly", "--endpoints", service)
    assert text.code == 0
    for words in ("tester", str(lease.token), "überall", "1. second"):
        assert words in text.out

    lease.release()
    waiter.join(60)


def test_show_of_what_nobody_holds_says_no_with_the_same_keys(service: str, run: Run) -> None:
    done = run("show", "free", "--json", "--endpoints", service)
    assert done.code == exit_codes.FAILED
    assert set(done.json) == SHOWN
    assert (done.json["name"], done.json["holder"], done.json["waiting"]) == ("free", None, [])
    assert done.err == ""
    text = run("show", "free", "--endpoints", service)
    assert text.code == exit_codes.FAILED
    assert "nobody holds 'free' in namespace 'default'" in text.err


def test_data_that_is_no_text_is_shown_in_base64_and_never_as_control_codes(
    service: str, client: lessor.Client, run: Run
) -> None:
    with client.lock("bytes", data=b"\xff\x00"), client.lock("codes", data=b"\x1b[31m\n"):
        shown = run("show", "bytes", "--json", "--endpoints", service).json
        assert (shown["data"], shown["data_base64"]) == (None, "/wA=")
        assert "/wA= (base64)" in run("show", "bytes", "--endpoints", service).out
        assert "\x1b" not in run("show", "codes", "--endpoints", service).out


def test_a_detached_lease_is_shown_as_one(service: str, client: lessor.Client, run: Run) -> None:
    lease = client.acquire("detached", ttl=30, detached=True)
    assert run("show", "detached", "--json", "--endpoints", service).json["detached"] is True
    assert "detached" in run("show", "detached", "--endpoints", service).out
    lease.release()


def test_ls_lists_every_lease_by_name(service: str, client: lessor.Client, run: Run) -> None:
    with client.lock("b"), client.lock("a"):
        leases = run("ls", "--json", "--endpoints", service).json["leases"]
        assert [lease["name"] for lease in leases] == ["a", "b"]
        assert all(set(lease) == KEYS for lease in leases)
        header, *lines = run("ls", "--endpoints", service).out.splitlines()
        assert header.split() == ["NAME", "HOLDER", "TOKEN", "MODE", "HELD", "EXPIRES", "WAITING"]
        assert [line.split()[0] for line in lines] == ["a", "b"]


def test_ls_keeps_to_its_namespace_unless_told_otherwise(service: str, client: lessor.Client, run: Run) -> None:
    with lessor.connect(service, namespace="other") as elsewhere, client.lock("here"), elsewhere.lock("there"):

        def names(*arguments: str) -> list[str]:
            leases = run("ls", "--json", "--endpoints", service, *arguments).json["leases"]
            return [f"{lease['namespace']}/{lease['name']}" for lease in leases]

        assert names() == ["default/here"]
        assert names("--namespace", "other") == ["other/there"]
        assert names("--all") == ["default/here", "other/there"]
        assert run("ls", "--all", "--endpoints", service).out.startswith("NAMESPACE")


def test_ls_of_nothing_says_so(service: str, run: Run) -> None:
    done = run("ls", "--endpoints", service)
    assert done.code == 0
    assert "nothing is held" in done.err
    assert run("ls", "--json", "--endpoints", service).json == {"leases": []}
