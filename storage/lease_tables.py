"""The lease state of one node on the disk, in tables that an operator can read with the sqlite3 shell.

They are behind the log by what came since the last save, which the journal can replay. Each row ends with a checksum,
and the header counts the rows and sums up their checksums, so that a state that was changed by anything but the log is
not taken for one: a page that a disk has lost a write of holds rows that were right, once.
"""

import json
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import sqlite_utils

from ..core.ballot import Ballot
from ..core.commands import NamespaceConfig
from ..core.encoding import dumps, from_list, loads, to_list
from ..core.errors import Corrupt, InvariantBroken, Malformed
from ..core.lease_state import LeaseState
from ..core.records import RECORD_KINDS, StateHeader
from ..core.resources import Resource
from .database import PAGE_BYTES, Database, Owner, checksum, new_schema
from .failures import damaged

SCHEMA: Final = new_schema("leases", irreplaceable=False)

ROW_BYTES: Final = 256
"""What a changed row adds to the log beside its blobs, about."""

_HEADER: Final = {
    "id": int, "applied_upto": int, "clock_ms": int, "base_ms": int, "term_counter": int, "term_node": int,
    "last_token": int, "last_claim": int, "last_session": int, "revision": int, "last_item": int,
    "rows": int, "rows_sum": int, "snapshot_upto": int,
}  # fmt: skip
_COLUMNS: Final[dict[str, dict[str, type]]] = {
    "sessions": {
        "session": int, "key": bytes, "timeout_ms": int, "description": str, "expires_at_ms": int, "acked_below": int,
        "refused_below": int, "replies": bytes, "namespace": str, "attach": int,
    },
    "claims": {
        "claim": int, "namespace": str, "resources": str, "holder": str, "data": bytes, "session": int, "detached": int,
        "ttl_ms": int, "since_ms": int, "token": int, "ends_at_ms": int, "max_hold_ms": int, "hold_until_ms": int,
        "chain": int, "watermark": int,
    },
    "lapses": {
        "number": int, "claim": int, "namespace": str, "resources": str, "holder": str, "token": int, "since_ms": int,
        "ended_at_ms": int, "closed_until_ms": int, "why": str,
    },
    "semaphores": {"number": int, "namespace": str, "path": str, "limit": int, "data": bytes},
    "pins": {"number": int, "namespace": str, "path": str, "entities": str},
    "registers": {"number": int, "namespace": str, "path": str, "version": int, "token": int, "data": bytes},
    "namespaces": {"number": int, "name": str, "config": str},
}  # fmt: skip
"""The columns of each kind of record, in the order of its fields; the first one is its number."""

_to_json: Final = json.JSONEncoder(ensure_ascii=False).encode


def _resources_to_text(resources: tuple[Resource, ...]) -> str:
    return _to_json([[list(one.path), one.mode, one.count, one.limit] for one in resources])


def _resources_of_text(text: str) -> tuple[Resource, ...]:
    return tuple(Resource(tuple(path), mode, count, limit) for path, mode, count, limit in json.loads(text))


_FORMS: Final[dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]]] = {
    "resources": (_resources_to_text, _resources_of_text),
    "path": (lambda path: _to_json(list(path)), lambda text: tuple(json.loads(text))),
    "entities": (lambda names: _to_json(list(names)), lambda text: tuple(json.loads(text))),
    "config": (lambda config: _to_json(asdict(config)), lambda text: NamespaceConfig(**json.loads(text))),
    "replies": (
        lambda replies: dumps([to_list(reply) for reply in replies]),
        lambda blob: tuple(from_list(reply) for reply in loads(blob)),
    ),
    "detached": (int, bool),
}
"""How the fields are written that SQLite has no column for, and how they are read back."""


@SCHEMA.migrations()
def m001_lease_state(db: sqlite_utils.Database) -> None:
    """Make a table for each kind of record, and the header: the one row of what is none of them."""
    for name, columns in ({"header": _HEADER} | _COLUMNS).items():
        key, *others = columns
        db.table(name).create({**columns, "checksum": int}, pk=key, not_null={*others, "checksum"})


def _put(table: str, columns: Iterable[str]) -> str:
    names = ", ".join(f'"{name}"' for name in (*columns, "checksum"))
    return f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({', '.join('?' * (len(tuple(columns)) + 1))})"  # noqa: S608


