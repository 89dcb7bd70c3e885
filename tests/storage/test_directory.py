"""The data directory: one process, one node, one life; and every refusal names the file and the remedy."""

import errno
import os
import random
import re
import shutil
import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from lessor.core.encoding import INT_MAX
from lessor.core.errors import Corrupt, ForeignDatabase
from lessor.storage.directory import DataDirectory, Identity
from lessor.storage.failures import StorageFailed, StorageForbidden, unusable

from .histories import ALICE, LeaseHistory, vote
from .processes import DIE_WHILE_MAKING, HOLD, finish, run

DATABASES = ("node.db", "journal.db", "leases.db")


def remove(path: Path) -> None:
    for part in ("", "-wal", "-shm"):
        path.with_name(path.name + part).unlink(missing_ok=True)


def change(path: Path, statement: str) -> None:
    shell = sqlite3.connect(path)
    with shell:
        shell.execute(statement)
    shell.close()


def made(path: Path, identity: Identity = ALICE) -> Path:
    DataDirectory(path, identity).close()
    return path


# --- the first opening -----------------------------------------------------------------------------------------------


def test_a_directory_is_made_once_and_keeps_its_incarnation(tmp_path: Path) -> None:
    path = tmp_path / "some" / "new" / "place"
    with DataDirectory(path, ALICE) as directory:
        assert directory.fresh
        incarnation = directory.incarnation
        assert 0 < incarnation <= INT_MAX
    with DataDirectory(str(path), ALICE) as directory:
        assert not directory.fresh
        assert directory.incarnation == incarnation
    with DataDirectory(tmp_path / "other", ALICE) as directory:
        assert directory.incarnation != incarnation


def test_nobody_but_its_user_can_read_a_directory_that_a_node_made(directory: DataDirectory) -> None:
    """It holds the keys of sessions, and who has the key is the session."""
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700


def test_a_first_opening_that_was_killed_at_any_line_is_taken_up_again(tmp_path: Path, seed: int) -> None:
    """As long as no opening has returned nothing was promised, so the node need not be replaced."""
    process = run(DIE_WHILE_MAKING, tmp_path, 37, seed)
    out, err = finish(process)
    outcomes = [line.split() for line in out.splitlines()]
    assert len(outcomes) > 10, err
    assert outcomes[-1][1] == "0", err
    taken_up = 0
    for lines, _ in outcomes:
        with DataDirectory(tmp_path / lines, ALICE) as directory:
            taken_up += directory.fresh
            with directory.open_journal() as journal, directory.open_lease_tables() as tables:
                journal.commit([vote(1)])
                assert len(journal.load().votes) == 1
                assert tables.load().applied_upto == 0
    assert 10 < taken_up < len(outcomes)


def test_a_directory_that_cannot_be_made_is_said_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match=r"cannot use the data directory .*/data: Not a directory; .*--data"):
        DataDirectory(tmp_path / "file" / "data", ALICE)
    with pytest.raises(StorageFailed, match=r"cannot use the data directory .*file: Not a directory; .*--data"):
        DataDirectory(tmp_path / "file", ALICE)


def test_what_may_not_be_written_is_an_operator_s_to_mend_and_a_full_disk_is_not(tmp_path: Path) -> None:
    """A supervisor starts a node again after the one, and not after the other."""
    for number in (errno.EACCES, errno.EPERM, errno.EROFS):
        assert isinstance(unusable(OSError(number, os.strerror(number)), tmp_path), StorageForbidden)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE):
        assert type(unusable(OSError(number, os.strerror(number)), tmp_path)) is StorageFailed


# --- one process -----------------------------------------------------------------------------------------------------


def test_a_second_process_is_told_who_uses_the_directory(tmp_path: Path) -> None:
    process = run(HOLD, tmp_path / "data")
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    with pytest.raises(ForeignDatabase, match=f"data is in use by process {process.pid}: end that process"):
        DataDirectory(tmp_path / "data", ALICE)
    finish(process)
    DataDirectory(tmp_path / "data", ALICE).close()


def test_a_second_opening_in_the_same_process_is_refused(directory: DataDirectory) -> None:
    for _ in range(2):  # the refused one must not take the lock with it
        with pytest.raises(ForeignDatabase, match="in use by process"):
            DataDirectory(directory.path, ALICE)


def test_a_killed_process_leaves_no_lock_behind(tmp_path: Path) -> None:
    process = run(HOLD, tmp_path / "data")
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    finish(process)
    DataDirectory(tmp_path / "data", ALICE).close()


