"""bench/lease_model.py goes on when the leader changes, says so, and measures only nodes that are new."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lessor.cli.local_cluster import LocalCluster
from lessor.core.commands import Operation, Release
from lessor.core.results import ClaimPhase, ClaimStatus, Released

from ..support.tidy import ROOT
from .conftest import Program

pytestmark = pytest.mark.system


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "bench" / "lease_model.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_is_asked_goes_on_at_the_next_leader_once_each_and_the_change_is_counted(program: Program) -> None:
    """P6: what was under way is asked again."""
    raw, model = program("raw"), program("lease_model")
    with LocalCluster(3) as cluster:
        cluster.start()
        leader = cluster.wait_for_leader()
        client = raw.RawClient(list(cluster.endpoint_of.values()), window=500)
        (session,) = client.open_sessions(1, 30 * 60 * 1000)
        assert client.leader_changes == 0

        def claims() -> Iterator[tuple[int, Operation]]:
            for index in range(4_000):
                if index == 2_000:
                    cluster.kill(leader)
                yield session, model.claim(f"name-{index}")

        granted = [answer.result for answer in client.ask(claims())]
        assert {(type(one), one.phase) for one in granted} == {(ClaimStatus, ClaimPhase.HELD)}
        assert len({one.token for one in granted}) == 4_000
        assert client.leader_changes >= 1
        ended = client.ask((session, Release(one.token)) for one in granted)
        assert {type(answer.result) for answer in ended} == {Released}
        client.close()


def test_churn_tells_how_often_the_leader_changed_and_what_is_left_and_wants_a_directory_without_data(
    tmp_path: Path,
) -> None:
    words = ("churn", "--names", "300", "--directory", str(tmp_path / "new"))
    done = run(*words)
    assert done.returncode == 0, done.stderr
    first, *nodes = done.stdout.splitlines()
    assert first.startswith("300 names were acquired and released in ")
    assert "; the leader changed " in first
    assert [line.split(":")[0] for line in nodes] == ["node 1", "node 2", "node 3"]
    again = run(*words)
    assert (again.returncode, again.stdout) == (2, "")
    assert f"--directory: {tmp_path / 'new'} is not empty (it has node1)" in again.stderr


def test_what_is_in_use_is_counted_without_free_pages(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE kept (data BLOB)")
        connection.execute("INSERT INTO kept VALUES (zeroblob(1000000))")
        connection.commit()
        connection.execute("DELETE FROM kept")
        connection.commit()
    assert path.stat().st_size > 1_000_000
    assert program("lease_model").in_use(path) < 20_000
