"""A disk that is full or fails: the error names file, cause and remedy, and nothing is written after it."""

import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from lessor.core.errors import Corrupt
from lessor.core.messages import Truncate
from lessor.storage.directory import DataDirectory
from lessor.storage.failures import StorageFailed, failed
from lessor.storage.journal import Journal
from lessor.storage.lease_tables import LeaseTables

from .histories import ALICE, LeaseHistory, vote
from .processes import FILL, finish, run

FULL = r"cannot write to .*{}: database or disk is full \(SQLITE_FULL\); the disk is full: make room, then start"


def let_it_grow_no_more(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA max_page_count = 1").fetchone()


def test_a_journal_on_a_full_disk_says_so_and_refuses_everything_after(directory: DataDirectory) -> None:
    with directory.open_journal() as journal:
        journal.commit([vote(1)])
        before = journal.load()
        let_it_grow_no_more(journal._database.connection)
        with pytest.raises(StorageFailed, match=FULL.format(r"journal\.db")) as raised:
            journal.commit([vote(2, entry=bytes(100_000))])
        assert raised.value.indefinite
        journal._database.connection.execute("PRAGMA max_page_count = 1000000").fetchone()  # room again: too late
        for attempt in (
            lambda: journal.commit([vote(2)]),
            lambda: journal.commit([Truncate(1)]),
            lambda: journal._database.checkpoint("PASSIVE"),
            journal.load,
        ):
            with pytest.raises(StorageFailed, match="the disk is full"):
                attempt()
        journal.commit([])  # says nothing, so it may
    with directory.open_journal() as journal:
        assert journal.load() == before


def test_lease_tables_on_a_full_disk_keep_the_last_save(directory: DataDirectory, chance: random.Random) -> None:
    with directory.open_lease_tables() as tables:
        history = LeaseHistory(chance, tables.load())
        history.apply_some(30)
        tables.save(history.state)
        saved = [history.state.snapshot()]
        let_it_grow_no_more(tables._database.connection)
        with pytest.raises(StorageFailed, match=FULL.format(r"leases\.db")):
            save_each(tables, history, saved)
        with pytest.raises(StorageFailed, match="the disk is full"):
            tables.replace(history.state)
    with directory.open_lease_tables() as tables:
        assert tables.load().snapshot() == saved[-1]


def test_a_peer_that_cannot_be_written_down_was_not_met(directory: DataDirectory) -> None:
    directory._database.connection.execute("PRAGMA query_only = ON").fetchone()
    with pytest.raises(StorageFailed, match=r"cannot write to .*node\.db: .* \(SQLITE_READONLY\); let the node's user"):
        directory.meet(2, 5)
    directory._database.connection.execute("PRAGMA query_only = OFF").fetchone()
    assert directory.known_incarnation(2) is None
    with pytest.raises(StorageFailed, match=r"node\.db"):
        directory.meet(3, 5)


def test_a_journal_that_may_grow_no_more_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    """The system refuses the write itself here, as it does for a quota: first the log's, then that of the database."""
    for limit in (200_000, 3_000_000):
        path = tmp_path / str(limit)
        DataDirectory(path, ALICE).close()
        process = run(FILL, path, limit)
        out, errors = finish(process)
        assert errors == ""
        *acknowledged, failure, again, load, truncate = out.splitlines()
        assert len(acknowledged) > 10
        assert failure.startswith(f"failed: cannot write to {path}/journal.db: disk I/O error (SQLITE_IOERR_WRITE); ")
        assert "a quota or a limit on the size of files is reached" in failure
        for line in (again, load, truncate):
            assert line == failure.replace("failed:", "again:")
        with DataDirectory(path, ALICE) as directory, directory.open_journal() as journal:
            slots = [vote.slot for vote in journal.load().votes]
            assert slots[: len(acknowledged)] == [int(slot) for slot in acknowledged]
            assert len(slots) <= len(acknowledged) + 1
            journal.commit([vote(len(slots) + 1)])


def test_every_commit_after_a_failed_checkpoint_fails(
    directory: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync that failed is not tried again: it would be called a success, and the log would be overwritten."""
    with directory.open_journal() as journal:
        journal.commit([vote(1)])
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
        monkeypatch.setattr(journal._database, "connection", FailingCheckpoint(journal._database.connection, error))
        slots = range(2, 50)
        with pytest.raises(
            StorageFailed, match=r"journal\.db: disk I/O error \(SQLITE_IOERR_FSYNC\); the disk reports"
        ):
            commit_each(journal, slots)
        monkeypatch.undo()
        with pytest.raises(StorageFailed, match="SQLITE_IOERR_FSYNC"):
            journal.commit([vote(50)])


def save_each(tables: LeaseTables, history: LeaseHistory, saved: list[bytes]) -> None:
    for _ in range(200):
        tables.save(history.state)
        saved.append(history.state.snapshot())
        history.apply_some(30)


def commit_each(journal: Journal, slots: range) -> None:
    for slot in slots:
        journal.commit([vote(slot, entry=bytes(500_000))])


class FailingCheckpoint:
    """A connection to a disk whose sync fails at the next checkpoint."""

    def __init__(self, connection: sqlite3.Connection, error: sqlite3.Error) -> None:
        self.connection = connection
        self.error = error
        self.in_transaction = False

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        if "wal_checkpoint" in statement:
            raise self.error
        return self.connection.execute(statement, *parameters)


def test_an_unwritable_file_is_said_to_be_one(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "data", ALICE) as directory:
        owner = directory._owner
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    error.sqlite_errorname = "SQLITE_CANTOPEN"
    said = failed(error, tmp_path / "journal.db", owner.node, "open", reading=True)
    assert isinstance(said, StorageFailed)
    assert "let the node's user read and write this file and its directory" in str(said)


def test_what_makes_no_sense_is_damage_when_read_and_failure_when_written() -> None:
    """Our statements are constant: where one does not fit the tables, the tables are not what they were."""
    error = sqlite3.OperationalError("no such column: slot")
    path = Path("journal.db")
    assert isinstance(failed(error, path, 1, "read", reading=True), Corrupt)
    assert isinstance(failed(error, path, 1, "write to", reading=False), StorageFailed)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    assert isinstance(failed(error, path, 1, "write to", reading=False), Corrupt)
