"""DB-API connections over SQLite that take their parameters in each of the styles of PEP 249."""

import re
import sqlite3
from collections.abc import Mapping
from typing import Any

# How a statement of each style reads in terms of `?`, which is what sqlite3 takes.
PATTERNS = {
    "qmark": r"\?",
    "format": r"%s",
    "pyformat": r"%\((\w+)\)s",
    "numeric": r":(\d+)",
    "named": r":(\w+)",
}


class StyledCursor:
    """Takes one style and no other, and never knows how many rows it has changed, as PEP 249 allows."""

    rowcount = -1

    def __init__(self, style: str, cursor: sqlite3.Cursor) -> None:
        self._style = style
        self._cursor = cursor

    def execute(self, statement: str, parameters: Any = ()) -> None:
        marks = list(re.finditer(PATTERNS[self._style], statement))
        if not marks:
            values: list[Any] = []
        elif self._style in ("pyformat", "named"):
            assert isinstance(parameters, Mapping)
            values = [parameters[mark[1]] for mark in marks]
        else:
            assert not isinstance(parameters, Mapping)
            numeric = self._style == "numeric"
            values = [parameters[int(mark[1]) - 1 if numeric else place] for place, mark in enumerate(marks)]
        assert len(values) == len(parameters)
        text = re.sub(PATTERNS[self._style], "?", statement)
        assert "%" not in text
        self._cursor.execute(text, values)

    def fetchone(self) -> Any:
        return self._cursor.fetchone()

    def close(self) -> None:
        self._cursor.close()


class StyledConnection:
    """A connection to SQLite, seen through a driver of another style."""

    def __init__(self, style: str, connection: sqlite3.Connection) -> None:
        self._style = style
        self._connection = connection
        self.statements: list[str] = []
        connection.set_trace_callback(self.statements.append)

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def cursor(self) -> StyledCursor:
        return StyledCursor(self._style, self._connection.cursor())

    def commit(self) -> None:
        self._connection.commit()

    def rollback(self) -> None:
        self._connection.rollback()

    def close(self) -> None:
        self._connection.close()
