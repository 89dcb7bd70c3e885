"""Every piece of Python in docs/fencing.md runs as it stands, and does what the page says it does."""

import doctest
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import lessor.fencing
from lessor.actors.embedded import Embedded
from lessor.fencing import FencingMiddleware, FileGuard, SqlGuard, TokenGate, gate, http

from ..support import postgres
from ..support.http_servers import wsgi_server
from ..support.tidy import ROOT

PAGE = "docs/fencing.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(*, of_postgres: bool) -> Iterator[Any]:
    """The blocks of the page, so that a failure names its line there."""
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        if ("psycopg" in match[1]) is of_postgres:
            line = text[: match.start(1)].count("\n")
            yield compile("\n" * line + match[1], PAGE, "exec")


@pytest.fixture
def names(node: Embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What a reader has who begins to read: a client, a lease, an application, and an empty directory."""
    monkeypatch.chdir(tmp_path)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]

    seen = TokenGate()
    with wsgi_server(FencingMiddleware(app, seen)) as address, lessor.connect(node.endpoints) as client:
        with client.lock("nightly-report") as lease:
            pass
        yield {"client": client, "lease": lease, "app": app, "address": address, "seen": seen}


def test_the_page_runs_from_its_top_to_its_end(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    count = 0
    for block in blocks(of_postgres=False):
        exec(block, names)
        count += 1
    assert count == 7
    names["connection"].close()
    answers: list[str] = []
    for method in ("GET", "PUT"):
        names["app"]({"REQUEST_METHOD": method, "PATH_INFO": "/"}, lambda status, _: answers.append(status))
    assert [answer[:3] for answer in answers] == ["200", "428"], "as its table says"
    token = names["lease"].token
    with closing(sqlite3.connect("app.sqlite3")) as connection:
        assert connection.execute("SELECT total FROM reports").fetchall() == [(43,)]
        assert connection.execute("SELECT * FROM lessor_fencing").fetchall() == [("nightly-report", token)]
    assert Path("report.csv").read_bytes() == b"day,total\n2024-05-17,42\n"
    assert FileGuard("report.csv").newest() == token
    assert names["seen"].newest("default/nightly-report") == token
    assert capsys.readouterr().out.splitlines() == [
        f'{token}; namespace="default"; name="nightly-report"',
        f"{token - 1} was overtaken by {token}",
    ]


def test_what_the_page_says_of_postgresql_runs(
    names: dict[str, Any], open_postgres: Callable[..., Any], postgres_host: str
) -> None:
    names |= {"SqlGuard": SqlGuard, "dsn": f"host={postgres_host} user={postgres.USER} dbname={postgres.DATABASE}"}
    count = 0
    for block in blocks(of_postgres=True):
        exec(block, names)
        count += 1
    assert count == 1
    with open_postgres() as connection:
        assert connection.execute("SELECT total FROM reports").fetchall() == [(42,)]


@pytest.mark.parametrize("module", [lessor.fencing, gate, http])
def test_the_examples_in_the_sources_are_true(module: Any) -> None:
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_the_page_names_everything_that_is_offered() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    left_out = {"Gate", "Presented", "TOKEN_HEADER", "parse_token"}  # for whoever writes a gate or a client anew
    assert [name for name in lessor.fencing.__all__ if name not in text and name not in left_out] == []