def test_closing_twice_is_the_same_as_closing_once(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data", ALICE)
    directory.close()
    with DataDirectory(tmp_path / "data", ALICE):
        directory.close()  # must not close what belongs to the second one
        with pytest.raises(ForeignDatabase, match="in use"):
            DataDirectory(tmp_path / "data", ALICE)


# --- one node, one cluster -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        (Identity("lessor", 2, (1, 2, 3)), "belongs to node 1 of cluster 'lessor', this is node 2 of cluster 'lessor'"),
        (Identity("other", 1, (1, 2, 3)), "belongs to node 1 of cluster 'lessor', this is node 1 of cluster 'other'"),
        (Identity("lessor", 1, (1, 2)), "belongs to a cluster of the nodes 1, 2, 3, this is one of 1, 2"),
        (Identity("lessor", 1, (1, 2, 3, 4)), "belongs to a cluster of the nodes 1, 2, 3, this is one of 1, 2, 3, 4"),
    ],
)
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path, identity: Identity, said: str) -> None:
    path = made(tmp_path / "data")
    with pytest.raises(ForeignDatabase, match=rf"node\.db {said}:.* give --data another directory"):
        DataDirectory(path, identity)
    with DataDirectory(path, ALICE) as directory:  # and nothing about it was changed
        assert not directory.fresh


def test_the_order_in_which_members_are_named_does_not_matter(tmp_path: Path) -> None:
    path = made(tmp_path / "data")
    made(path, Identity("lessor", 1, (3, 1, 2)))


@pytest.mark.parametrize("name", DATABASES)
def test_a_file_of_another_node_in_this_directory_is_refused(tmp_path: Path, name: str) -> None:
    mine, other = made(tmp_path / "1"), made(tmp_path / "2", Identity("lessor", 2, (1, 2, 3)))
    shutil.copy(other / name, mine / name)
    with pytest.raises(ForeignDatabase, match=rf"{name} belongs to node 2 of cluster 'lessor', this is node 1"):
        DataDirectory(mine, ALICE)


# --- one life --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATABASES)
def test_a_node_that_lost_a_file_does_not_come_back(tmp_path: Path, name: str) -> None:
    """DESIGN §4: it has forgotten its promises. It must not come back on the second attempt either."""
    path = made(tmp_path / "data")
    remove(path / name)
    for _ in range(2):
        with pytest.raises(
            ForeignDatabase,
            match=rf"{name} is not there: .*must not come back as node 1: leave node 1 out",
        ):
            DataDirectory(path, ALICE)


def test_a_node_that_lost_all_but_one_file_does_not_come_back(tmp_path: Path) -> None:
    for kept in DATABASES:
        path = made(tmp_path / kept)
        for name in DATABASES:
            if name != kept:
                remove(path / name)
        with pytest.raises(ForeignDatabase, match="must not come back as node 1"):
            DataDirectory(path, ALICE)


@pytest.mark.parametrize("name", DATABASES)
def test_a_file_of_another_life_of_the_same_node_is_refused(tmp_path: Path, name: str) -> None:
    """As after a journal was made anew, or put back from a copy of the directory that was there before."""
    path, former = made(tmp_path / "data"), made(tmp_path / "former")
    shutil.copy(former / name, path / name)
    with pytest.raises(ForeignDatabase, match=r"\.db belongs to another life of the node.*leave node 1 out"):
        DataDirectory(path, ALICE)


@pytest.mark.parametrize("name", DATABASES)
def test_an_emptied_file_stops_the_node(tmp_path: Path, name: str) -> None:
    path = made(tmp_path / "data")
    (path / name).write_bytes(b"")
    with pytest.raises((Corrupt, ForeignDatabase), match=rf"{name} is .*leave node 1 out"):
        DataDirectory(path, ALICE)


@pytest.mark.parametrize("name", DATABASES)
def test_files_that_are_no_databases_of_ours_stop_the_node(tmp_path: Path, name: str) -> None:
    for number, content in enumerate((b"hello", b"hello" * 1_000, bytes(8_192))):
        path = made(tmp_path / str(number))
        (path / name).write_bytes(content)
        with pytest.raises(Corrupt, match=rf"{name} is damaged: .*leave node 1 out"):
            DataDirectory(path, ALICE)


def test_databases_that_changed_places_stop_the_node(tmp_path: Path) -> None:
    path = made(tmp_path / "data")
    shutil.copy(path / "leases.db", path / "journal.db")
    with pytest.raises(Corrupt, match=r"journal\.db is damaged"):
        DataDirectory(path, ALICE)


# --- versions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATABASES)
def test_a_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    path = made(tmp_path / "data")
    kind = name.removesuffix(".db")
    change(
        path / name,
        f"INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('lessor.{kind}', 'm002_more', '')",
    )
    with pytest.raises(ForeignDatabase, match=rf"{name} has schema version 3, this version of lessor knows 2"):
        DataDirectory(path, ALICE)
    change(path / name, "DELETE FROM _sqlite_migrations WHERE name = 'm002_more'")
    made(path)


