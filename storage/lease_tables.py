"""The lease state of one node on the disk, in tables that an operator can read with the sqlite3 shell.

They are behind the log by what came since the last save, which the journal can replay. Each row ends with a checksum,
and the header counts the rows and sums up their checksums, so that a state that was changed by anything but the log is
not taken for one: a page that a disk has lost a write of holds rows that were right, once.
"""

import json
from collections.abc import Iterable
from contextlib import closing
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import sqlite_utils

from ..core.ballot import Ballot
from ..core.commands import Resource
from ..core.encoding import dumps, from_list, loads, to_list
from ..core.errors import Corrupt, InvariantBroken, Malformed
from ..core.lease_state import LeaseState
from ..core.records import ClaimRecord, SessionRecord, StateHeader
from .database import PAGE_BYTES, Database, Owner, checksum, new_schema
from .failures import damaged

SCHEMA: Final = new_schema("leases", irreplaceable=False)

ROW_BYTES: Final = 256
"""What a changed row adds to the log beside its blobs, about."""

_HEADER: Final = {
    "id": int, "applied_upto": int, "clock_ms": int, "base_ms": int, "term_counter": int, "term_node": int,
    "last_token": int, "last_claim": int, "last_session": int, "revision": int,
    "sessions": int, "claims": int, "rows_sum": int, "snapshot_upto": int,
}  # fmt: skip
_SESSIONS: Final = {
    "session": int, "key": bytes, "timeout_ms": int, "description": str, "expires_at_ms": int, "acked_below": int,
    "refused_below": int, "replies": bytes,
}  # fmt: skip
_CLAIMS: Final = {
    "claim": int, "namespace": str, "resources": str, "holder": str, "data": bytes, "session": int, "detached": int,
    "ttl_ms": int, "since_ms": int, "token": int, "ends_at_ms": int,
}  # fmt: skip


@SCHEMA.migrations()
def m001_lease_state(db: sqlite_utils.Database) -> None:
    """Make the sessions, the claims, and the header: the one row of what is neither."""
    for name, columns in (("header", _HEADER), ("sessions", _SESSIONS), ("claims", _CLAIMS)):
        key, *others = columns
        db.table(name).create({**columns, "checksum": int}, pk=key, not_null={*others, "checksum"})


def _put(table: str, columns: Iterable[str]) -> str:
    names = (*columns, "checksum")
    return f"INSERT OR REPLACE INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608


