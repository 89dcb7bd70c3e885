"""The opening of a node's SQLite files, alike for all: pragmas, migrations, whose they are, and errors with remedies.

Laws it keeps:
- a transaction that has returned is synced to the disk (P2);
- after one failure nothing is written through this connection again: what a failed sync left behind is not known;
- a file that belongs to somebody else, is damaged, or comes from a newer version is not touched.

Schema and migrations go through sqlite-utils; what is done often goes through plain SQL on the same connection.
"""

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

import sqlite_utils
from sqlite_utils.migrations import Migrations

from ..core.encoding import dumps
from ..core.errors import Corrupt, ForeignDatabase, LessorError
from .failures import StorageFailed, damaged, failed, leave_out
from .write_ahead_log import damage

CHECKPOINT_BYTES: Final = 4 * 1024 * 1024
"""The write-ahead log is copied into the database after about so many bytes. SQLite's own default: a log four times as
long took longer to grow to its size and made no commit faster (measured)."""

LOG_BYTES_KEPT: Final = 4 * CHECKPOINT_BYTES
"""A log that grew beyond this in one large transaction is cut back. Well above what it usually reaches, so that it is
otherwise overwritten in place: a sync of a file that grows costs nearly twice as much (measured)."""

PAGE_BYTES: Final = 4096
"""SQLite's default size of a page, and the least that a commit adds to the log for each table that it touched."""

BUSY_SECONDS: Final = 5.0
"""How long an operator's shell may hold up a write before the node gives up."""

Shape = dict[str, tuple[tuple[str, str, int, int], ...]]


