"""What the exit code of each command means: one number, one meaning, the same for every command.

`lessor lock` exits with the code of the command that it ran. What it has to say itself therefore starts at 120, above
what programs use and below 128, from where on the shell counts the signals that killed a program.
"""

from collections.abc import Iterable
from typing import Final

OK: Final = 0
"""Done, or the answer is yes."""

FAILED: Final = 1
"""The answer is no: nobody holds the name, there is no such thing or it is in use, no leader is known, a promise was
broken; or a port is taken."""

USAGE: Final = 2
"""Wrong arguments or a wrong configuration, such as a file where a directory should be; nothing was done."""

NODE_FAILED: Final = 70
"""A part of the node failed, and so the node ended itself; start it again."""

NOT_WRITTEN: Final = 74
"""What there was to say could not be written to stdout, as on a full disk: no answer; what was asked for is done."""

NODE_UNUSABLE: Final = 78
"""The data directory is damaged, lost, somebody else's or not to be written. Starting again cannot help, an operator
must."""

NOT_ACQUIRED: Final = 120
"""The lease was not granted in time. It is certainly not held; the command was not run."""

UNAVAILABLE: Final = 121
"""The service did not answer in time, or was too busy. The text says so if the request may have had an effect."""

LEASE_LOST: Final = 122
"""The lease was lost while the command ran, and the command was stopped."""

NOT_EXECUTABLE: Final = 126
"""The command was found but cannot be run."""

NOT_FOUND: Final = 127
"""The command was not found."""

SIGNALLED: Final = 128
"""Plus the number of a signal: the command was killed by it; 130 is Ctrl-C, of every command."""

INTERRUPTED: Final = SIGNALLED + 2
"""Ctrl-C."""

BROKEN_PIPE: Final = SIGNALLED + 13
"""Whoever was to read the output went away."""


def of_interrupt(interrupt: KeyboardInterrupt) -> int:
    """Return the code of a command that a signal has interrupted: Ctrl-C, unless the interrupt names another one."""
    return SIGNALLED + interrupt.args[0] if interrupt.args else INTERRUPTED


MEANINGS: Final = {
    "0": "done, or the answer is yes",
    "1": "the answer is no: nobody holds it, there is none or it is in use, no leader is known; or a port is taken",
    "2": "wrong arguments or a wrong configuration; nothing was done",
    "70": "serve: a part of the node failed; start it again",
    "74": "the output could not be written; it is no answer",
    "78": "serve: the data directory is damaged, lost, somebody else's or not to be written; an operator must look",
    "120": "lock: not granted in time, certainly not held; the command was not run",
    "121": "the service did not answer in time, or was too busy",
    "122": "lock: the lease was lost while the command ran, and the command was stopped",
    "126": "lock: the command cannot be run",
    "127": "lock: the command was not found",
    "128+N": "ended by signal N (130: Ctrl-C)",
}


def told(codes: Iterable[str]) -> str:
    """Return what these codes mean, for the help."""
    return "\n".join(["exit codes:", *[f"  {code:7}{MEANINGS[code]}" for code in codes]])
