"""Which host names cannot be resolved: found out side by side, in bounded time, of names and addresses alike."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lessor.transport.names import unresolved, why_unresolved

KNOWN = {"h1", "127.0.0.1", "::1"}


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A resolver that knows some hosts, has never heard of most, and stands still for those called slow…."""
    asked: list[str] = []
    end = threading.Event()

    def look_up(host: str, port: Any) -> list[Any]:
        asked.append(host)
        if host.startswith("slow"):
            end.wait(60)
        if host in KNOWN:
            return []
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield asked
    end.set()


def test_only_the_names_that_have_no_address_are_told(stuck: list[str]) -> None:
    assert unresolved(["tcp://h1:1", "tcp://127.0.0.1:1", "tcp://[::1]:1"], 60) == []
    assert unresolved(["tcp://h1:1", "tcp://h2:1", "tcp://h2:21", "tcp://h3:1"], 60) == ["h2", "h3"]
    assert stuck.count("h2") == 1
    assert why_unresolved(["tcp://h1:1"], 60) == ""
    assert why_unresolved(["tcp://h2:1"], 60) == "the host name 'h2' cannot be resolved"
    assert why_unresolved(["tcp://h2:1", "tcp://h3:1"], 60) == "the host names 'h2', 'h3' cannot be resolved"


def test_a_resolver_that_stands_still_keeps_nobody_for_long(stuck: list[str]) -> None:
    begin = time.monotonic()
    told = unresolved(["tcp://slow1:1", "tcp://slow2:1", "tcp://h1:1"], timeout_s=0.1)
    assert time.monotonic() - begin < 30, "it waited for the resolver"
    assert told[:2] == ["slow1", "slow2"], "and the third, if its thread had no turn in this short time"


def test_a_name_that_no_resolver_takes_is_not_resolved() -> None:
    assert unresolved([f"tcp://{'x' * 70}.invalid:1"]) == [f"{'x' * 70}.invalid"]
