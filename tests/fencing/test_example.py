"""The example examples/fenced_sqlite.py does what it says, against a real node."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import lessor
from lessor.actors.embedded import Embedded

from ..support.tidy import ROOT


def start(*arguments: object, **settings: Any) -> "subprocess.Popen[str]":
    words = [sys.executable, str(ROOT / "examples" / "fenced_sqlite.py"), *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, **settings)


def runs(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [token for (token,) in connection.execute("SELECT token FROM runs ORDER BY rowid")]


def test_many_at_once_take_their_turns(node: Embedded, tmp_path: Path) -> None:
    path = tmp_path / "app.sqlite3"
    environment = {**os.environ, "LESSOR_ENDPOINTS": node.endpoints}
    children = [start("--database", path, env=environment) for _ in range(3)]
    said = [child.communicate(timeout=90)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0], said
    assert len(runs(path)) == 3
    assert runs(path) == sorted(runs(path))


def test_one_that_was_stopped_while_it_worked_is_refused(node: Embedded, tmp_path: Path) -> None:
    """P3, P5: as the example tells to try."""

    def is_refused(work_s: int) -> bool:
        path = tmp_path / f"{work_s}.sqlite3"
        common = ("--endpoints", node.endpoints, "--database", path, "--ttl", 0.5)
        with start(*common, "--work", work_s) as first:
            assert first.stdout is not None
            older = token_in(first.stdout.readline())
            os.kill(first.pid, signal.SIGSTOP)
            said, _ = start(*common).communicate(timeout=90)
            os.kill(first.pid, signal.SIGCONT)
            begun, done = said.splitlines()
            newer = token_in(begun)
            if done != "done; runs so far: 1":  # this process stood still before it could stop the other
                return False
            told = first.stdout.read()
            assert told == f"refused: token {older} for 'default/nightly-job' is stale: {newer} has been seen\n"
        assert first.returncode == 1
        assert runs(path) == [newer]
        return True

    assert any(is_refused(work_s) for work_s in (3, 20))


def token_in(line: str) -> int:
    assert line.startswith("holding with token ")
    return int(line.rsplit(maxsplit=1)[-1])


def test_one_that_gets_no_lease_says_so(node: Embedded, tmp_path: Path) -> None:
    with lessor.connect(node.endpoints) as client, client.lock("nightly-job"):
        child = start("--endpoints", node.endpoints, "--database", tmp_path / "x", "--wait", 0)
        said, _ = child.communicate(timeout=90)
    assert (child.returncode, said) == (2, "somebody else has held the lease all the time\n")


def test_its_help_names_its_options() -> None:
    with start("--help") as child:
        said, _ = child.communicate(timeout=90)
    assert child.returncode == 0
    assert all(flag in said for flag in ("--endpoints", "--database", "--ttl", "--work", "--wait"))