@pytest.mark.parametrize("name", DATABASES)
def test_tables_that_are_not_ours_are_refused(tmp_path: Path, name: str) -> None:
    """A trigger would change what is written behind the node's back."""
    path = made(tmp_path / "data")
    change(path / name, "CREATE TRIGGER helpful AFTER INSERT ON meta BEGIN DELETE FROM meta; END")
    with pytest.raises(Corrupt, match=rf"{name} holds what lessor did not make: trigger helpful.* by hand, drop it"):
        DataDirectory(path, ALICE)
    change(path / name, "DROP TRIGGER helpful")
    change(path / name, "ALTER TABLE meta RENAME COLUMN cluster TO claster")
    with pytest.raises(Corrupt, match=rf"{name} is damaged: its tables are not ours"):
        DataDirectory(path, ALICE)


# --- the roster ------------------------------------------------------------------------------------------------------


def test_a_peer_is_known_by_the_incarnation_it_was_first_met_with(tmp_path: Path) -> None:
    """A peer that lost its directory comes back with another one, and is not believed to be the same."""
    with DataDirectory(tmp_path / "data", ALICE) as directory:
        assert directory.known_incarnation(2) is None
        assert directory.meet(2, 77)
        assert directory.meet(2, 77)
        assert not directory.meet(2, 78)
        assert directory.known_incarnation(2) == 77
    with DataDirectory(tmp_path / "data", ALICE) as directory:
        assert directory.known_incarnation(2) == 77
        assert not directory.meet(2, 78)
        assert directory.meet(2, 77)
        assert directory.meet(3, INT_MAX)


def test_a_node_knows_itself(directory: DataDirectory) -> None:
    assert directory.known_incarnation(1) == directory.incarnation
    assert directory.meet(1, directory.incarnation)
    assert not directory.meet(1, directory.incarnation ^ 1)


@pytest.mark.parametrize(("node", "incarnation"), [(4, 1), (0, 1), (-1, 1), (2**70, 1), (2, 0), (2, -1), (2, 2**63)])
def test_whoever_is_no_member_is_not_met(directory: DataDirectory, node: int, incarnation: int) -> None:
    """P11: what a socket brings neither fills the roster nor stops the node."""
    assert not directory.meet(node, incarnation)
    assert directory.known_incarnation(node) is None


def test_a_first_meeting_is_durable_before_it_is_answered(directory: DataDirectory) -> None:
    """P2."""
    statements: list[str] = []
    directory._database.connection.set_trace_callback(statements.append)
    assert directory.meet(2, 5)
    words = [re.split(r"\W", statement)[0] for statement in statements]
    assert words == ["BEGIN", "INSERT", "SELECT", "INSERT", "COMMIT"]
    assert directory._database.connection.execute("PRAGMA synchronous").fetchone() == (2,)
    statements.clear()
    assert directory.meet(2, 5)
    assert statements == []  # it is asked for each packet


def test_many_threads_that_meet_one_peer_agree_on_who_it_is(directory: DataDirectory, chance: random.Random) -> None:
    incarnations = chance.sample(range(1, INT_MAX), 16)
    barrier = threading.Barrier(len(incarnations))
    believed: list[int] = []

    def meet(incarnation: int) -> None:
        barrier.wait()
        if directory.meet(2, incarnation):
            believed.append(incarnation)

    threads = [threading.Thread(target=meet, args=(incarnation,)) for incarnation in incarnations]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert believed == [directory.known_incarnation(2)]


def test_the_databases_are_used_by_the_thread_that_opened_them(directory: DataDirectory, chance: random.Random) -> None:
    """The acceptor's and the learner's; the lock of the directory belongs to the process."""
    seen: list[int] = []

    def acceptor() -> None:
        with directory.open_journal() as journal:
            journal.commit([vote(1)])
            seen.append(len(journal.load().votes))

    def learner() -> None:
        with directory.open_lease_tables() as tables:
            history = LeaseHistory(chance, tables.load())
            history.apply_some(50)
            tables.save(history.state)
            seen.append(tables.load().applied_upto)

    for work in (acceptor, learner):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seen == [1, 50]


def test_p2_a_directory_that_was_removed_under_its_node_is_noticed(tmp_path: Path) -> None:
    """What is synced to files that nobody will find again is not durable."""
    with DataDirectory(tmp_path / "data", Identity("lessor", 1, (1,))) as directory:
        directory.check()
        (tmp_path / "data").rename(tmp_path / "elsewhere")
        with pytest.raises(StorageFailed, match="removed or replaced"):
            directory.check()