_PUT_HEADER: Final = _put("header", _HEADER)


class _Table:
    """The statements for one kind of record, and its rows."""

    def __init__(self, name: str) -> None:
        columns = tuple(_COLUMNS[name])
        self.name = name
        self.put = _put(name, columns)
        self.drop = f"DELETE FROM {name} WHERE {columns[0]} = ?"  # noqa: S608
        self.drop_all = f"DELETE FROM {name}"  # noqa: S608
        names = ", ".join(f'"{column}"' for column in columns)
        self.all = f"SELECT {names}, checksum FROM {name} ORDER BY {columns[0]}"  # noqa: S608
        self._cls: type = RECORD_KINDS[name]
        self._fields = attrgetter(*columns)
        self._forms = [(place, *_FORMS[column]) for place, column in enumerate(columns) if column in _FORMS]
        self._blobs = [place for place, kind in enumerate(_COLUMNS[name].values()) if kind is bytes]

    def row(self, record: Any) -> tuple[Any, ...]:
        """Return the row of a record."""
        columns = [*self._fields(record)]
        for place, write, _ in self._forms:
            columns[place] = write(columns[place])
        return _row(*columns)

    def record(self, row: tuple[Any, ...]) -> Any:
        """Return the record of a row; whatever is wrong with it raises."""
        *columns, stored = row
        if checksum(*columns) != stored:
            raise Malformed("its checksum is another")
        for place, _, read in self._forms:
            columns[place] = read(columns[place])
        return self._cls(*columns)

    def size(self, row: tuple[Any, ...]) -> int:
        """Return about how many bytes a row adds to the log."""
        return ROW_BYTES + sum(len(row[place]) for place in self._blobs)


_TABLES: Final = [_Table(name) for name in RECORD_KINDS]


