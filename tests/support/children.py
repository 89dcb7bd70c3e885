"""Children that heed signals as those of a terminal do, wherever the tests themselves were started from."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def as_from_a_terminal() -> Iterator[None]:
    """Let the processes that are started in this block begin with no signal ignored.

    A shell lets its commands in the background ignore Ctrl-C, and `nohup` the hangup. That is inherited: by the tests,
    and by whatever they start and then send that signal.
    """
    assert threading.current_thread() is threading.main_thread(), "only there can it be said what a signal does"
    ignored = [
        number
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
        if signal.getsignal(number) is signal.SIG_IGN
    ]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