@dataclass(frozen=True, slots=True)
class Schema:
    """A kind of database file, and how it came to be, step by step. A step, once released, is never changed.

    `irreplaceable` says that a transaction lost from it breaks a promise, so that its log is checked, too.
    """

    kind: str
    migrations: Migrations
    irreplaceable: bool


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a database is: the node, its cluster, and the life of the node in which it was made."""

    cluster: str
    node: int
    incarnation: int


def new_schema(kind: str, *, irreplaceable: bool) -> Schema:
    """Return a schema whose first step makes the table that says whose the file is."""
    migrations = Migrations(f"lessor.{kind}")

    @migrations()
    def m000_meta(db: sqlite_utils.Database) -> None:
        columns = {"id": int, "kind": str, "cluster": str, "node": int, "incarnation": int, "checksum": int}
        db.table("meta").create(columns, pk="id", not_null=columns.keys() - {"id"})

    return Schema(kind, migrations, irreplaceable)


def checksum(*columns: object) -> int:
    """Return the checksum that stands in the last column of a row, of the columns before it."""
    return zlib.crc32(dumps(columns))


class Transaction:
    """`with database.transaction as connection:` all of it is on the disk after the block, or none of it."""

    __slots__ = ("_database",)

    def __init__(self, database: "Database") -> None:
        self._database = database

    def __enter__(self) -> sqlite3.Connection:
        """Begin; raises what the database failed with before."""
        database = self._database
        database.refuse_if_failed()
        try:
            database.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise database.give_up(error, "write to") from error
        return database.connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        """Commit, or undo what a failed block has begun; after a failure of any kind nothing more is written."""
        database = self._database
        if error is None:
            try:
                database.connection.execute("COMMIT")
            except sqlite3.Error as refused:
                raise database.give_up(refused, "write to") from refused
        else:
            failure = database.give_up(error, "write to")
            if isinstance(error, sqlite3.Error):
                raise failure from error
        return False


class Database:
    """One open SQLite file of a node. For one thread, unless it was opened for `any_thread`."""

    def __init__(
        self,
        path: Path,
        schema: Schema,
        node: int,
        *,
        create: bool = False,
        exclusive: bool = False,
        any_thread: bool = False,
    ) -> None:
        """Open the file of `node`, or make it if `create`; bring it to this version's schema.

        `exclusive` keeps every other process out, even readers, until it is closed.

        Raises:
            ForeignDatabase: the file was written by a newer version of lessor.
            Corrupt: the file is no such database, or is damaged.
            StorageFailed: it cannot be opened, read or written.
        """
        self.path = path
        self.node = node
        self.transaction = Transaction(self)
        self._schema = schema
        self._create = create
        self._failure: LessorError | None = None
        self._logged_bytes = 0
        if schema.irreplaceable:  # before SQLite opens the file: it would forget what lies behind the damage
            try:
                what = damage(path)
            except OSError as error:
                raise StorageFailed(
                    f"cannot read the write-ahead log of {path}: {error.strerror}; mend the cause, then start again"
                ) from error
            if what is not None:
                raise damaged(path, node, what)
        with self._explained("open"):
            self.connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}",
                uri=True,
                isolation_level=None,  # transactions begin and end where we say so
                timeout=BUSY_SECONDS,
                check_same_thread=not any_thread,
            )
        try:
            with self._explained("open"):
                self._set_up(exclusive=exclusive)
                self._migrate()
                # The log is copied whatever it holds: should a sync have failed in a former life, then the pages that
                # the system only pretends to have written are written once more. Where the log will be judged, no
                # frames of a former life may stay in it; elsewhere, nobody who reads it need be waited for.
                mode = "TRUNCATE" if schema.irreplaceable else "PASSIVE"
                self.connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except BaseException:
            self.close()
            raise

    # --- opening -----------------------------------------------------------------------------------------------------

    def _set_up(self, *, exclusive: bool) -> None:
        execute = self.connection.execute
        if exclusive:  # before anything is read, so that the index of the log stays in memory
            execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()
        execute("PRAGMA trusted_schema = OFF")
        execute("PRAGMA cell_size_check = ON")  # notices some damage before it is acted upon
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA fullfsync = ON")  # macOS: an fsync that reaches the medium; nothing elsewhere
        execute("PRAGMA checkpoint_fullfsync = ON")
        (mode,) = execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StorageFailed(
                f"cannot write {self.path} through a write-ahead log: put the data directory on a local file system"
            )
        # A checkpoint that SQLite starts by itself swallows its errors, and a failed sync among them; see `wrote`.
        execute("PRAGMA wal_autocheckpoint = 0").fetchone()
        execute(f"PRAGMA journal_size_limit = {LOG_BYTES_KEPT}").fetchone()
        # Some builds fill what is deleted with zeros, which costs as much as writing it did.
        execute("PRAGMA secure_delete = OFF").fetchone()

    def _migrate(self) -> None:
        migrations = self._schema.migrations
        known, expected = expected_shape(self._schema)
        applied = self._applied()
        if not applied and not self._create:
            raise damaged(self.path, self.node, f"it is empty, or no {self._schema.kind} of lessor")
        if applied > known:
            raise ForeignDatabase(
                f"{self.path} has schema version {len(applied)}, this version of lessor knows {len(known)}: "
                "it was written by a newer one; run that, there is no way back"
            )
        if applied - known:
            raise damaged(self.path, self.node, "its list of migrations is not ours")
        if applied != known:
            migrations.apply(sqlite_utils.Database(self.connection, execute_plugins=False))  # nobody's plugins
        found = _shape(self.connection)
        if any(found.get(name) != columns for name, columns in expected.items()):
            raise damaged(self.path, self.node, "its tables are not ours")
        if found.keys() != expected.keys():
            added = ", ".join(sorted(found.keys() - expected.keys()))
            raise Corrupt(
                f"{self.path} holds what lessor did not make: {added}. If it was added by hand, drop it; if nobody did "
                f"that, the file is damaged: {leave_out(self.node)}"
            )

    def _applied(self) -> set[str]:
        """Return the names of the migrations applied, by a statement that fails where the list of them is damaged."""
        execute = self.connection.execute
        if execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone() is None:
            return set()
        name = self._schema.migrations.name
        asked = "SELECT _sqlite_migrations.name FROM _sqlite_migrations WHERE _sqlite_migrations.migration_set = ?"
        return {row[0] for row in execute(asked, (name,)).fetchall()}

    def check(self) -> None:
        """Read the whole file and check its structure; it takes about as long as reading it.

        Raises:
            Corrupt: it is damaged.
            StorageFailed: it cannot be read.
        """
        with self.reading():
            problems = [row[0] for row in self.connection.execute("PRAGMA quick_check(1)").fetchall()]
        if problems != ["ok"]:
            raise damaged(self.path, self.node, " ".join(str(problems[0]).split()) if problems else "it has no check")

    # --- whose it is -------------------------------------------------------------------------------------------------

    def owner(self) -> Owner | None:
        """Return whose the file is, None if that was never written.

        Raises:
            Corrupt: the row that says so is damaged.
            StorageFailed: it cannot be read.
        """
        row = self.read_row("meta", ("id", "kind", "cluster", "node", "incarnation"))
        if row is None:
            return None
        _, kind, cluster, node, incarnation = row
        if kind != self._schema.kind:
            raise damaged(self.path, self.node, f"it says that it is a {kind}, not a {self._schema.kind}")
        return Owner(cluster, node, incarnation)

    def write_owner(self, owner: Owner) -> None:
        """Write down whose the file is, within a transaction."""
        row = (1, self._schema.kind, owner.cluster, owner.node, owner.incarnation)
        self.connection.execute("INSERT INTO meta VALUES (?, ?, ?, ?, ?, ?)", (*row, checksum(*row)))

    def read_row(self, table: str, columns: Sequence[str]) -> tuple[Any, ...] | None:
        """Return these columns of the one row of a table whose rows end with a checksum, None if there is no row.

        Raises:
            Corrupt: the row is damaged.
            StorageFailed: it cannot be read.
        """
        with self.reading():
            rows = self.connection.execute(f"SELECT {', '.join(columns)}, checksum FROM {table}").fetchall()  # noqa: S608 - constants
        if not rows:
            return None
        *values, stored = rows[0]
        if len(rows) != 1 or checksum(*values) != stored:
            raise damaged(self.path, self.node, f"the row in its table {table} is wrong")
        return tuple(values)

    def require(self, owner: Owner) -> None:
        """Raise unless the file is this owner's.

        Raises:
            ForeignDatabase: it belongs to another node, to another cluster, or to another life of this node.
            Corrupt: it does not say whose it is.
            StorageFailed: it cannot be read.
        """
        found = self.owner()
        if found is None:
            raise damaged(self.path, self.node, "it does not say whose it is")
        if (found.cluster, found.node) != (owner.cluster, owner.node):
            raise ForeignDatabase(
                f"{self.path} belongs to node {found.node} of cluster {found.cluster!r}, this is node {owner.node} of "
                f"cluster {owner.cluster!r}: give --data another directory"
            )
        if found.incarnation != owner.incarnation:
            raise lost(self.path, owner.node, "belongs to another life of the node than the files beside it")

    # --- reading and writing -----------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn what SQLite fails with in this block into our errors.

        Raises:
            Corrupt: what was read makes no sense.
            StorageFailed: it could not be read, or the database has failed before.
        """
        self.refuse_if_failed()
        with self._explained("read"):
            yield

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite's messages may quote what is damaged
            raise self.give_up(error, doing, reading=True) from error

    def wrote(self, count: int) -> None:
        """Take note that about `count` bytes were committed, and copy the log into the database if it is time.

        This is not left to SQLite, which ignores the errors of the checkpoints that it starts: it would sync again
        after a sync that failed, be told that all is well, and overwrite the log.

        Raises:
            StorageFailed: it could not be copied.
        """
        self._logged_bytes += count
        if self._logged_bytes >= CHECKPOINT_BYTES:
            self.checkpoint("PASSIVE")

    def checkpoint(self, mode: Literal["PASSIVE", "TRUNCATE"]) -> None:
        """Copy the log into the database; `TRUNCATE` also gives its space back. A reader's lock may postpone both.

        Raises:
            StorageFailed: it could not be copied.
        """
        self.refuse_if_failed()
        self._logged_bytes = 0
        try:
            self.connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            raise self.give_up(error, "write to") from error

    def give_up(self, error: BaseException, doing: str, *, reading: bool = False) -> LessorError:
        """Roll back if that is possible, refuse everything from now on, and return the error to raise."""
        self._failure = failed(error, self.path, self.node, doing, reading=reading)
        self.roll_back()
        return self._failure

    def refuse_if_failed(self) -> None:
        """Raise what this database has failed with before, if it has."""
        if self._failure is not None:
            raise type(self._failure)(*self._failure.args)

    def roll_back(self) -> None:
        """Undo the transaction that is open, if one is."""
        with suppress(sqlite3.Error, AttributeError):  # the connection may be what could not be had
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file; may be called twice."""
        with suppress(sqlite3.Error):  # what was committed is safe in the log
            self.connection.close()


def lost(path: Path, node: int, what: str) -> ForeignDatabase:
    """Return the error for a data directory of which a part is missing, or does not fit the others."""
    return ForeignDatabase(
        f"{path} {what}: it was lost, or put there from a copy. The promises of node {node} are forgotten, so it must "
        f"not come back as node {node}: {leave_out(node)}"
    )


@cache
def expected_shape(schema: Schema) -> tuple[frozenset[str], Shape]:
    """Return the names of all migrations of a schema, and the shape of the tables that they make."""
    db = sqlite_utils.Database(memory=True, execute_plugins=False)
    try:
        schema.migrations.apply(db)
        return frozenset(migration.name for migration in schema.migrations.applied(db)), _shape(db.conn)
    finally:
        db.close()


def _shape(connection: sqlite3.Connection) -> Shape:
    """Return tables, views, indexes and triggers with their columns; those of SQLite and of sqlite-utils left out."""
    names = connection.execute(
        "SELECT type, name FROM sqlite_master"
        " WHERE substr(name, 1, 7) <> 'sqlite_' AND tbl_name <> '_sqlite_migrations'"
    ).fetchall()
    return {
        f"{kind} {name}": tuple(
            connection.execute('SELECT name, type, "notnull", pk FROM pragma_table_info(?)', (name,)).fetchall()
        )
        for kind, name in names
    }
