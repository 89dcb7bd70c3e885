"""`lessor watch` against services in this process."""

import argparse
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import pytest

import lessor
from lessor.cli import exit_codes
from lessor.cli import watch as cli_watch
from lessor.client.asks import Events
from lessor.client.wants import write
from lessor.client.watch import Told, Watching
from lessor.core.events import Event

from ..support.sockets import free_port
from .commands import Run, finish, lessor_process, read_until

pytestmark = pytest.mark.system


@contextmanager
def watching(service: str, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    process = lessor_process("watch", "--endpoints", service, *arguments)
    try:
        read_until(process, "lessor watch: watching")
        yield process
    finally:
        process.kill()
        finish(process)


def told_by(process: "subprocess.Popen[str]", count: int) -> list[dict[str, Any]]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def test_the_life_of_a_lease_is_told_as_it_happens(service: str, client: lessor.Client) -> None:
    with watching(service, "--json") as process:
        with client.lock("x", ttl=30) as lease:
            lease.renew()
        granted, renewed, released = told_by(process, 3)
    assert [event["kind"] for event in (granted, renewed, released)] == ["granted", "renewed", "released"]
    assert {"revision", "namespace", "name", "holder", "token", "session", "clock_ms", "time"} <= set(granted)
    assert (granted["name"], granted["holder"], granted["token"]) == ("x", "tester", lease.token)
    assert granted["revision"] + 2 == renewed["revision"] + 1 == released["revision"]


def test_only_what_was_asked_for_is_told(service: str, client: lessor.Client) -> None:
    with (
        lessor.connect(service, namespace="other") as elsewhere,
        watching(service, "wanted", "--json") as one,
        watching(service, "--namespace", "other", "--json") as other,
        watching(service, "--all", "--json") as everything,
    ):
        for use in (client, elsewhere):
            for name in ("wanted too", "wanted"):
                use.acquire(name).release()
        assert [(event["namespace"], event["name"]) for event in told_by(one, 2)] == [("default", "wanted")] * 2
        assert [event["name"] for event in told_by(other, 4)] == ["wanted too"] * 2 + ["wanted"] * 2
        kinds = [event["kind"] for event in told_by(everything, 5)]
        assert kinds == ["session_opened", "granted", "released", "granted", "released"]


def test_what_lies_below_a_path_is_told_when_asked_for(service: str, client: lessor.Client) -> None:
    with (
        watching(service, "--path", "users", "--json") as one,
        watching(service, "--path", "users", "--below", "--json") as below,
    ):
        for want in (("users", "42"), ("others",), ("users",)):
            client.acquire(want).release()
        client.acquire([write("first"), write("users", "43")]).release()
        assert [event["path"] for event in told_by(one, 2)] == [["users"]] * 2
        told = told_by(below, 6)
        assert [event["path"] for event in told] == [["users", "42"]] * 2 + [["users"]] * 2 + [["first"]] * 2
        assert told[-1]["others"] == [["users", "43"]]


def test_what_happened_since_a_revision_is_told_first_and_nothing_twice(service: str, client: lessor.Client) -> None:
    with watching(service, "again", "--json") as process:
        lease = client.acquire("again")
        (granted,) = told_by(process, 1)
        client.break_lease(lease.token, "out of order")
        (broken,) = told_by(process, 1)
    assert (broken["kind"], broken["why"]) == ("broken", "out of order")
    with watching(service, "again", "--json", "--since", str(granted["revision"])) as process:
        assert told_by(process, 1)[0]["revision"] == broken["revision"]
        client.acquire("again").release()
        assert [event["kind"] for event in told_by(process, 2)] == ["granted", "released"]


class Forgetful:
    """A client that answers these pages of events, and notes what it was asked for."""

    def __init__(self, pages: list[Events], asked: list[int]) -> None:
        self._pages = pages
        self._asked = asked

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def events(self, _name: object, *, since: int, below: bool) -> Events:
        assert below
        self._asked.append(since)
        return self._pages[len(self._asked) - 1]


class Live:
    """A watcher whose feed brings some of what is remembered, too, since it was followed first."""

    def __init__(self, _endpoints: object) -> None:
        pass

    def events(self) -> Iterator[Told]:
        yield Watching()
        yield from (event(6), event(7), event(8))
        raise KeyboardInterrupt

    def close(self) -> None:
        pass


def event(revision: int) -> Event:
    return Event(revision, 1, 0, "released", "default", ("x",), 1, 1, 1, "me", 0)


def test_what_is_remembered_and_comes_by_the_feed_too_is_told_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [Events((event(5), event(6)), 7, 0), Events((), 7, 0)]
    monkeypatch.setattr(cli_watch, "client", lambda _: Forgetful(pages, []))
    monkeypatch.setattr(cli_watch, "Watcher", Live)
    told = [json.loads(line)["revision"] for line in run("watch", "--since", "4", "--json").out.splitlines()]
    assert told == [5, 6, 8], "7 was looked at, and was not for us"


def test_what_is_not_remembered_any_more_is_told_as_missed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pages = [Events((), 7, 5), Events((), 7, 0)]
    asked: list[int] = []

    monkeypatch.setattr(cli_watch, "client", lambda _: Forgetful(pages, asked))
    options = argparse.Namespace(all=False, below=False, json=True)
    assert cli_watch._tell_past(2, (), options) == 7
    assert asked == [2, 7]
    assert json.loads(capfd.readouterr().out) == {"kind": "missed", "first": 3, "last": 5, "count": 3}


def test_people_read_lines(service: str, client: lessor.Client) -> None:
    with watching(service) as process:
        with client.lock("x", ttl=30) as lease:
            assert process.stdout is not None
            line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        done = finish(process)
    assert line.split()[2:] == ["granted", "x", "token", str(lease.token), "tester", "for", "30.0s"]
    assert "\x1b" not in line, "no colours where nobody sees them"
    assert done.code == exit_codes.INTERRUPTED
    assert done.err == ""


def test_a_service_that_is_away_is_told_and_waited_for() -> None:
    port = free_port()
    process = lessor_process("watch", "--endpoints", f"tcp://127.0.0.1:{port}")
    read_until(process, "no node answers")
    with lessor.embedded(port=port):
        read_until(process, "lessor watch: watching")
    process.kill()
    finish(process)
