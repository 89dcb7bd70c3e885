"""A command that runs as a child, with all that it starts in its turn: told to stop, killed and reaped as one."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from .parent import adopt_orphans, ask_to_die_with_parent

KILL_ROUNDS_MAX: Final = 20
"""How often processes are looked for again that were started while the others were killed."""


class Command:
    """A running command. It shares the terminal and the process group, so that Ctrl-C and Ctrl-Z work as ever."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], unblock: Callable[[], None]) -> None:
        """Start the command; `unblock` runs in it first, to give signals back their course.

        Raises:
            OSError: it cannot be run.
        """
        # what is orphaned comes to us, so that a script cannot lose sight of what it started
        adopt_orphans()
        parent = os.getpid()

        def prepare() -> None:
            # between fork and exec, in a process that has threads: nothing here takes a lock
            unblock()
            ask_to_die_with_parent()
            if os.getppid() != parent:
                os._exit(1)

        self._process = subprocess.Popen(list(command), env=dict(environment), preexec_fn=prepare)  # noqa: PLW1509, S603

    def poll(self) -> int | None:
        """Reap what has ended; return the exit code of the command as a shell tells it, None while it runs."""
        while (ended := _ended_child()) is not None:
            if ended == self._process.pid:
                self._process.poll()
            else:
                os.waitpid(ended, 0)
        code = self._process.poll()
        return code if code is None or code >= 0 else 128 - code

    def tell(self, number: int) -> None:
        """Send a signal to the command itself."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """Ask the command and all that it started to end."""
        for pid in descendants(os.getpid()):
            _send(pid, signal.SIGTERM)
            _send(pid, signal.SIGCONT)  # one that is suspended would never see it

    def kill(self) -> None:
        """End the command and all that it started, whatever they are doing."""
        for _ in range(KILL_ROUNDS_MAX):
            found = descendants(os.getpid())
            if not found:
                return
            for pid in found:
                _send(pid, signal.SIGKILL)


def descendants(ancestor: int) -> list[int]:
    """Return the living processes that `ancestor` started, directly or not, parents first."""
    children: dict[int, list[int]] = {}
    for pid, parent, state in _processes():
        if state not in "ZX":
            children.setdefault(parent, []).append(pid)
    found = list(children.get(ancestor, []))
    for pid in found:
        found += children.get(pid, [])
    return found


def _processes() -> list[tuple[int, int, str]]:
    """Return the number, the parent and the state of every process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = entry.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        # the name, in brackets, may hold anything, also brackets
        state, parent = text.rpartition(")")[2].split()[:2]
        found.append((int(entry.parent.name), int(parent), state))
    return found


def _ended_child() -> int | None:
    try:
        info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return info.si_pid if info is not None else None


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
