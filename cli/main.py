"""Where the `lessor` command starts: it loads everything else, and ends quietly if Ctrl-C comes before that is done."""

import os
import sys

TYPE_CHECKING = False  # as type checkers know it; to load `typing` takes a while, in which nobody heeds Ctrl-C
if TYPE_CHECKING:
    from typing import NoReturn

INTERRUPTED = 130


def main() -> int:
    """Run the command line of this process, and return its exit code."""
    try:
        import signal

        told_by_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if told_by_default:  # and not ignored, as nohup has it
            signal.signal(signal.SIGINT, _leave)
        from . import dispatch

        if told_by_default:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return dispatch.main()
        finally:
            if told_by_default:
                signal.signal(signal.SIGINT, _leave)
    except KeyboardInterrupt:
        return INTERRUPTED


def _leave(_number: int, _frame: object) -> "NoReturn":
    # at once: an exception may surface anywhere while modules are loaded or taken down, and be printed there
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
