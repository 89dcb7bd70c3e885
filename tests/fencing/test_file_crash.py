"""A writer that is killed at any moment leaves the old content or the new, and a fence that still holds."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from lessor.fencing import FileGuard, StaleToken, guarded_write

pytestmark = pytest.mark.deep

# Each child dies by SIGKILL before one more line of the guard than the child before it.
DIE_AT_EACH_LINE = """
import os, signal, sys
from pathlib import Path
from lessor.fencing import guarded_write

def die_after(lines):
    def trace(frame, event, argument):
        nonlocal lines
        if not frame.f_code.co_filename.endswith("fencing/file.py"):
            return None
        if event == "line":
            lines -= 1
            if lines == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace
    return trace

lines = 1
while True:
    path = Path(sys.argv[1], str(lines), "report.csv")
    path.parent.mkdir()
    guarded_write(path, b"old" * 10_000, 7)
    child = os.fork()
    if child == 0:
        sys.settrace(die_after(lines))
        guarded_write(path, b"new" * 10_000, 8)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
    lines += 1
"""
WRITE_FOR_EVER = """
import itertools, sys
from lessor.fencing import FileGuard

guard = FileGuard(sys.argv[1])
for token in itertools.count(guard.newest() + 1):
    guard.write(b"%08d" % token * 50_000, token)
    print(token, flush=True)
"""


def test_a_kill_at_any_line_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """And no older token gets in after it, nor is a draft left after the next write."""
    subprocess.run([sys.executable, "-c", DIE_AT_EACH_LINE, tmp_path], check=True)
    outcomes = set()
    for directory in tmp_path.iterdir():
        path = directory / "report.csv"
        content, newest = path.read_bytes(), FileGuard(path).newest()
        outcomes.add((content[:3], newest))
        assert content in (b"old" * 10_000, b"new" * 10_000)
        with pytest.raises(StaleToken):
            guarded_write(path, b"older", 6)
        if newest == 8:
            with pytest.raises(StaleToken):
                guarded_write(path, b"old again", 7)
        guarded_write(path, b"newer", 9)
        assert path.read_bytes() == b"newer"
        assert {entry.suffix for entry in (directory / "report.csv.fence").iterdir()} == {"", ".token"}
    # content is never newer than its token; and each of the moments was met
    assert outcomes == {(b"old", 7), (b"old", 8), (b"new", 8)}


def test_each_step_is_on_the_disk_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill loses nothing that was written and not synced, but a power failure does."""
    steps = []
    fsync, replace = os.fsync, Path.replace

    def recorded_fsync(descriptor: int) -> None:
        steps.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def recorded_replace(source: Path, target: Path) -> Path:
        steps.append(("replace", Path(target)))
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    guarded_write(tmp_path / "report.csv", b"new", 8)
    told = [(what, path.suffix or path.name) for what, path in steps]
    assert told == [
        ("sync", tmp_path.name),  # the directory of the fence is there
        ("sync", ".new"),
        ("replace", ".token"),
        ("sync", ".fence"),
        ("sync", ".draft"),
        ("replace", ".csv"),
        ("sync", tmp_path.name),
    ]


def test_a_kill_at_a_random_moment_leaves_a_whole_file(tmp_path: Path, chance: random.Random) -> None:
    """What was said to be written stays; at most one write more is there."""
    path = tmp_path / "report.csv"
    said = 0
    for _ in range(6):
        child = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, path], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        with child:
            lines = [child.stdout.readline() for _ in range(chance.randint(1, 20))]
            child.kill()
            lines += child.stdout.readlines()
        said = int(lines[-1])
        content = path.read_bytes()
        assert content == content[:8] * 50_000
        assert said <= int(content[:8]) <= said + 1
        assert FileGuard(path).newest() in (int(content[:8]), int(content[:8]) + 1)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["report.csv", "report.csv.fence"]
