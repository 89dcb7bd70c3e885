"""The guard of SQL on a real PostgreSQL server; skipped where there is none, or no psycopg."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lessor.client.sync import Lease
from lessor.fencing import NoTransaction, SqlGate, SqlGuard, StaleToken

from ..support import postgres
from ..support.waiting import until
from .conftest import Overtake

GUARD = SqlGuard.postgresql()
Open = Callable[..., Any]

WRITE = f"""
import psycopg

def write(lease, host):
    connection = psycopg.connect(host=host, user="{postgres.USER}", dbname="{postgres.DATABASE}")
    with SqlGuard.postgresql().transaction(connection, "job", lease.token) as cursor:
        cursor.execute("INSERT INTO log (token) VALUES (%s)", [lease.token])
    connection.close()
"""
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@pytest.fixture
def connect(open_postgres: Open) -> Open:
    """Opens connections to a database with the guard's table and a log."""
    with open_postgres() as connection:
        connection.execute("CREATE TABLE log (id BIGSERIAL PRIMARY KEY, token BIGINT)")
        GUARD.create_table(connection)
        GUARD.create_table(connection)  # again does no harm
    return open_postgres


def log_of(connect: Open) -> list[int]:
    with connect() as connection:
        return [token for (token,) in connection.execute("SELECT token FROM log ORDER BY id")]


def newest_of(connect: Open) -> int:
    with connect() as connection:
        row = connection.execute("SELECT token FROM lessor_fencing WHERE name = 'job'").fetchone()
        return row[0] if row else 0


def write(connection: Any, token: int) -> None:
    with GUARD.transaction(connection, "job", token) as cursor:
        cursor.execute("INSERT INTO log (token) VALUES (%s)", [token])


def test_a_paused_holder_that_wakes_up_cannot_write_to_the_database(
    overtake: Overtake, connect: Open, postgres_host: str
) -> None:
    """P3, P5."""

    def write_as_second(lease: Lease) -> None:
        write(connect(), lease.token)

    outcome = overtake(WRITE, postgres_host, write_as_second=write_as_second)
    assert outcome.refused
    assert log_of(connect) == [outcome.first, outcome.second]


def test_an_older_token_takes_all_writes_of_its_transaction_back(connect: Open) -> None:
    write(connect(), 7)
    connection = connect()
    connection.execute("INSERT INTO log (token) VALUES (6)")
    with pytest.raises(StaleToken) as refused, connection:
        GUARD.admit(connection, "job", 6)
    assert (refused.value.token, refused.value.newest) == (6, 7)
    assert (log_of(connect), newest_of(connect)) == ([7], 7)


def test_what_fails_takes_the_token_back_with_the_writes(connect: Open) -> None:
    with pytest.raises(ZeroDivisionError), GUARD.transaction(connect(), "job", 7) as cursor:
        raise ZeroDivisionError(cursor.execute("INSERT INTO log (token) VALUES (7)"))
    assert (log_of(connect), newest_of(connect)) == ([], 0)


@pytest.mark.parametrize("before", [pytest.param(0, id="a new name"), pytest.param(5, id="a name with a token")])
@pytest.mark.parametrize(("first", "second"), [(7, 8), (8, 7), (7, 7)])
def test_the_second_waits_for_the_transaction_of_the_first(connect: Open, before: int, first: int, second: int) -> None:
    """The row is locked by whoever was admitted, also under the token that is there already, until it commits."""
    if before:
        write(connect(), before)
    write(connect(), first) if first == second else None
    one, two, looker = connect(), connect(), connect(autocommit=True)
    GUARD.admit(one, "job", first)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(write, two, second)
        until(lambda: looker.execute(WAITING).fetchone()[0] == 1, "the second waits for a lock")
        one.execute("INSERT INTO log (token) VALUES (%s)", [first])
        one.commit()
        error = waiting.exception(timeout=60)
    if second < first:
        assert isinstance(error, StaleToken)
        assert (error.token, error.newest) == (second, first)
    else:
        assert error is None
    assert newest_of(connect) == max(first, second)
    assert log_of(connect) == sorted(log_of(connect))


def test_the_second_is_judged_anew_if_the_first_takes_its_token_back(connect: Open) -> None:
    one, two, looker = connect(), connect(), connect(autocommit=True)
    GUARD.admit(one, "job", 8)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(write, two, 7)
        until(lambda: looker.execute(WAITING).fetchone()[0] == 1, "the second waits for a lock")
        one.rollback()
        assert waiting.exception(timeout=60) is None
    assert (log_of(connect), newest_of(connect)) == ([7], 7)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_snapshot_older_than_the_newest_token_admits_nobody(connect: Open, level: str) -> None:
    """The server refuses it itself, with the error after which one begins anew."""
    from psycopg.errors import SerializationFailure

    slow = connect()
    slow.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
    slow.execute("SELECT count(*) FROM log")
    write(connect(), 8)
    for token in (7, 9):
        with pytest.raises(SerializationFailure), slow.transaction():
            GUARD.admit(slow, "job", token)
    slow.rollback()
    write(slow, 9)
    assert (log_of(connect), newest_of(connect)) == ([8, 9], 9)


def test_a_connection_that_commits_each_statement_by_itself_is_refused(connect: Open) -> None:
    connection = connect(autocommit=True)
    for _ in range(2):
        with pytest.raises(NoTransaction):
            GUARD.admit(connection, "job", 7)
    with pytest.raises(StaleToken):
        GUARD.admit(connection, "job", 6)
    with connection.transaction():
        GUARD.admit(connection, "job", 7)
    assert newest_of(connect) == 7


def test_rows_of_any_type_and_a_schema_of_ones_own_will_do(connect: Open) -> None:
    from psycopg.rows import dict_row

    connection = connect(row_factory=dict_row)
    connection.execute("CREATE SCHEMA fences")
    guard = SqlGuard.postgresql(table="fences.tokens")
    guard.create_table(connection)
    guard.admit(connection, "job", 7)
    with pytest.raises(StaleToken):
        guard.admit(connection, "job", 6)


def test_a_client_side_cursor_will_do(connect: Open) -> None:
    """Psycopg's own binding of parameters in the client, as psycopg2 does it."""
    from psycopg import ClientCursor

    connection = connect(cursor_factory=ClientCursor)
    GUARD.admit(connection, "job'%s", 7)
    with pytest.raises(StaleToken):
        GUARD.admit(connection, "job'%s", 6)


def test_a_gate_of_sql_commits_each_look_and_closes_its_connection(connect: Open) -> None:
    gate = SqlGate(GUARD, connect)
    gate.admit("job", 7)
    with pytest.raises(StaleToken):
        gate.admit("job", 6)
    assert newest_of(connect) == 7


def test_many_threads_with_mixed_tokens_end_with_the_highest(connect: Open, chance: random.Random) -> None:
    """In the log, which is in the order of the commits, no token is smaller than one before it."""
    tokens = [chance.randint(1, 9_999) for _ in range(400)]
    failed: list[BaseException] = []

    def write_all(connection: Any, mine: list[int]) -> None:
        for token in mine:
            try:
                write(connection, token)
            except StaleToken:
                pass
            except BaseException as error:
                failed.append(error)
                raise

    threads = [threading.Thread(target=write_all, args=(connect(), tokens[start::8])) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert log_of(connect) == sorted(log_of(connect))
    assert (log_of(connect)[-1], newest_of(connect)) == (max(tokens), max(tokens))
