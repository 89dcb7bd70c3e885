"""Damaged files: a load returns exactly what was written, or it raises `Corrupt`, never anything else.

The one exception cannot be helped: damage to the end of a write-ahead log looks like a torn write. `LESSOR_DAMAGES=400`
damages each file as often as that.
"""

import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lessor.core.errors import Corrupt
from lessor.storage.database import Owner
from lessor.storage.directory import DataDirectory
from lessor.storage.journal import Journal, JournalContents
from lessor.storage.lease_tables import LeaseTables

from .histories import ALICE, LeaseHistory, ModelJournal, journal_writes, vote
from .processes import copy_of

pytestmark = pytest.mark.deep

Damage = Callable[[random.Random, bytearray], str]
DAMAGES_OF_A_FILE = int(os.environ.get("LESSOR_DAMAGES", "15"))


def flip_a_byte(chance: random.Random, data: bytearray) -> str:
    place, change = chance.randrange(len(data)), chance.randint(1, 255)
    while data[place] == 0 and chance.random() < 0.9:  # of the large empty spaces some will do
        place = chance.randrange(len(data))
    data[place] ^= change
    return f"byte {place} ^= {change}"


def flip_a_bit_of_the_first_page(chance: random.Random, data: bytearray) -> str:
    place, change = chance.randrange(min(4096, len(data))), 1 << chance.randrange(8)
    data[place] ^= change
    return f"byte {place} ^= {change}"


