"""Running the `lessor` command, in this process or in one of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lessor.cli.dispatch import main

from ..support.children import as_from_a_terminal
from ..support.waiting import until


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


def run_main(capfd: pytest.CaptureFixture[str], *arguments: str) -> Done:
    """Run a command in this process; argparse ends with SystemExit, which is an exit code like another."""
    capfd.readouterr()
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    captured = capfd.readouterr()
    return Done(code, captured.out, captured.err)


def lessor_process(*arguments: str, options: tuple[str, ...] = (), **settings: Any) -> "subprocess.Popen[str]":
    """Start `python -m lessor`; `options` are those of Python."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | settings
    with as_from_a_terminal():
        return subprocess.Popen([sys.executable, *options, "-m", "lessor", *arguments], text=True, **streams)


def run_process(*arguments: str, options: tuple[str, ...] = (), timeout: float = 120, **settings: Any) -> Done:
    """Run `python -m lessor` to its end."""
    return finish(lessor_process(*arguments, options=options, **settings), timeout)


def finish(process: "subprocess.Popen[str]", timeout: float = 120) -> Done:
    with process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return Done(process.returncode, out or "", err or "")


def read_until(process: "subprocess.Popen[str]", words: str) -> str:
    """Read the stderr of a process up to the line that has these words in it."""
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if words in line:
            return seen
    raise AssertionError(f"it ended without saying {words!r}:\n{seen}")


def written(path: Path) -> str:
    """Wait until a file has a whole line in it, and return its text."""

    def whole() -> str | None:
        text = path.read_text() if path.exists() else ""
        return text if text.endswith("\n") else None

    return until(whole, f"{path} is written")


def gone(pid: int) -> bool:
    """Whether a process has ended, or is only waiting to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def of_this_machine(pattern: str) -> list[int]:
    """Return the living processes of this machine whose command line holds `pattern`, without this one."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except OSError:
            continue
        pid = int(entry.parent.name)
        if pattern.encode() in words and pid != os.getpid() and not gone(pid):
            found.append(pid)
    return found