class LeaseTables:
    """The open lease tables, for the one thread that opened them. Others may read them meanwhile.

    The space of what has ended is used again by what begins, so the file grows to what the cluster once held at the
    same time, which is limited, and no further.
    """

    def __init__(self, path: Path, owner: Owner) -> None:
        """Open the lease tables of `owner`.

        Raises:
            ForeignDatabase: they belong to somebody else, or were written by a newer version of lessor.
            Corrupt: they are damaged.
            StorageFailed: they cannot be opened, read or written.
        """
        self.snapshot_upto = 0
        """The slot at which the snapshot ended that these tables last began with, 0 if they began empty."""
        self._state: LeaseState | None = None  # what the rows are the rows of, so that a save can add what changed
        self._sums: dict[str, dict[int, int]] = {}  # the checksum of each row of each table
        self._rows_sum = 0
        self._database = Database(path, SCHEMA, owner.node)
        try:
            self._database.require(owner)
            self._read_header()
        except BaseException:
            self._database.close()
            raise

    @classmethod
    def create(cls, path: Path, owner: Owner) -> None:
        """Make the lease tables of an empty state for `owner`, durably.

        Raises:
            StorageFailed: they cannot be written.
        """
        database = Database(path, SCHEMA, owner.node, create=True)
        try:
            with database.transaction as connection:
                database.write_owner(owner)
                connection.execute(_PUT_HEADER, _header_row(LeaseState(), 0, 0))
            database.checkpoint("TRUNCATE")
        finally:
            database.close()

    def load(self) -> LeaseState:
        """Check the file and return the state that it holds.

        Raises:
            Corrupt: the file is damaged, or what it holds is no consistent state.
            StorageFailed: it cannot be read, or it has failed before.
        """
        database = self._database
        database.check()
        header, expected, sum_expected = self._read_header()
        self._forget_sums()
        kinds: list[list[Any]] = []
        for table in _TABLES:
            with database.reading(), closing(database.connection.execute(table.all)) as rows:
                kinds.append([self._record(table, row) for row in rows])
        found = sum(map(len, kinds))
        if found != expected:
            raise self._damaged(f"it holds {found} records, its header says {expected}")
        if self._rows_sum != sum_expected:
            raise self._damaged("its records are not those that were written last")
        try:
            self._state = LeaseState.from_records(header, *kinds)
        except Malformed as error:
            raise self._damaged(str(error)) from error
        return self._state

    def save(self, state: LeaseState) -> None:
        """Make durable what changed in `state` since it was last saved, and forget that it changed.

        Raises:
            InvariantBroken: it is not the state that was loaded from these tables or last replaced what they held, so
                that what changed in it says nothing about them; nothing is written.
            StorageFailed: it may or may not have been written; the node must stop.
            Corrupt: the file was found to be damaged; the node must stop.
        """
        if state is not self._state:
            raise InvariantBroken(f"a state that is not the one in {self._database.path} cannot be saved there")
        puts: list[tuple[_Table, list[tuple[Any, ...]]]] = []
        drops: list[tuple[_Table, list[tuple[int]]]] = []
        size = 0
        parts = state.tables
        for table in _TABLES:
            part = parts[table.name]
            if not part.changed:
                continue
            put, drop = [], []
            for number in part.changed:
                record = part.record(number)
                if record is None:
                    drop.append((number,))
                    self._sum(table, number, 0)
                    size += ROW_BYTES
                else:
                    put.append(row := table.row(record))
                    self._sum(table, number, row[-1])
                    size += table.size(row)
            puts.append((table, put))
            drops.append((table, drop))
        with self._database.transaction as connection:
            for table, numbers in drops:
                connection.executemany(table.drop, numbers)
            for table, rows in puts:
                connection.executemany(table.put, rows)
            connection.execute(_PUT_HEADER, _header_row(state, self.snapshot_upto, self._rows_sum))
        state.forget_changes()
        self._database.wrote(size + 3 * PAGE_BYTES)

    def replace(self, state: LeaseState) -> None:
        """Make `state`, just restored from a snapshot, all that these tables hold.

        Raises:
            StorageFailed: it may or may not have been written; the node must stop.
            Corrupt: the file was found to be damaged; the node must stop.
        """
        self._forget_sums()
        parts = state.tables
        with self._database.transaction as connection:
            for table in _TABLES:
                connection.execute(table.drop_all)
                for record in parts[table.name].records():
                    row = table.row(record)
                    self._sum(table, row[0], row[-1])
                    connection.execute(table.put, row)
            connection.execute(_PUT_HEADER, _header_row(state, state.applied_upto, self._rows_sum))
        self.snapshot_upto = state.applied_upto
        self._state = state
        state.forget_changes()
        self._database.checkpoint("PASSIVE")  # the log has become as large as the state; now it can be cut back

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._database.close()

    def __enter__(self) -> Self:
        """Return the tables, to be closed after the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the tables."""
        self.close()

    def _forget_sums(self) -> None:
        self._sums = {table.name: {} for table in _TABLES}
        self._rows_sum = 0

    def _sum(self, table: _Table, number: int, row_sum: int) -> None:
        """Take the checksum of a row into the sum of all, instead of the one that it had; 0 if the row goes."""
        sums = self._sums[table.name]
        self._rows_sum += row_sum - sums.pop(number, 0)
        if row_sum:
            sums[number] = row_sum

    def _read_header(self) -> tuple[StateHeader, int, int]:
        row = self._database.read_row("header", tuple(_HEADER))
        if row is None:
            raise self._damaged("it has no header")
        _, applied_upto, clock_ms, base_ms, term_counter, term_node, *last, rows, rows_sum, snapshot_upto = row
        self.snapshot_upto = snapshot_upto
        return StateHeader(applied_upto, clock_ms, base_ms, Ballot(term_counter, term_node), *last), rows, rows_sum

    def _record(self, table: _Table, row: tuple[Any, ...]) -> Any:
        try:
            record = table.record(row)
        except (Malformed, ValueError, TypeError) as error:
            raise self._damaged(f"row {row[0]} of {table.name} is wrong: {error}") from error
        self._sum(table, row[0], row[-1])
        return record

    def _damaged(self, what: str) -> Corrupt:
        return damaged(self._database.path, self._database.node, what)


def _row(*columns: Any) -> tuple[Any, ...]:
    return (*columns, checksum(*columns))


def _header_row(state: LeaseState, snapshot_upto: int, rows_sum: int) -> tuple[Any, ...]:
    header = state.header
    return _row(
        1,
        header.applied_upto,
        header.clock_ms,
        header.base_ms,
        *header.term,
        header.last_token,
        header.last_claim,
        header.last_session,
        header.revision,
        header.last_item,
        sum(len(part) for part in state.tables.values()),
        rows_sum,
        snapshot_upto,
    )
