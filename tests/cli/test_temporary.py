"""Directories that are there for a while: no signal, however early, leaves one behind."""

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

from lessor.cli import exit_codes
from lessor.cli.temporary import temporary_directory


def test_it_is_removed_at_the_end_unless_it_is_kept(tmp_path: Path) -> None:
    with temporary_directory("a-", tmp_path) as made:
        (made.path / "file").touch()
    with temporary_directory("b-", tmp_path) as kept:
        kept.keep = True
    assert list(tmp_path.iterdir()) == [kept.path]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_while_it_is_made_leaves_nothing(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = tempfile.mkdtemp

    def interrupted(*arguments: Any, **options: Any) -> str:
        path = str(make(*arguments, **options))
        os.kill(os.getpid(), number)
        return path

    monkeypatch.setattr(tempfile, "mkdtemp", interrupted)
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for each in before:
        signal.signal(each, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt) as caught, temporary_directory("a-", tmp_path):
            raise AssertionError("the block must not begin")
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert exit_codes.of_interrupt(caught.value) == exit_codes.SIGNALLED + number
    assert list(tmp_path.iterdir()) == []
