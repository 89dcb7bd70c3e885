"""The guard of files: the newest token wins, whoever stands still in between and however many write at once."""

import fcntl
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lessor.client.sync import Lease
from lessor.core.errors import BadRequest, Corrupt
from lessor.fencing import FileGate, FileGuard, GuardBusy, StaleToken, guarded_write

from .conftest import Overtake

WRITE = """
def write(lease, path):
    guarded_write(path, b"%d by the first" % lease.token, lease.token)
"""
# The file is opened before the pause and closed after it.
WRITE_SLOWLY = """
opened = []

def write(lease, path):
    if not opened:
        opened.append(FileGuard(path).open(lease.token))
        opened.append(opened[0].__enter__())
        opened[1].write(b"half of it, ")
    else:
        opened[1].write(b"and the rest")
        opened[0].__exit__(None, None, None)
"""
WRITE_ALL = """
import sys
from lessor.fencing import StaleToken, guarded_write

for token in sys.argv[2:]:
    try:
        guarded_write(sys.argv[1], token.encode() * 5_000, int(token))
    except StaleToken:
        pass
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "report.csv"


@pytest.mark.parametrize("write", [pytest.param(WRITE, id="at once"), pytest.param(WRITE_SLOWLY, id="over the pause")])
def test_a_paused_holder_that_wakes_up_cannot_replace_the_file(overtake: Overtake, path: Path, write: str) -> None:
    """P3, P5; and a holder that stops while it writes keeps nobody else from writing."""

    def write_as_second(lease: Lease) -> None:
        guarded_write(path, b"by the second", lease.token)

    assert overtake(write, path, write_as_second=write_as_second).refused
    assert path.read_bytes() == b"by the second"


def test_an_older_token_changes_nothing(path: Path) -> None:
    guarded_write(path, b"new", 7)
    with pytest.raises(StaleToken) as refused:
        guarded_write(path, b"old", 6)
    assert (refused.value.token, refused.value.newest) == (6, 7)
    assert path.read_bytes() == b"new"
    assert FileGuard(path).newest() == 7


def test_the_same_token_writes_again(path: Path) -> None:
    guard = FileGuard(path)
    guard.write(b"one", 7)
    guard.write(b"two", 7)
    assert path.read_bytes() == b"two"


def test_opening_shuts_older_holders_out_before_anything_is_written(path: Path) -> None:
    guard = FileGuard(path)
    with guard.open(7) as file:
        file.write(b"new")
        with pytest.raises(StaleToken):
            guard.write(b"old", 6)
    assert path.read_bytes() == b"new"


def test_a_body_that_fails_leaves_the_content_and_no_draft(path: Path) -> None:
    guard = FileGuard(path)
    guard.write(b"before", 7)
    with pytest.raises(ZeroDivisionError), guard.open(8) as file:
        raise ZeroDivisionError(file.write(b"half"))
    assert path.read_bytes() == b"before"
    assert guard.newest() == 8
    assert list(path.with_name("report.csv.fence").glob("*.draft")) == []


def test_a_writer_leaves_the_draft_of_another_that_lives(path: Path) -> None:
    """Two writers of one holder, whose token is the same: the one that ends last wins."""
    guard = FileGuard(path)
    with guard.open(7) as file:
        guard.write(b"first to end", 7)
        file.write(b"last to end")
    assert path.read_bytes() == b"last to end"


def test_a_reader_that_has_begun_reads_the_old_content_to_its_end(path: Path) -> None:
    """The file is replaced and never written into, so no moment shows a part of it."""
    guarded_write(path, b"old", 7)
    with path.open("rb") as reader:
        guarded_write(path, b"new", 8)
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"


def test_a_link_and_its_file_have_one_fence(tmp_path: Path, path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    guarded_write(path, b"new", 7)
    with pytest.raises(StaleToken):
        guarded_write(link, b"old", 6)
    guarded_write(link, b"newer", 8)
    assert link.is_symlink()
    assert path.read_bytes() == b"newer"


def test_the_file_keeps_its_mode(path: Path) -> None:
    path.write_bytes(b"before")
    path.chmod(0o640)
    guarded_write(path, b"after", 1)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("content", [b"", b"7", b"x\n", b"-1\n", b"7\n8\n", b"9" * 30 + b"\n"])
def test_a_token_that_cannot_be_read_lets_nobody_write(path: Path, content: bytes) -> None:
    guard = FileGuard(path)
    guard.write(b"before", 7)
    next(path.with_name("report.csv.fence").glob("*.token")).write_bytes(content)
    with pytest.raises(Corrupt):
        guard.write(b"after", 8)
    assert path.read_bytes() == b"before"


def test_a_lock_that_is_never_let_go_is_told_and_nothing_is_written(path: Path) -> None:
    """P10: no wait is without end."""
    guard = FileGuard(path, timeout=0)
    guard.write(b"before", 7)
    with path.with_name("report.csv.fence").joinpath("lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(GuardBusy):
            guard.write(b"after", 8)
    assert (path.read_bytes(), guard.newest()) == (b"before", 7)
    guard.write(b"after", 8)


def test_a_bad_token_is_refused_before_anything_is_made(path: Path) -> None:
    with pytest.raises(BadRequest):
        guarded_write(path, b"x", 0)
    assert list(path.parent.iterdir()) == []


def test_names_of_any_kind_share_a_directory_of_tokens(tmp_path: Path) -> None:
    gate = FileGate(tmp_path / "tokens")
    names = ["a", "../a", "a/b", "x" * 1000, "Ä", "\0"]
    for token, name in enumerate(names, start=1):
        gate.admit(name, token)
    assert [FileGate(tmp_path / "tokens").newest(name) for name in names] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(StaleToken):
        gate.admit("Ä", 4)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["tokens"]


def test_many_processes_with_mixed_tokens_end_with_the_highest(path: Path, chance: random.Random) -> None:
    """The content that a reader sees is always whole, and its token never falls."""
    tokens = [chance.randint(1_000, 9_999) for _ in range(240)]
    children = [
        subprocess.Popen([sys.executable, "-c", WRITE_ALL, path, *map(str, tokens[start::4])]) for start in range(4)
    ]
    seen = [0]
    while any(child.poll() is None for child in children):
        if path.exists():
            content = path.read_bytes()
            assert content == content[:4] * 5_000
            seen.append(int(content[:4]))
    assert [child.returncode for child in children] == [0, 0, 0, 0]
    assert seen == sorted(seen)
    assert path.read_bytes() == str(max(tokens)).encode() * 5_000
    assert FileGuard(path).newest() == max(tokens)


def test_many_threads_with_mixed_tokens_end_with_the_highest(path: Path, chance: random.Random) -> None:
    """Each thread has a guard of its own or shares one: a lock of a file is of the open file, not of the process."""
    shared = FileGuard(path)
    tokens = [chance.randint(1_000, 9_999) for _ in range(160)]
    failed: list[BaseException] = []

    def write(mine: list[int]) -> None:
        for place, token in enumerate(mine):
            try:
                (shared if place % 2 else FileGuard(path)).write(b"%d" % token, token)
            except StaleToken:
                pass
            except BaseException as error:
                failed.append(error)
                raise

    threads = [threading.Thread(target=write, args=(tokens[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert path.read_bytes() == b"%d" % max(tokens)
