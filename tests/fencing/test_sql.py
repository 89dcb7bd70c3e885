"""The guard of SQL on SQLite: the look at the token and the guarded writes are one transaction."""

import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lessor.client.sync import Lease
from lessor.core.errors import BadRequest
from lessor.fencing import NoTransaction, SqlGate, SqlGuard, StaleToken

from .conftest import Overtake
from .sql_drivers import PATTERNS, StyledConnection

GUARD = SqlGuard.sqlite()

WRITE = """
import sqlite3

def write(lease, path):
    connection = sqlite3.connect(path)
    with SqlGuard.sqlite().transaction(connection, "job", lease.token) as cursor:
        cursor.execute("INSERT INTO log (token) VALUES (?)", [lease.token])
    connection.close()
"""
# The whole work is done before the pause, but for the guard and the commit.
WRITE_SLOWLY = """
import sqlite3
connections = []

def write(lease, path):
    if not connections:
        connections.append(sqlite3.connect(path))
        connections[0].execute("SELECT count(*) FROM log").fetchone()
    else:
        SqlGuard.sqlite().admit(connections[0], "job", lease.token)
        connections[0].execute("INSERT INTO log (token) VALUES (?)", [lease.token])
        connections[0].commit()
"""
LOG_ALL = """
import sqlite3, sys
from lessor.fencing import SqlGuard, StaleToken

connection = sqlite3.connect(sys.argv[1], timeout=30)
for token in map(int, sys.argv[2:]):
    try:
        with SqlGuard.sqlite().transaction(connection, "job", token) as cursor:
            cursor.execute("INSERT INTO log (token) VALUES (?)", [token])
    except StaleToken:
        pass
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with the guard's table and a log, whose ids grow in the order of the writes."""
    path = tmp_path / "app.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, token INTEGER)")
        GUARD.create_table(connection)
        GUARD.create_table(connection)  # again does no harm
    return path


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as connection:
        yield connection


