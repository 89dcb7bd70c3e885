"""Programs that the storage tests run in processes of their own, to be killed or to hit limits."""

import os
import subprocess
import sys
from pathlib import Path

PRELUDE = """
import os, random, resource, sys
from pathlib import Path
from lessor.core.ballot import Ballot
from lessor.core.messages import *
from lessor.storage.directory import DataDirectory, Identity
from lessor.storage.failures import StorageFailed
ALICE = Identity("lessor", 1, (1, 2, 3))
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def vote(slot, entry):
    return WriteVote(Vote(slot, Ballot(1, 1), entry))
"""

HOLD = """
with DataDirectory(sys.argv[1], ALICE):
    say("open")
    sys.stdin.read()
"""

# Die in the middle of making a directory, each child after one more line of our code than the child before it.
DIE_WHILE_MAKING = """
def die_after(lines):
    def trace(frame, event, argument):
        nonlocal lines
        if "storage" not in frame.f_code.co_filename:
            return None
        if event == "line":
            lines -= 1
            if lines == 0:
                os._exit(9)
        return trace
    return trace

step = int(sys.argv[2])
lines, code = 1 + int(sys.argv[3]) % step, 9
while code == 9:
    child = os.fork()
    if child == 0:
        sys.settrace(die_after(lines))
        DataDirectory(Path(sys.argv[1], str(lines)), ALICE)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    say(lines, code)
    lines += step
"""

# Commit without end, and say each slot once it is durable.
COMMIT = """
chance = random.Random(int(sys.argv[2]))
with DataDirectory(sys.argv[1], ALICE) as directory, directory.open_journal() as journal:
    contents = journal.load()
    slot = contents.votes[-1].slot if contents.votes else contents.truncated_upto
    while True:
        writes = []
        for _ in range(chance.choice((1, 1, 3, 9))):
            slot += 1
            writes.append(vote(slot, b"%d" % slot * chance.randint(1, 2_000)))
        if chance.random() < 0.1:
            writes.append(Truncate(max(0, slot - 200)))
        writes.append(WriteWatermark(Ballot(1, 1), slot))
        journal.commit(writes)
        say(slot)
"""

# Commit until files may not grow any more, then try again, and say what came of it.
FILL = """
with DataDirectory(sys.argv[1], ALICE) as directory, directory.open_journal() as journal:
    largest = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    slot = 0
    while True:
        try:
            journal.commit([vote(slot + 1, b"%d" % (slot + 1) * 500)])
        except StorageFailed as error:
            say("failed:", error)
            break
        slot += 1
        say(slot)
    for attempt in ([vote(slot + 1, b"")], [Truncate(slot)], []):
        try:
            journal.commit(attempt) if attempt else journal.load()
            say("succeeded")
        except StorageFailed as error:
            say("again:", error)
    os._exit(0)
"""


def run(program: str, *arguments: object) -> "subprocess.Popen[str]":
    """Start a program with the same interpreter; its output can be read line by line."""
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )


def finish(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Return what is left of both outputs of a program that ends, also after lines of it were read."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        process.stdin.close()
        return process.stdout.read(), process.stderr.read()


def copy_of(directory: Path, to: Path) -> Path:
    """What a crash at this moment would leave of a data directory."""
    to.mkdir()
    for path in directory.iterdir():
        if not path.name.endswith("-shm"):  # rebuilt from the log at the first opening after a crash
            (to / path.name).write_bytes(path.read_bytes())
    return to
