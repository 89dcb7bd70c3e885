"""The journal's contract: what was committed is there, in its order, as one transaction, in bounded space."""

import itertools
import random
import sqlite3

import pytest

from lessor.core.ballot import NO_BALLOT, Ballot
from lessor.core.errors import Corrupt
from lessor.core.messages import Truncate, Vote, WritePromise, WriteWatermark
from lessor.storage import database
from lessor.storage.database import CHECKPOINT_BYTES
from lessor.storage.directory import DataDirectory
from lessor.storage.failures import StorageFailed
from lessor.storage.journal import Journal, JournalContents, JournalWrite

from .histories import ModelJournal, journal_writes, vote

LARGEST = 2**63 - 1


def load(directory: DataDirectory) -> JournalContents:
    with directory.open_journal() as journal:
        return journal.load()


def commit(directory: DataDirectory, *batches: list[JournalWrite]) -> None:
    with directory.open_journal() as journal:
        for writes in batches:
            journal.commit(writes)


# --- P2: durable before audible --------------------------------------------------------------------------------------


def test_a_new_journal_has_promised_nothing(directory: DataDirectory) -> None:
    assert load(directory) == JournalContents(NO_BALLOT, [], 0, (NO_BALLOT, 0))


def test_what_was_committed_is_there_after_reopening(directory: DataDirectory, chance: random.Random) -> None:
    """P2, against the plainest model, with reopenings in between."""
    model = ModelJournal()
    history = journal_writes(chance)
    for _ in range(5):
        with directory.open_journal() as journal:
            assert journal.load() == model.load()
            for writes in itertools.islice(history, 60):
                model.commit(writes)
                journal.commit(writes)
            assert journal.load() == model.load()


def test_writes_of_one_commit_take_effect_in_their_order(directory: DataDirectory) -> None:
    early, late = Ballot(1, 1), Ballot(2, 3)
    commit(
        directory,
        [vote(1, early, b"old"), vote(2, early), vote(3, early)],
        [vote(1, late, b"new"), Truncate(2), vote(4, early, b"a"), vote(4, late, b"b"), Truncate(1)],
        [WritePromise(late), WriteWatermark(early, 7), WritePromise(early), WriteWatermark(late, 3)],
    )
    assert load(directory) == JournalContents(
        promised=early,  # the acceptor never asks for that; the journal does as it is told
        votes=[Vote(3, early, b"entry"), Vote(4, late, b"b")],
        truncated_upto=2,
        watermark=(late, 3),
    )


def test_a_vote_accepted_after_a_truncation_stays_when_both_are_committed_at_once(directory: DataDirectory) -> None:
    commit(directory, [vote(5), Truncate(5), vote(6), vote(9), Truncate(6)])
    contents = load(directory)
    assert [vote.slot for vote in contents.votes] == [9]
    assert contents.truncated_upto == 6


def test_the_largest_and_the_smallest_values_survive(directory: DataDirectory) -> None:
    ballot = Ballot(LARGEST, LARGEST)
    writes: list[JournalWrite] = [vote(1, Ballot(0, 0), b""), vote(LARGEST, ballot, bytes(2 * 1024 * 1024))]
    commit(directory, [*writes, WritePromise(ballot), WriteWatermark(ballot, LARGEST)])
    contents = load(directory)
    assert contents.votes == [Vote(1, NO_BALLOT, b""), Vote(LARGEST, ballot, bytes(2 * 1024 * 1024))]
    assert contents.promised == ballot
    assert contents.watermark == (ballot, LARGEST)


def test_each_commit_is_synced_before_it_returns(directory: DataDirectory) -> None:
    """P2 rests on these settings; that they do what they say is SQLite's promise."""
    with directory.open_journal() as journal:
        ask = journal._database.connection.execute
        assert ask("PRAGMA journal_mode").fetchone() == ("wal",)
        assert ask("PRAGMA synchronous").fetchone() == (2,)  # FULL: the log is synced with every commit
        assert ask("PRAGMA wal_autocheckpoint").fetchone() == (0,)  # SQLite would swallow a failed sync there


def test_a_commit_is_one_transaction_and_writes_the_state_once(directory: DataDirectory) -> None:
    with directory.open_journal() as journal:
        statements: list[str] = []
        journal._database.connection.set_trace_callback(statements.append)
        journal.commit([WritePromise(Ballot(1, 1)), vote(1), vote(2), WriteWatermark(Ballot(1, 1), 1), Truncate(1)])
        words = [statement.split()[0] for statement in statements]
        assert words == ["BEGIN", "SELECT", "DELETE", "INSERT", "INSERT", "COMMIT"]
        statements.clear()
        journal.commit([vote(3), vote(4), WriteWatermark(Ballot(1, 1), 4)])
        assert [statement.split()[0] for statement in statements] == ["BEGIN", "INSERT", "INSERT", "INSERT", "COMMIT"]