def lose_a_sector(chance: random.Random, data: bytearray) -> str:
    place = chance.randrange(len(data) // 512) * 512
    data[place : place + 512] = bytes(512)
    return f"sector at {place} zeroed"


def swap_two_pages(chance: random.Random, data: bytearray) -> str:
    one, other = (chance.randrange(len(data) // 4096) * 4096 for _ in range(2))
    data[one : one + 4096], data[other : other + 4096] = data[other : other + 4096], data[one : one + 4096]
    return f"pages at {one} and {other} swapped"


def cut_the_end_off(chance: random.Random, data: bytearray) -> str:
    length = chance.randrange(len(data))
    del data[length:]
    return f"cut to {length} bytes"


DAMAGES = [flip_a_byte, flip_a_bit_of_the_first_page, lose_a_sector, swap_two_pages, cut_the_end_off]


def damaged_copies(
    original: Path, place: Path, name: str, chance: random.Random, damage: Damage, noticed: list[str]
) -> Iterator[tuple[Path, str]]:
    """Copies of a data directory of which one file was damaged, with what was done to it.

    Much of a file is empty or free, so there are some and then more, until the caller has `noticed` some damage.
    """
    sound = (original / name).read_bytes()
    for number in range(DAMAGES_OF_A_FILE + 1_000):
        if number >= DAMAGES_OF_A_FILE and noticed:
            return
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(original, place)
        data = bytearray(sound)
        what = damage(chance, data)
        if data != sound:
            (place / name).write_bytes(data)
            yield place, f"{name}: {what}"
    pytest.fail("the damage never mattered")


def read_journal(path: Path, owner: Owner) -> JournalContents | Corrupt:
    try:
        with Journal(path / "journal.db", owner) as journal:
            return journal.load()
    except Corrupt as error:
        return error


def read_leases(path: Path, owner: Owner) -> bytes | Corrupt:
    try:
        with LeaseTables(path / "leases.db", owner) as tables:
            return tables.load().snapshot()
    except Corrupt as error:
        return error


def says_what_to_do(error: Corrupt, path: Path) -> bool:
    return str(path) in str(error) and "leave node 1 out" in str(error)


@pytest.mark.parametrize("crashed", [False, True], ids=["closed", "crashed"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_journal_is_noticed(tmp_path: Path, chance: random.Random, damage: Damage, *, crashed: bool) -> None:
    model = ModelJournal()
    with DataDirectory(tmp_path / "data", ALICE) as directory:
        owner = directory._owner
        with directory.open_journal() as journal:
            for writes in itertools.islice(journal_writes(chance), 60):
                journal.commit(writes)
                model.commit(writes)
            if crashed:  # part of it is in the database and all of it in the log
                journal._database.checkpoint("PASSIVE")
                copy_of(directory.path, tmp_path / "original")
    if not crashed:
        copy_of(tmp_path / "data", tmp_path / "original")
    # where the log holds everything it heals all damage
    noticed = ["by the log"] if crashed else []
    for path, what in damaged_copies(tmp_path / "original", tmp_path / "copy", "journal.db", chance, damage, noticed):
        found = read_journal(path, owner)
        if isinstance(found, Corrupt):
            noticed.append(what)
            assert says_what_to_do(found, path / "journal.db")
            assert isinstance(read_journal(path, owner), Corrupt), f"{what}: forgotten at the second attempt"
        else:
            assert found == model.load(), what


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_lease_tables_are_noticed(tmp_path: Path, chance: random.Random, damage: Damage) -> None:
    with DataDirectory(tmp_path / "data", ALICE) as directory:
        owner = directory._owner
        with directory.open_lease_tables() as tables:
            history = LeaseHistory(chance, tables.load())
            for _ in range(6):
                history.apply_some(60)
                tables.save(history.state)
    snapshot = history.state.snapshot()
    noticed: list[str] = []
    for path, what in damaged_copies(tmp_path / "data", tmp_path / "copy", "leases.db", chance, damage, noticed):
        found = read_leases(path, owner)
        if isinstance(found, Corrupt):
            noticed.append(what)
            assert says_what_to_do(found, path / "leases.db")
        else:
            assert found == snapshot, what


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_roster_is_noticed(tmp_path: Path, chance: random.Random, damage: Damage) -> None:
    with DataDirectory(tmp_path / "data", ALICE) as directory:
        incarnation = directory.incarnation
        directory.meet(2, 5)
    noticed: list[str] = []
    for path, what in damaged_copies(tmp_path / "data", tmp_path / "copy", "node.db", chance, damage, noticed):
        try:
            with DataDirectory(path, ALICE) as directory:
                assert (directory.incarnation, directory.known_incarnation(2)) == (incarnation, 5), what
        except Corrupt:
            noticed.append(what)


# Damage to the last transaction looks like a torn write; so may the loss of the mark between it and the one before. A
# cut leaves nothing that could tell what was there.
ALLOWED_TO_BE_LOST: dict[Damage, int] = {flip_a_byte: 1, lose_a_sector: 2, swap_two_pages: 2, cut_the_end_off: 10_000}


@pytest.mark.parametrize("damage", ALLOWED_TO_BE_LOST)
def test_a_log_that_lost_what_was_acknowledged_is_noticed(
    tmp_path: Path, chance: random.Random, damage: Damage
) -> None:
    """P2: SQLite itself drops everything behind the damage, and says nothing."""
    states = [ModelJournal().load()]
    model = ModelJournal()
    with DataDirectory(tmp_path / "data", ALICE) as directory:
        owner = directory._owner
        with directory.open_journal() as journal:
            for writes in itertools.islice(journal_writes(chance), 60):
                journal.commit(writes)
                model.commit(writes)
                if writes:
                    states.append(model.load())
            copy_of(directory.path, tmp_path / "original")
    noticed = ["not wanted"] if damage is cut_the_end_off else []
    name = "journal.db-wal"
    for path, what in damaged_copies(tmp_path / "original", tmp_path / "copy", name, chance, damage, noticed):
        found = read_journal(path, owner)
        if isinstance(found, Corrupt):
            noticed.append(what)
            assert says_what_to_do(found, path / "journal.db")
            assert isinstance(read_journal(path, owner), Corrupt), f"{what}: forgotten at the second attempt"
        else:
            lost = min(number for number, state in enumerate(reversed(states)) if state == found)
            assert lost <= ALLOWED_TO_BE_LOST[damage], f"{what}: {lost} commits are gone"


def test_a_log_of_several_rounds_is_taken_for_whole(tmp_path: Path, chance: random.Random) -> None:
    """A log is overwritten from its start; what is left there of the round before is no damage."""
    history = journal_writes(chance)
    model = ModelJournal()
    with DataDirectory(tmp_path / "data", ALICE) as directory, directory.open_journal() as journal:
        for number in range(200):
            writes = next(history)
            journal.commit(writes)
            model.commit(writes)
            if number % 50 == 0:
                journal._database.checkpoint("PASSIVE")
            if number % 10 == 0:
                copy_of(directory.path, tmp_path / f"copy{number}")
                assert read_journal(tmp_path / f"copy{number}", directory._owner) == model.load()


def test_a_commit_that_a_power_failure_cut_short_is_no_damage(tmp_path: Path, chance: random.Random) -> None:
    """Of a commit that was not acknowledged any sectors may have reached the disk; the node starts as if none had."""
    history = (writes for writes in journal_writes(chance) if writes)
    log = "journal.db-wal"
    model = ModelJournal()
    forgotten = 0
    with DataDirectory(tmp_path / "data", ALICE) as directory, directory.open_journal() as journal:
        for number in range(4 * DAMAGES_OF_A_FILE):
            if chance.random() < 0.1:
                journal._database.checkpoint("PASSIVE")  # the next commit begins the log anew
            before, state_before = copy_of(directory.path, tmp_path / f"before{number}"), model.load()
            writes = [write for _ in range(chance.choice((1, 1, 8))) for write in next(history)]
            if number % 60 >= 58:  # more than SQLite keeps in memory until the commit
                writes += [vote(1_000_000 + more, entry=chance.randbytes(300_000)) for more in range(12)]
            journal.commit(writes)
            model.commit(writes)
            old, new = (before / log).read_bytes(), (directory.path / log).read_bytes()
            torn = bytearray(new)
            for sector in range(512, len(new), 512):  # the first one holds the header, which is synced on its own
                if chance.random() < 0.3:
                    torn[sector : sector + 512] = old[sector : sector + 512].ljust(512, b"\0")
            (before / log).write_bytes(torn[: len(new)])
            found = read_journal(before, directory._owner)
            assert found in (state_before, model.load()), f"commit {number}"
            forgotten += found == state_before
            shutil.rmtree(before)
    assert forgotten, "no commit was ever cut short"
