"""A helper process that renews a lease for a program that may hold the GIL for long, and can end it at the deadline.

The parent and its keeper share some numbers in memory. All times are milliseconds on the clock of this machine, which
is the same in every process. The keeper looks at them several times in each third of the ttl:

- it renews while the parent lives, and while the parent's work makes progress if that was asked for;
- it shows until when it has renewed, so that the parent, when it can run again, knows at once that it still holds;
- if asked, it sends a signal to the parent once the lease is over for both;
- it ends with the parent, or when the lease is over. It releases nothing: a lease whose holder has died runs out.
"""

import json
import logging
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from typing import Any, Final

from .clock import now_ms
from .errors import LeaseLost, LessorError
from .records import LeaseRecord, Terms
from .ticket import read

log = logging.getLogger(__name__)

KEPT, OWN, RENEW_WHILE, HOLD_UNTIL, OVER, _SLOTS = range(6)
"""Until when the keeper, and the parent itself, has renewed; how long it may be renewed and held (0: for ever); whether
it is over."""

LOOK_MS_MAX: Final = 100
LOOKS_IN_TTL: Final = 30


class Keeper:
    """The parent's side: starts the process, and shares what it must know."""

    def __init__(self, endpoints: list[str], ticket: str, record: LeaseRecord, number: int) -> None:
        """Start the process.

        Args:
            endpoints: of the nodes.
            ticket: of the lease.
            record: of the lease, in the parent.
            number: of the signal sent to this process when the lease is lost; 0 for none.
        """
        self._record = record
        with tempfile.TemporaryFile() as file:
            file.truncate(8 * _SLOTS)
            self._memory = mmap.mmap(file.fileno(), 8 * _SLOTS)
            self._shared = memoryview(self._memory).cast("q")
            self._shared[HOLD_UNTIL] = record.hold_until_ms
            self.share_progress()
            facts = {"endpoints": endpoints, "ticket": ticket, "parent": os.getpid(), "signal": number}
            # a session of its own: Ctrl-C in a terminal is for the parent alone
            self._process = subprocess.Popen(  # noqa: S603 - it is this program
                [sys.executable, "-m", __name__, str(file.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=(file.fileno(),),
                start_new_session=True,
            )
        assert self._process.stdin is not None
        self._stdin = self._process.stdin
        self._looked_ms = now_ms()
        self._noticed = False
        self._stdin.write(json.dumps(facts).encode() + b"\n")
        self._stdin.flush()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def until(self, own_ms: int) -> int:
        """Return until when the lease is renewed, by the parent (`own_ms`) or the keeper; share the parent's word."""
        self._shared[OWN] = max(self._shared[OWN], own_ms)
        if now_ms() - self._looked_ms >= LOOK_MS_MAX:
            self._look()
        return max(own_ms, self._shared[KEPT])

    def _look(self) -> None:
        """Notice, once, that the process has ended before its time; this one then renews alone."""
        self._looked_ms = now_ms()
        if self._noticed or self._record.over or not self._process.poll():
            return  # without an error it ends only because the lease is over
        self._noticed = True
        log.warning(
            "the keeper of %r has ended (status %d): only this process renews it now, and only while it runs Python",
            "/".join(self._record.path),
            self._process.returncode,
        )

    def share_progress(self) -> None:
        """Let the keeper know that the work goes on."""
        if self._record.progress_ms:
            self._shared[RENEW_WHILE] = self._record.progress_at_ms + self._record.progress_ms

    def changed(self, record: LeaseRecord) -> None:
        """Learn of a change of the lease: once it is over, the process is told to end."""
        if record.over and not self._shared[OVER]:
            self._shared[OVER] = 1
            try:
                threading.Thread(target=self._end, name="lessor-keeper-end", daemon=True).start()
            except RuntimeError:
                pass  # the interpreter ends, and the process soon after

    def _end(self) -> None:
        try:
            self._stdin.close()
        except BrokenPipeError:
            pass  # it has ended already
        self._process.wait()


def main() -> int:
    """Keep the lease that stdin tells of, until it is over or the parent is gone."""
    from .sync import connect  # noqa: PLC0415 - the parent imports this file only to start it

    facts = json.loads(sys.stdin.buffer.readline())
    shared = memoryview(mmap.mmap(int(sys.argv[1]), 8 * _SLOTS)).cast("q")
    parent = _Parent(facts["parent"])
    with connect(facts["endpoints"], description=f"keeper of process {facts['parent']}") as client:
        try:
            lease = client._lease(client._resume(read(facts["ticket"]), Terms(), adopt=False), None)  # noqa: SLF001
        except LeaseLost:
            lease = None
        except LessorError:
            return 1  # the parent goes on by itself
        if lease is not None:
            record = lease._record  # noqa: SLF001 - one of our own
            record.detached = True  # so that the end of this process does not release it
            while not shared[OVER] and not parent.gone(min(LOOK_MS_MAX, record.ttl_ms // LOOKS_IN_TTL)):
                record.auto_renew = not shared[RENEW_WHILE] or now_ms() < shared[RENEW_WHILE]
                until_ms = 0 if record.over else client._caller.protocol.safe_until_ms(record)  # noqa: SLF001
                shared[KEPT] = until_ms
                if now_ms() >= _deadline(until_ms, shared):
                    break
        if facts["signal"] and not shared[OVER] and now_ms() >= _deadline(shared[KEPT], shared):
            parent.send(facts["signal"])
    return 0


def _deadline(until_ms: int, shared: Any) -> int:
    until_ms = max(until_ms, shared[OWN])
    return min(until_ms, shared[HOLD_UNTIL]) if shared[HOLD_UNTIL] else until_ms


class _Parent:
    """The process that started this one."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._poll = select.poll()
        self._poll.register(sys.stdin.buffer.fileno(), select.POLLIN)
        # a pipe may have been inherited by others, and then does not end with the parent
        self._pidfd = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
        if self._pidfd >= 0:
            self._poll.register(self._pidfd, select.POLLIN)

    def gone(self, wait_ms: int) -> bool:
        """Wait a while; return whether the parent has ended, or has closed the pipe."""
        return bool(self._poll.poll(max(1, wait_ms))) or os.getppid() != self._pid

    def send(self, number: int) -> None:
        """Send a signal, to the parent and to nobody else who may have its number by now."""
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, number)
        elif os.getppid() == self._pid:
            os.kill(self._pid, number)


if __name__ == "__main__":
    sys.exit(main())
