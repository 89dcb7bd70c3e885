"""A disk that says that a page was written, and keeps it as it was: what was lost with it is noticed, or was nothing.

Each row of such a page has the right checksum, and the page its right place. It is noticed by what other pages say.
"""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lessor.core.ballot import Ballot
from lessor.core.commands import Command, Ping, proof_of
from lessor.core.encoding import encode
from lessor.core.entries import Batch
from lessor.core.errors import Corrupt, ForeignDatabase
from lessor.core.messages import Truncate, WritePromise, WriteWatermark
from lessor.storage.database import PAGE_BYTES, Owner
from lessor.storage.directory import DataDirectory
from lessor.storage.journal import Journal, JournalContents, JournalWrite
from lessor.storage.lease_tables import LeaseTables

from .histories import ALICE, LeaseHistory, vote

FIRST, NEXT = Ballot(1, 1), Ballot(2, 3)

LAST_COMMITS: dict[str, list[JournalWrite]] = {
    "a vote": [vote(61)],
    "many votes": [vote(slot, entry=bytes(500)) for slot in range(61, 90)],
    "a vote and a watermark": [vote(61), WriteWatermark(FIRST, 60)],
    "a vote for another value": [vote(60, FIRST, b"other")],
    "votes of another ballot": [WritePromise(NEXT), *(vote(slot, NEXT) for slot in range(50, 62))],
    "a promise": [WritePromise(NEXT)],
    "a watermark": [WriteWatermark(FIRST, 60)],
    "a truncation": [Truncate(30)],
    "a truncation of all": [Truncate(60)],
    "a truncation of more than there is": [Truncate(1_000)],
    "a truncation and a vote": [Truncate(59), vote(61)],
}


def with_each_page_of(before: bytes, path: Path) -> Iterator[int]:
    """Put each page of a file that was another one `before` back to what it was; the file is healed in the end."""
    after = path.read_bytes()
    for start in range(0, min(len(before), len(after)), PAGE_BYTES):
        end = start + PAGE_BYTES
        if before[start:end] != after[start:end]:
            path.write_bytes(after[:start] + before[start:end] + after[end:])
            yield start // PAGE_BYTES
    path.write_bytes(after)


def read_journal(path: Path, owner: Owner) -> JournalContents | Corrupt:
    try:
        with Journal(path / "journal.db", owner) as journal:
            return journal.load()
    except Corrupt as error:
        return error


@pytest.mark.parametrize("writes", LAST_COMMITS.values(), ids=LAST_COMMITS.keys())
def test_p2_a_journal_of_which_the_disk_lost_the_write_of_a_page_stops_the_node(
    tmp_path: Path, writes: list[JournalWrite]
) -> None:
    path = tmp_path / "data"
    file = path / "journal.db"
    with DataDirectory(path, ALICE) as directory, directory.open_journal() as journal:
        for slot in range(1, 61):
            journal.commit([WritePromise(FIRST), vote(slot, entry=bytes(300))])
    before = file.read_bytes()
    with DataDirectory(path, ALICE) as directory, directory.open_journal() as journal:
        owner = directory._owner
        journal.commit(writes)
        expected = journal.load()
    noticed = 0
    for page in with_each_page_of(before, file):
        found = read_journal(path, owner)
        if isinstance(found, Corrupt):
            noticed += 1
            assert "leave node 1 out" in str(found)
        else:  # what only says which pages are free
            assert found == expected, f"page {page}"
    assert noticed >= 2
    assert read_journal(path, owner) == expected


def test_p2_a_page_of_the_journal_that_was_given_a_former_life_of_another_stops_the_node(tmp_path: Path) -> None:
    """What was truncated lies about in free pages, good as ever; any of them may turn up in any place."""
    path = tmp_path / "data"
    file = path / "journal.db"
    with DataDirectory(path, ALICE) as directory, directory.open_journal() as journal:
        owner = directory._owner
        for slot in range(1, 61):
            journal.commit([vote(slot, entry=bytes(300)), WriteWatermark(FIRST, slot), Truncate(slot - 24)])
        expected = journal.load()
    sound = file.read_bytes()
    starts = range(0, len(sound), PAGE_BYTES)
    noticed = 0
    for start in starts:
        for other in starts:
            data = bytearray(sound)
            data[start : start + PAGE_BYTES] = sound[other : other + PAGE_BYTES]
            file.write_bytes(data)
            found = read_journal(path, owner)
            noticed += isinstance(found, Corrupt)
            assert isinstance(found, Corrupt) or found == expected, f"page at {other} in the place of that at {start}"
    assert noticed > len(starts)


def much_changed(history: LeaseHistory, tables: LeaseTables) -> None:
    history.apply_some(20)
    tables.save(history.state)


def one_session_pinged(history: LeaseHistory, tables: LeaseTables) -> None:
    """Nothing comes and nothing goes, so that no count tells."""
    record = history.state.sessions_open.records()[-1]
    session = record.session
    pings = [encode(Command(session, session, 1_000_000, 0, Ping(()), proof=proof_of(record.key)))]
    history.state.apply(history.state.applied_upto + 1, Batch(history.term, history.elapsed_ms + 1, tuple(pings)))
    assert session in history.state.sessions_open.changed
    tables.save(history.state)


def replaced(history: LeaseHistory, tables: LeaseTables) -> None:
    history.apply_some(20)
    tables.replace(history.state)


@pytest.mark.parametrize("change", [much_changed, one_session_pinged, replaced])
def test_p1_lease_tables_of_which_the_disk_lost_the_write_of_a_page_stop_the_node(
    tmp_path: Path, chance: random.Random, change: Callable[[LeaseHistory, LeaseTables], None]
) -> None:
    """P1: with leases that ended, or without those that were renewed, the node would differ from the others."""
    path = tmp_path / "data"
    file = path / "leases.db"
    with DataDirectory(path, ALICE) as directory, directory.open_lease_tables() as tables:
        history = LeaseHistory(chance, tables.load())
        history.apply_some(200)
        tables.save(history.state)
    before = file.read_bytes()
    with DataDirectory(path, ALICE) as directory, directory.open_lease_tables() as tables:
        history.state = tables.load()
        change(history, tables)
        expected = tables.load().snapshot()
    noticed = 0
    for page in with_each_page_of(before, file):
        try:
            with DataDirectory(path, ALICE) as directory, directory.open_lease_tables() as tables:
                assert tables.load().snapshot() == expected, f"page {page}"
        except Corrupt:
            noticed += 1
    assert noticed >= 2


def test_p2_a_directory_that_forgot_whom_it_met_or_that_it_was_made_stops_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken for one that was never completed, it would throw its journal away."""
    path = tmp_path / "data"
    file = path / "node.db"
    with monkeypatch.context() as dying:
        dying.setattr(DataDirectory, "_write_roster", lambda *_: None)
        DataDirectory(path, ALICE).close()
    former = [file.read_bytes()]
    for node in (1, 2, 3):
        with DataDirectory(path, ALICE) as directory:
            assert directory.fresh == (node == 1)
            assert directory.meet(node, directory.incarnation)
        former.append(file.read_bytes())
    shutil.copytree(path, tmp_path / "original")
    for before in former[:-1]:
        noticed = 0
        for _ in with_each_page_of(before, file):
            with pytest.raises((Corrupt, ForeignDatabase), match="leave node 1 out"):
                DataDirectory(path, ALICE)
            noticed += 1
        assert noticed == 2
    DataDirectory(path, ALICE).close()
