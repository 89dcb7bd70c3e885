"""A guard for SQLite and PostgreSQL: it looks at the token inside the transaction that does the guarded writes."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal, Protocol

from ..core.errors import BadRequest, LessorError
from .gate import check, is_newer

Paramstyle = Literal["qmark", "format", "pyformat", "numeric", "named"]
Dialect = Literal["sqlite", "postgresql"]

_MARKS: Final[dict[str, str]] = {
    "qmark": "?",
    "format": "%s",
    "pyformat": "%({name})s",
    "numeric": ":{place}",
    "named": ":{name}",
}
_TABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")

# PostgreSQL locks a conflicting row also where it fails the WHERE. So nobody with another token is admitted until the
# transaction ends, though an equal token, which most are, writes no new version of the row.
_ADMIT: Final = (
    "INSERT INTO {table} AS seen (name, token) VALUES ({name}, {token}) "
    "ON CONFLICT (name) DO UPDATE SET token = excluded.token WHERE seen.token < excluded.token"
)
# The row decides and not the cursor's rowcount, which PEP 249 lets a driver leave at -1. A transaction that has written
# has a number; if there is none now, the INSERT was a transaction by itself, and so would be each of the user's writes.
_LOOK: Final[dict[Dialect, str]] = {
    "sqlite": "SELECT token, 1 FROM {table} WHERE name = {name}",
    "postgresql": "SELECT token, txid_current_if_assigned() IS NOT NULL FROM {table} WHERE name = {name}",
}
_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS {table} (name TEXT NOT NULL PRIMARY KEY, token BIGINT NOT NULL)"


class NoTransaction(LessorError):
    """The connection commits each statement by itself, so the look at the token would guard none of the writes."""


class Connection(Protocol):
    """What is used of a connection of DB-API 2.0 (PEP 249)."""

    def cursor(self) -> Any:
        """Return a new cursor."""

    def commit(self) -> Any:
        """Commit the transaction."""

    def rollback(self) -> Any:
        """Roll the transaction back."""

    def close(self) -> Any:
        """Close the connection, or give it back to its pool."""


class SqlGuard:
    """Refuses old tokens inside the user's own transaction; keeps none of its connections, so threads may share it."""

    def __init__(self, dialect: Dialect, paramstyle: Paramstyle, table: str = "lessor_fencing") -> None:
        """Use `SqlGuard.sqlite()` or `SqlGuard.postgresql()`.

        Args:
            dialect: of the database.
            paramstyle: of the driver, as its module says it.
            table: where the tokens are, `name` or `schema.name`.
        """
        if dialect not in _LOOK:
            raise BadRequest(f"a dialect is one of {', '.join(_LOOK)}, not {dialect!r}")
        if paramstyle not in _MARKS:
            raise BadRequest(f"a paramstyle is one of {', '.join(_MARKS)}, not {paramstyle!r}")
        if not _TABLE.fullmatch(table):
            raise BadRequest(f"a table is letters, digits and _, maybe behind a schema and a dot, not {table!r}")
        self._dialect: Dialect = dialect
        self._named = paramstyle in ("pyformat", "named")
        places = {
            key: _MARKS[paramstyle].format(name=key, place=place)
            for place, key in enumerate(("name", "token"), start=1)
        }
        self.schema = _SCHEMA.format(table=table)
        """The statement that makes the table, for those who keep their schema in migrations."""
        self._admit = _ADMIT.format(table=table, **places)
        self._look = _LOOK[dialect].format(table=table, **places)

    @classmethod
    def sqlite(cls, paramstyle: Paramstyle = "qmark", table: str = "lessor_fencing") -> "SqlGuard":
        """Return a guard for SQLite 3.24 or newer, by default through the standard library's `sqlite3`."""
        return cls("sqlite", paramstyle, table)

    @classmethod
    def postgresql(cls, paramstyle: Paramstyle = "pyformat", table: str = "lessor_fencing") -> "SqlGuard":
        """Return a guard for PostgreSQL 10 or newer, by default through psycopg."""
        return cls("postgresql", paramstyle, table)

    def create_table(self, connection: Connection) -> None:
        """Make the table unless it is there, and commit."""
        _close(_execute(connection, self.schema))
        connection.commit()

    def admit(self, connection: Connection, name: str, token: int) -> None:
        """Let the token pass and remember it, as a part of the transaction that is open on the connection.

        What is written in this transaction, before or after this call, is committed only if no newer token was seen
        when it was made; and nobody with another token is admitted until the transaction ends. On SQLite a transaction
        is begun, with BEGIN IMMEDIATE, if none is open.

        Raises:
            StaleToken: a newer one has been seen. Roll the transaction back.
            NoTransaction: the connection commits each statement by itself.
            BadRequest: the name or the token cannot be one.
        """
        check(name, token)
        if self._dialect == "sqlite":
            _begin_immediate(connection)
        _close(_execute(connection, self._admit, self._parameters(name=name, token=token)))
        cursor = _execute(connection, self._look, self._parameters(name=name))
        newest, in_transaction = _columns(cursor.fetchone())
        _close(cursor)
        is_newer(name, token, newest)
        if not in_transaction:
            raise NoTransaction("the connection commits each statement by itself: begin a transaction first")

    @contextmanager
    def transaction(self, connection: Connection, name: str, token: int) -> Iterator[Any]:
        """Admit the token, give a cursor for the guarded writes, and commit; roll back if anything fails.

        Raises:
            StaleToken, NoTransaction, BadRequest: as `admit`; the body is not entered.
        """
        try:
            self.admit(connection, name, token)
            cursor = connection.cursor()
            try:
                yield cursor
            finally:
                cursor.close()
            connection.commit()
        except BaseException:
            connection.rollback()
            raise

    def _parameters(self, **values: str | int) -> Any:
        return values if self._named else tuple(values.values())


class SqlGate:
    """The newest token of each name in a database of its own transactions: what the middleware asks."""

    def __init__(self, guard: SqlGuard, connect: Callable[[], Connection]) -> None:
        """Ask through a connection that `connect` returns each time, and that is closed after."""
        self._guard = guard
        self._connect = connect

    def admit(self, name: str, token: int) -> None:
        """Let the token pass and remember it, in a transaction of its own.

        Raises:
            StaleToken, NoTransaction, BadRequest: as `SqlGuard.admit`.
        """
        connection = self._connect()
        try:
            with self._guard.transaction(connection, name, token):
                pass
        finally:
            connection.close()


def _begin_immediate(connection: Any) -> None:
    """Take the database's write lock before anything is read.

    A deferred transaction that has read, and then writes after somebody else did, fails at once however long the
    timeout is: its reading is out of date.
    """
    if connection.in_transaction:
        return
    if getattr(connection, "autocommit", None) is True:  # since Python 3.12; then `commit` would do nothing
        raise NoTransaction("the connection was opened with autocommit=True: execute BEGIN IMMEDIATE first")
    _close(_execute(connection, "BEGIN IMMEDIATE"))


def _execute(connection: Connection, statement: str, parameters: Any = None) -> Any:
    cursor = connection.cursor()
    if parameters is None:
        cursor.execute(statement)
    else:
        cursor.execute(statement, parameters)
    return cursor


def _close(cursor: Any) -> None:
    cursor.close()


def _columns(row: Any) -> tuple[Any, ...]:
    """Return a row as a tuple, whatever row type the user's connection makes."""
    return tuple(row.values() if isinstance(row, Mapping) else row)