def test_an_empty_commit_does_nothing(directory: DataDirectory) -> None:
    with directory.open_journal() as journal:
        statements: list[str] = []
        journal._database.connection.set_trace_callback(statements.append)
        journal.commit([])
        assert statements == []


def test_a_write_that_cannot_be_stored_changes_nothing_and_stops_the_journal(directory: DataDirectory) -> None:
    """No core asks for such a number, so one that does is not to be trusted with a second try."""
    with directory.open_journal() as journal:
        journal.commit([vote(1)])
        before = journal.load()
        with pytest.raises(OverflowError):
            journal.commit([vote(2), WritePromise(Ballot(2**64, 1))])
        with pytest.raises(StorageFailed, match="int too large"):
            journal.commit([vote(2)])
    assert load(directory) == before


# --- P10: bounded ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("votes", "entry_bytes", "rounds"), [(50, 200, 1_200), (1, 200_000, 300), (3, 3_000, 2_000)])
def test_neither_file_nor_log_grows_with_the_number_of_slots(
    directory: DataDirectory, votes: int, entry_bytes: int, rounds: int
) -> None:
    """P10: what is retained is bounded, and so is the space it takes, however many slots have passed."""
    retained = 1_000_000 // entry_bytes
    peak, log_peak = [], []
    files = directory.path / "journal.db", directory.path / "journal.db-wal"
    with directory.open_journal() as journal:
        journal._database.connection.execute("PRAGMA synchronous = OFF")  # for the speed of this test alone
        slot = 0
        for _ in range(rounds):
            writes: list[JournalWrite] = [vote(slot + more, entry=bytes(entry_bytes)) for more in range(1, votes + 1)]
            slot += votes
            if slot > retained:
                writes.append(Truncate(slot - retained))
            journal.commit(writes)
            peak.append(files[0].stat().st_size)
            log_peak.append(files[1].stat().st_size)
    assert peak[-1] < 4_000_000
    assert peak[-1] == peak[rounds // 2], "the file still grows"
    assert max(log_peak) < 2 * CHECKPOINT_BYTES


# --- whose it is while it is open ------------------------------------------------------------------------------------


def test_no_other_connection_can_use_the_journal_while_it_is_open(
    directory: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0)
    path = directory.path / "journal.db"
    with directory.open_journal():
        with pytest.raises(StorageFailed, match="another program works on this file"):
            directory.open_journal()
        other = sqlite3.connect(path, timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("SELECT count(*) FROM votes").fetchone()
        other.close()
    assert load(directory).votes == []


# --- together with the lease tables ----------------------------------------------------------------------------------


def contents_of(journal: Journal, slots: range, truncated_upto: int = 0) -> JournalContents:
    journal.commit([*map(vote, slots), Truncate(truncated_upto)])
    return journal.load()


def test_a_journal_that_covers_what_is_applied_is_taken_as_it_is(directory: DataDirectory) -> None:
    with directory.open_journal() as journal:
        contents = contents_of(journal, range(1, 11), truncated_upto=4)
        for applied_upto in range(4, 11):
            assert journal.reconcile(contents, applied_upto, snapshot_upto=0) == contents
            assert journal.reconcile(contents, applied_upto, snapshot_upto=4) == contents


def test_votes_below_a_snapshot_are_forgotten_lest_they_are_served_as_chosen(directory: DataDirectory) -> None:
    """P1: a node died after it installed a snapshot and before it truncated what it had voted for below."""
    with directory.open_journal() as journal:
        contents = journal.reconcile(contents_of(journal, range(3, 12, 4)), applied_upto=8, snapshot_upto=8)
        assert [vote.slot for vote in contents.votes] == [11]
        assert contents.truncated_upto == 8
        assert journal.load() == contents


def test_a_journal_that_lost_votes_which_were_applied_stops_the_node(directory: DataDirectory) -> None:
    """A journal put back from an old copy, or whose log was deleted, has forgotten what it promised since."""
    with directory.open_journal() as journal:
        contents = contents_of(journal, range(1, 11))
        with pytest.raises(Corrupt, match=r"journal\.db .*no trace.* leave node 1 out"):
            journal.reconcile(contents, applied_upto=11, snapshot_upto=0)
        journal.commit([Truncate(7)])
        with pytest.raises(Corrupt, match="begins after slot 7, and the lease tables beside it end with slot 6"):
            journal.reconcile(journal.load(), applied_upto=6, snapshot_upto=0)
