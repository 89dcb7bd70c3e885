"""A node that is killed in the middle of its commits has kept everything that it acknowledged (P2)."""

import random
from pathlib import Path

import pytest

from lessor.storage.directory import DataDirectory

from .histories import ALICE
from .processes import COMMIT, finish, run

pytestmark = pytest.mark.deep


def test_what_was_acknowledged_survives_a_kill_at_any_moment(tmp_path: Path, chance: random.Random) -> None:
    """P2, over several lives of one node: all that was acknowledged is there, without a gap; at most a commit more."""
    path = tmp_path / "data"
    acknowledged = 0
    for life in range(5):
        process = run(COMMIT, path, chance.randrange(1_000_000))
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(chance.choice((0, 1, 30, 300, 600)))]
        process.kill()
        rest, errors = finish(process)
        assert errors == ""
        acknowledged = max([acknowledged, *map(int, lines), *map(int, rest.split())])
        with DataDirectory(path, ALICE) as directory, directory.open_journal() as journal:
            contents = journal.load()
        slots = [vote.slot for vote in contents.votes]
        assert slots == list(range(contents.truncated_upto + 1, contents.truncated_upto + 1 + len(slots)))
        last = slots[-1] if slots else contents.truncated_upto
        assert acknowledged <= last <= acknowledged + 9, f"life {life}"
        assert contents.watermark[1] == last  # written in the same transaction as its votes
        assert all(set(vote.entry) <= set(b"%d" % vote.slot) for vote in contents.votes)
        acknowledged = last