def log_of(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [token for (token,) in connection.execute("SELECT token FROM log ORDER BY id")]


def newest_of(path: Path, name: str = "job") -> int:
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute("SELECT token FROM lessor_fencing WHERE name = ?", [name]).fetchone()
        return row[0] if row else 0


def log(connection: sqlite3.Connection, token: int) -> None:
    connection.execute("INSERT INTO log (token) VALUES (?)", [token])


@pytest.mark.parametrize("write", [pytest.param(WRITE, id="at once"), pytest.param(WRITE_SLOWLY, id="over the pause")])
def test_a_paused_holder_that_wakes_up_cannot_write_to_the_database(overtake: Overtake, path: Path, write: str) -> None:
    """P3, P5."""

    def write_as_second(lease: Lease) -> None:
        with closing(sqlite3.connect(path)) as second, GUARD.transaction(second, "job", lease.token) as cursor:
            cursor.execute("INSERT INTO log (token) VALUES (?)", [lease.token])

    outcome = overtake(write, path, write_as_second=write_as_second)
    # The slow one has not presented its token before the pause, so only what it says tells that it was refused.
    assert outcome.refused
    assert log_of(path)[-1] == outcome.second
    assert log_of(path).count(outcome.first) <= 1


def test_the_token_and_the_writes_are_committed_together(path: Path, connection: sqlite3.Connection) -> None:
    with GUARD.transaction(connection, "job", 7) as cursor:
        cursor.execute("INSERT INTO log (token) VALUES (7)")
        assert newest_of(path) == 0
    assert (newest_of(path), log_of(path)) == (7, [7])


def test_what_fails_takes_the_token_back_with_the_writes(path: Path, connection: sqlite3.Connection) -> None:
    with pytest.raises(ZeroDivisionError), GUARD.transaction(connection, "job", 7) as cursor:
        raise ZeroDivisionError(cursor.execute("INSERT INTO log (token) VALUES (7)"))
    assert (newest_of(path), log_of(path)) == (0, [])


def test_an_older_token_takes_all_writes_of_its_transaction_back(path: Path, connection: sqlite3.Connection) -> None:
    """Also those that were made before it was looked at."""
    with connection:
        GUARD.admit(connection, "job", 7)
    log(connection, 6)
    with pytest.raises(StaleToken) as refused, connection:
        GUARD.admit(connection, "job", 6)
    assert (refused.value.name, refused.value.token, refused.value.newest) == ("job", 6, 7)
    assert (newest_of(path), log_of(path)) == (7, [])


def test_the_same_token_and_other_names_pass(path: Path, connection: sqlite3.Connection) -> None:
    for name, token in (("job", 7), ("job", 7), ("other", 2), ("job", 8)):
        with connection:
            GUARD.admit(connection, name, token)
    assert (newest_of(path), newest_of(path, "other")) == (8, 2)


@pytest.mark.parametrize("isolation_level", ["DEFERRED", "IMMEDIATE", None])
def test_nobody_else_writes_between_the_look_and_the_commit(path: Path, isolation_level: Any) -> None:
    """Also on a connection that would otherwise commit each statement by itself."""
    with closing(sqlite3.connect(path, isolation_level=isolation_level)) as first:
        GUARD.admit(first, "job", 7)
        with (
            closing(sqlite3.connect(path, timeout=0)) as second,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            GUARD.admit(second, "job", 8)
        log(first, 7)
        assert log_of(path) == []
        first.commit()
    assert (newest_of(path), log_of(path)) == (7, [7])


def test_the_lock_is_taken_before_anything_is_read(path: Path) -> None:
    """A deferred transaction would read here, and fail at once when it writes after somebody else did."""
    connection = StyledConnection("qmark", sqlite3.connect(path))
    GUARD.admit(connection, "job", 7)
    assert connection.statements[0] == "BEGIN IMMEDIATE"
    connection.close()


def test_a_reader_whose_reading_is_out_of_date_is_not_admitted(path: Path) -> None:
    """It had begun before a newer holder's write, in a deferred transaction: SQLite refuses it itself."""
    with closing(sqlite3.connect(path)) as setup:
        setup.execute("PRAGMA journal_mode = WAL")
    with closing(sqlite3.connect(path)) as slow, closing(sqlite3.connect(path)) as quick:
        slow.execute("BEGIN")
        slow.execute("SELECT * FROM log").fetchall()
        with GUARD.transaction(quick, "job", 8) as cursor:
            cursor.execute("INSERT INTO log (token) VALUES (8)")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            GUARD.admit(slow, "job", 7)
    assert (newest_of(path), log_of(path)) == (8, [8])


def test_a_connection_that_never_commits_as_a_whole_is_refused(connection: sqlite3.Connection) -> None:
    """What `sqlite3.connect(autocommit=True)` makes since Python 3.12: its `commit` does nothing."""
    always = SimpleNamespace(in_transaction=False, autocommit=True, cursor=connection.cursor)
    with pytest.raises(NoTransaction):
        GUARD.admit(always, "job", 7)
    assert not connection.in_transaction


@pytest.mark.parametrize("style", sorted(PATTERNS))
def test_each_style_of_parameters_is_spoken(path: Path, style: Any) -> None:
    """Through a driver that takes no other style, and whose rowcount says nothing."""
    guard = SqlGuard.sqlite(style)
    connection = StyledConnection(style, sqlite3.connect(path))
    for token in (7, 7, 8):
        with guard.transaction(connection, "job", token) as cursor:
            cursor.execute("INSERT INTO log (token) VALUES (1)")
    with pytest.raises(StaleToken), guard.transaction(connection, "job", 7):
        pytest.fail("the body was entered")
    connection.close()
    assert (newest_of(path), log_of(path)) == (8, [1, 1, 1])


@pytest.mark.parametrize(
    "row_factory",
    [
        sqlite3.Row,
        lambda cursor, row: dict(zip([column[0] for column in cursor.description], row, strict=True)),
    ],
)
def test_the_rows_of_the_user_may_be_of_any_type(connection: sqlite3.Connection, row_factory: Any) -> None:
    connection.row_factory = row_factory
    GUARD.admit(connection, "job", 7)
    with pytest.raises(StaleToken):
        GUARD.admit(connection, "job", 6)


@pytest.mark.parametrize("table", ["a b", "a;b", "", "a.b.c", "1a", "a\n", "ä"])
def test_a_table_that_would_need_quotes_is_refused(table: str) -> None:
    with pytest.raises(BadRequest):
        SqlGuard.sqlite(table=table)


@pytest.mark.parametrize(("dialect", "style"), [("mysql", "format"), ("sqlite", "dollar")])
def test_a_dialect_or_style_that_is_not_known_is_refused(dialect: Any, style: Any) -> None:
    with pytest.raises(BadRequest):
        SqlGuard(dialect, style)


@pytest.mark.parametrize(("name", "token"), [("", 1), ("job", 0), ("job", 2**63), ("job", "1")])
def test_a_bad_name_or_token_is_refused_before_anything_is_asked(
    connection: sqlite3.Connection, name: Any, token: Any
) -> None:
    with pytest.raises(BadRequest):
        GUARD.admit(connection, name, token)
    assert not connection.in_transaction


def test_a_table_of_another_name_and_schema_is_used(path: Path, connection: sqlite3.Connection) -> None:
    guard = SqlGuard.sqlite(table="main.tokens")
    guard.create_table(connection)
    guard.admit(connection, "job", 7)
    assert connection.execute("SELECT * FROM tokens").fetchall() == [("job", 7)]


def test_a_gate_of_sql_commits_each_look_and_closes_its_connection(path: Path) -> None:
    made: list[sqlite3.Connection] = []

    def connect() -> sqlite3.Connection:
        made.append(sqlite3.connect(path))
        return made[-1]

    gate = SqlGate(GUARD, connect)
    gate.admit("job", 7)
    with pytest.raises(StaleToken):
        gate.admit("job", 6)
    assert newest_of(path) == 7
    for connection in made:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
    assert len(made) == 2


def test_many_threads_with_mixed_tokens_end_with_the_highest(path: Path, chance: random.Random) -> None:
    """In the log, which is in the order of the commits, no token is smaller than one before it."""
    tokens = [chance.randint(1, 9_999) for _ in range(160)]
    failed: list[BaseException] = []

    def write(mine: list[int]) -> None:
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            for token in mine:
                try:
                    with GUARD.transaction(connection, "job", token) as cursor:
                        cursor.execute("INSERT INTO log (token) VALUES (?)", [token])
                except StaleToken:
                    pass
                except BaseException as error:
                    failed.append(error)
                    raise

    threads = [threading.Thread(target=write, args=(tokens[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert log_of(path) == sorted(log_of(path))
    assert (log_of(path)[-1], newest_of(path)) == (max(tokens), max(tokens))


def test_many_processes_with_mixed_tokens_end_with_the_highest(path: Path, chance: random.Random) -> None:
    tokens = [chance.randint(1, 9_999) for _ in range(120)]
    children = [
        subprocess.Popen([sys.executable, "-c", LOG_ALL, path, *map(str, tokens[start::4])]) for start in range(4)
    ]
    assert [child.wait() for child in children] == [0, 0, 0, 0]
    assert log_of(path) == sorted(log_of(path))
    assert (log_of(path)[-1], newest_of(path)) == (max(tokens), max(tokens))
