"""The data directory: one process, one node, one life; and every refusal names the file and the remedy."""

import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lessor.core.encoding import INT_MAX
from lessor.core.errors import Corrupt, ForeignDatabase
from lessor.storage import directory as module
from lessor.storage.directory import DataDirectory, Identity
from lessor.storage.failures import StorageFailed

from .histories import ALICE, LeaseHistory, vote

BOB = Identity("lessor", 2, (1, 2, 3))
DATABASES = ("node.db", "journal.db", "leases.db")


def remove(path: Path) -> None:
    for part in ("", "-wal", "-shm"):
        path.with_name(path.name + part).unlink(missing_ok=True)


def change(path: Path, statement: str) -> None:
    shell = sqlite3.connect(path)
    with shell:
        shell.execute(statement)
    shell.close()


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


def test_nobody_but_the_user_of_the_node_can_read_a_directory_made_by_it(directory: DataDirectory) -> None:
    """It holds the keys of sessions, and who has a key is the session."""
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700


def test_an_opening_that_was_interrupted_at_any_point_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as no opening has returned nothing was promised, so the node need not be replaced."""

    class Killed(BaseException):
        pass

    steps: list[Callable[..., object]] = []

    def stop_at(count: int) -> Callable[[str, object], None]:
        def traced(_: str, arguments: object) -> None:
            del arguments

        return traced

    del steps, stop_at
    points = (
        (module.DataDirectory, "_claim"),
        (module.DataDirectory, "_complete"),
        (module.Journal, "create"),
        (module.LeaseTables, "create"),
        (module, "_sync_directory"),
        (module.DataDirectory, "_require_the_others"),
    )
    for number, (owner, name) in enumerate(points):
        path = tmp_path / str(number)
        path.mkdir()

        def die(*_: object, **__: object) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, die)
            with pytest.raises(Killed):
                DataDirectory(path, ALICE)
        with DataDirectory(path, ALICE) as directory:
            assert directory.fresh == (name != "_require_the_others")
            directory.open_journal().close()
