"""A process that ends with its parent, however the parent ends."""

import ctypes
import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; at once if it has ended already.

    Linux only; elsewhere a parent that is killed leaves this process behind.
    """
    ask_to_die_with_parent()
    if os.getppid() != parent:
        os._exit(0)


def ask_to_die_with_parent() -> None:
    """Have the kernel send SIGKILL when the parent ends. The wish outlives an exec, but no fork."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none can slip away."""
    if _libc is not None:
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