_SESSION_FIELDS: Final = attrgetter(*tuple(_SESSIONS)[:-1])
_CLAIM_FIELDS: Final = attrgetter(*_CLAIMS)
_RESOURCES: Final = tuple(_CLAIMS).index("resources")
_DETACHED: Final = tuple(_CLAIMS).index("detached")
_to_json: Final = json.JSONEncoder(ensure_ascii=False).encode
_PUT_HEADER: Final = _put("header", _HEADER)
_PUT_SESSION: Final = _put("sessions", _SESSIONS)
_PUT_CLAIM: Final = _put("claims", _CLAIMS)
_DROP_SESSION: Final = "DELETE FROM sessions WHERE session = ?"
_DROP_CLAIM: Final = "DELETE FROM claims WHERE claim = ?"
_ALL_SESSIONS: Final = f"SELECT {', '.join(_SESSIONS)}, checksum FROM sessions ORDER BY session"  # noqa: S608
_ALL_CLAIMS: Final = f"SELECT {', '.join(_CLAIMS)}, checksum FROM claims ORDER BY claim"  # noqa: S608


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
        self._session_sums: dict[int, int] = {}  # the checksum of each row
        self._claim_sums: dict[int, int] = {}
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
        header, sessions_expected, claims_expected, sum_expected = self._read_header()
        self._forget_sums()
        with database.reading(), closing(database.connection.execute(_ALL_SESSIONS)) as rows:
            sessions = [self._session(row) for row in rows]
        with database.reading(), closing(database.connection.execute(_ALL_CLAIMS)) as rows:
            claims = [self._claim(row) for row in rows]
        if (len(sessions), len(claims)) != (sessions_expected, claims_expected):
            raise self._damaged(
                f"it holds {len(sessions)} sessions and {len(claims)} claims, "
                f"its header says {sessions_expected} and {claims_expected}"
            )
        if self._rows_sum != sum_expected:
            raise self._damaged("its sessions and claims are not those that were written last")
        try:
            self._state = LeaseState.from_records(header, sessions, claims)
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
        put_sessions, put_claims = [], []
        drop_sessions, drop_claims = [], []
        size = 0
        for number in state.changed_sessions:
            session = state.session_record(number)
            if session is None:
                drop_sessions.append((number,))
                self._sum(self._session_sums, number, 0)
            else:
                put_sessions.append(session_row := _session_row(session))
                self._sum(self._session_sums, number, session_row[-1])
                size += len(session_row[-2])
        for number in state.changed_claims:
            claim = state.claim_record(number)
            if claim is None:
                drop_claims.append((number,))
                self._sum(self._claim_sums, number, 0)
            else:
                put_claims.append(claim_row := _claim_row(claim))
                self._sum(self._claim_sums, number, claim_row[-1])
                size += len(claim.data)
        with self._database.transaction as connection:
            connection.executemany(_DROP_SESSION, drop_sessions)
            connection.executemany(_DROP_CLAIM, drop_claims)
            connection.executemany(_PUT_SESSION, put_sessions)
            connection.executemany(_PUT_CLAIM, put_claims)
            connection.execute(_PUT_HEADER, _header_row(state, self.snapshot_upto, self._rows_sum))
        rows = len(put_sessions) + len(put_claims) + len(drop_sessions) + len(drop_claims)
        self._saved(state)
        self._database.wrote(size + rows * ROW_BYTES + 3 * PAGE_BYTES)

    def replace(self, state: LeaseState) -> None:
        """Make `state`, just restored from a snapshot, all that these tables hold.

        Raises:
            StorageFailed: it may or may not have been written; the node must stop.
            Corrupt: the file was found to be damaged; the node must stop.
        """
        self._forget_sums()
        with self._database.transaction as connection:
            connection.execute("DELETE FROM sessions")
            connection.execute("DELETE FROM claims")
            for session in state.all_sessions():
                row = _session_row(session)
                self._sum(self._session_sums, session.session, row[-1])
                connection.execute(_PUT_SESSION, row)
            for claim in state.all_claims():
                row = _claim_row(claim)
                self._sum(self._claim_sums, claim.claim, row[-1])
                connection.execute(_PUT_CLAIM, row)
            connection.execute(_PUT_HEADER, _header_row(state, state.applied_upto, self._rows_sum))
        self.snapshot_upto = state.applied_upto
        self._state = state
        self._saved(state)
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

    def _saved(self, state: LeaseState) -> None:
        state.changed_sessions.clear()
        state.changed_claims.clear()

    def _forget_sums(self) -> None:
        self._session_sums.clear()
        self._claim_sums.clear()
        self._rows_sum = 0

    def _sum(self, sums: dict[int, int], number: int, row_sum: int) -> None:
        """Take the checksum of a row into the sum of all, instead of the one that it had; 0 if the row goes."""
        self._rows_sum += row_sum - sums.pop(number, 0)
        if row_sum:
            sums[number] = row_sum

    def _read_header(self) -> tuple[StateHeader, int, int, int]:
        row = self._database.read_row("header", tuple(_HEADER))
        if row is None:
            raise self._damaged("it has no header")
        *columns, sessions, claims, rows_sum, self.snapshot_upto = row
        _, applied_upto, clock_ms, base_ms, term_counter, term_node, *last = columns
        header = StateHeader(applied_upto, clock_ms, base_ms, Ballot(term_counter, term_node), *last)
        return header, sessions, claims, rows_sum

    def _session(self, row: tuple[Any, ...]) -> SessionRecord:
        *columns, stored = row
        if checksum(*columns) != stored:
            raise self._damaged(f"the row of session {columns[0]} is wrong")
        self._sum(self._session_sums, columns[0], stored)
        try:
            columns[-1] = tuple(from_list(reply) for reply in loads(columns[-1]))
        except Malformed as error:
            raise self._damaged(f"the replies of session {columns[0]} cannot be read: {error}") from error
        return SessionRecord(*columns)

    def _claim(self, row: tuple[Any, ...]) -> ClaimRecord:
        *columns, stored = row
        if checksum(*columns) != stored:
            raise self._damaged(f"the row of claim {columns[0]} is wrong")
        self._sum(self._claim_sums, columns[0], stored)
        columns[_RESOURCES] = tuple(Resource(tuple(path)) for path in json.loads(columns[_RESOURCES]))
        columns[_DETACHED] = bool(columns[_DETACHED])
        return ClaimRecord(*columns)

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
        state.sessions,
        state.held + state.waiting,
        rows_sum,
        snapshot_upto,
    )


def _session_row(record: SessionRecord) -> tuple[Any, ...]:
    return _row(*_SESSION_FIELDS(record), dumps([to_list(reply) for reply in record.replies]))


def _claim_row(record: ClaimRecord) -> tuple[Any, ...]:
    columns = [*_CLAIM_FIELDS(record)]
    columns[_RESOURCES] = _to_json([resource.path for resource in record.resources])
    columns[_DETACHED] = int(record.detached)
    return _row(*columns)
