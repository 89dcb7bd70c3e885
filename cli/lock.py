"""`lessor lock`: run a command only while holding a lock, and stop it before the lock can be anybody else's."""

import argparse
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from ..client.errors import AcquireTimeout
from ..client.status import ask_status
from ..client.sync import Client, Lease, connect
from ..core.errors import LessorError
from ..transport.names import why_unresolved
from . import exit_codes
from .descendants import Command
from .options import Commands, Parser, add_client, client, duration, word
from .output import complain, short

SUMMARY = "Run a command while holding the lock NAME: wait in line for it, run the command, release the lock at once."
NOTES = """
The lease is renewed while the command runs. When it cannot be renewed, the command and all that it started get SIGTERM
some time (--grace) before the lease ends, and SIGKILL when it ends: nothing of it runs on when somebody else may hold
the lock. So too when the service says that the lease is lost. If `lessor lock` itself is killed, so is the command,
but not what that has started.

SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are handed on to the command; the lock is held until it has ended.

The command finds LESSOR_LOCK_NAME, LESSOR_LOCK_NAMESPACE and LESSOR_LOCK_TOKEN in its environment. The token is larger
than that of every earlier holder: hand it to what the command writes to, so that it can refuse one who comes late.

While it waits it says on stderr what for: who holds the lock and how many stand before, or that no node answers. It
waits for the service as for a holder, for ever unless there is a --timeout, which counts all of it.

Exits with the command's own exit code, 128+N if signal N killed it; else as below.
"""
EXAMPLES = """
lessor lock nightly-report -- ./report.sh --all
lessor lock deploy --timeout 0 -- make deploy                now or not at all
lessor lock backup --timeout 0 -E 0 -- ./backup.sh           for cron: somebody else is at it, and that is fine
lessor lock --timeout 5s -- -odd-name -- ./work              a name that begins with -
lessor lock primary --ttl 10s --holder "$HOSTNAME" -- sh -c 'exec ./serve --fencing-token "$LESSOR_LOCK_TOKEN"'
"""

PATIENCE_S: Final = 1.0
"""How long is waited in silence before telling what for."""

TELL_AGAIN: Final = 5
"""How much longer the whole wait is each time that it is told again: after 1, 5, 25, 125 seconds …"""

TELL_AGAIN_S_MAX: Final = 300.0
"""… and then every so many."""

LOOK_S: Final = 0.25
"""How often the lease is looked at. A timer would not do: it stands still while a machine sleeps, a lease does not."""

STATUS_TIMEOUT_S: Final = 1.0
ASK_TIMEOUT_S: Final = 2.0
RELEASE_TIMEOUT_S: Final = 2.0
GRACE_S_MAX: Final = 5.0
ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
HANDED_ON: Final = (*ENDING, signal.SIGUSR1, signal.SIGUSR2)
FROM_THE_KERNEL: Final = 0x80  # SI_KERNEL: the terminal sent it, to every process in the foreground


def register(commands: "Commands[Parser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "lock",
        help="run a command while holding a lock",
        usage="lessor lock NAME [options] -- COMMAND [ARGUMENT...]",
        summary=SUMMARY,
        notes=NOTES,
        examples=EXAMPLES,
        codes="120 121 122 126 127 128+N 2",
    )
    parser.name("what is to be held", runs_command=True)
    parser.option(
        "--ttl",
        metavar="TIME",
        read=duration,
        default=30.0,
        shown="30s",
        help="how long the lease lives unless it is renewed, and so how long it outlives a crash of this machine",
    )
    parser.option(
        "--timeout",
        metavar="TIME",
        read=duration,
        shown="for ever",
        help="how long to wait in all, in line and for the service; 0: take it if it is free, never wait in line",
    )
    parser.option("--holder", metavar="TEXT", read=word, shown="HOST:PID", help="how others see who holds the lock")
    parser.option(
        "--grace",
        metavar="TIME",
        read=duration,
        shown="a sixth of the ttl, at most 5s",
        help="how long before its end a lease that could not be renewed is given up and the command told to stop",
    )
    parser.option(
        "-E",
        "--conflict-exit-code",
        metavar="CODE",
        read=_exit_code,
        default=exit_codes.NOT_ACQUIRED,
        help="the exit code if the lock is not granted in time",
    )
    parser.switch("-q", "--quiet", help="do not tell what is waited for; errors are told all the same")
    add_client(parser)
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Wait, run the command, release, and return its exit code."""
    if not options.behind:
        options.parser.error("put the command behind --, as in: lessor lock NAME -- COMMAND")
    grace = min(options.ttl / 6, GRACE_S_MAX) if options.grace is None else options.grace
    if not 0 <= grace <= options.ttl / 2:
        options.parser.error(f"--grace is from 0 to half of the ttl, not {short(grace)} of {short(options.ttl)}")
    missing = _cannot_run(options.behind[0])
    if missing:
        return missing
    # blocked before the client starts its threads, so that these, too, leave the signals to the loop below
    signals = Signals(HANDED_ON)
    try:
        return _run(options, grace, signals)
    finally:
        signals.give_back()


def _run(options: argparse.Namespace, grace: float, signals: "Signals") -> int:
    with client(options, holder=options.holder) as service:
        acquisition = Acquisition(service, options, signals)
        told = _wait(acquisition, signals, options)
        if told:
            return told
        lease = acquisition.outcome
        if lease is None or (isinstance(lease, AcquireTimeout) and not lease.indefinite):
            return _not_granted(service, options)
        if isinstance(lease, BaseException):
            raise lease
        assert isinstance(lease, Lease)
        code = _guard(lease, options, grace, signals)
        if lease.held and code != exit_codes.LEASE_LOST:
            _release(lease)
        return code


class Signals:
    """The signals of this process, taken one by one by its main thread instead of interrupting it."""

    WAKE: Final = signal.SIGRTMIN

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        """Take over these signals, without those that are ignored, as nohup has it for SIGHUP."""
        wanted = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        self._all = {*wanted, signal.SIGCHLD, self.WAKE}
        self._main = threading.get_ident()
        # one that comes after the last look must do no harm
        signal.signal(self.WAKE, lambda *_: None)
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, self._all)

    def next(self, timeout: float) -> tuple[int, bool] | None:
        """Return the next signal, and whether the terminal sent it; None after `timeout` seconds."""
        info = signal.sigtimedwait(self._all, max(0.0, timeout))
        return (info.si_signo, info.si_code == FROM_THE_KERNEL) if info is not None else None

    def wake(self) -> None:
        """Have `next` return, from another thread."""
        signal.pthread_kill(self._main, self.WAKE)

    def give_back(self) -> None:
        """Restore what was before, in a child before its exec or in this process."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)


class Acquisition:
    """An acquire in a thread of its own, so that the main thread stays free for signals."""

    def __init__(self, service: Client, options: argparse.Namespace, signals: Signals) -> None:
        """Begin to acquire; `outcome` is a Lease, None or an error once `done` is set."""
        self.done = False
        self.outcome: Lease | BaseException | None = None
        self._service = service
        self._options = options
        self._signals = signals
        self.started = time.monotonic()
        threading.Thread(target=self._run, name="lessor-acquire", daemon=True).start()

    def _run(self) -> None:
        options = self._options
        try:
            if options.timeout == 0:
                self.outcome = self._service.try_acquire(options.name, options.ttl)
            else:
                self.outcome = self._service.acquire(options.name, options.ttl, timeout=options.timeout)
        except BaseException as error:  # noqa: BLE001 - it is raised again in the main thread
            self.outcome = error
        self.done = True
        self._signals.wake()


def _wait(acquisition: Acquisition, signals: Signals, options: argparse.Namespace) -> int:
    """Wait for the outcome; return the exit code if a signal ends the wait, else 0."""
    tell_after = PATIENCE_S
    told = False
    while not acquisition.done:
        found = signals.next(acquisition.started + tell_after - time.monotonic())
        if found is None:
            tell_after = min(tell_after * TELL_AGAIN, tell_after + TELL_AGAIN_S_MAX)
            if not options.quiet:
                told = True
                threading.Thread(target=_tell, args=(acquisition, options), daemon=True).start()
        elif found[0] in ENDING:
            return exit_codes.SIGNALLED + found[0]  # on its way out the client withdraws the claim
    if told and isinstance(acquisition.outcome, Lease):
        waited = short(time.monotonic() - acquisition.started)
        complain("lock", f"{options.name!r} was granted after {waited}, with token {acquisition.outcome.token}")
    return 0


def _tell(acquisition: Acquisition, options: argparse.Namespace) -> None:
    """Say what is waited for, unless it has come meanwhile."""
    what = _what_is_missing(options)
    if what and not acquisition.done:
        complain("lock", f"waiting for {options.name!r}, {what}")


def _what_is_missing(options: argparse.Namespace) -> str:
    cluster = ask_status(options.endpoints, STATUS_TIMEOUT_S)
    if not cluster.answers:
        why = why_unresolved(options.endpoints)
        return f"but no node answers at {', '.join(options.endpoints)}{'; ' + why if why else ''}; still trying"
    if not cluster.leader:
        return "but no node knows a leader (is a majority of the nodes running?); still trying"
    try:
        with connect(
            options.endpoints, options.namespace, holder=options.holder, request_timeout=ASK_TIMEOUT_S
        ) as asker:
            return _holder(asker, options.name)
    except LessorError as error:
        return f"but the service does not answer: {error}; still trying"


def _holder(service: Client, name: str) -> str:
    """Return in words who holds a name and how many wait before us, nothing if nobody holds it by now."""
    claims = service.describe(name)
    holder = next((claim for claim in claims if not claim.waiting), None)
    if holder is None:
        return ""
    others = list(
        takewhile(lambda holder: holder != service.holder, (claim.holder for claim in claims if claim.waiting))
    )
    line = f"; {len(others)} more in line before" if others else ""
    return f"held by {holder.holder} for {short(holder.held_for)} (token {holder.token}){line}"


def _not_granted(service: Client, options: argparse.Namespace) -> int:
    holder = ""
    try:
        holder = _holder(service, options.name)
    except LessorError:
        pass  # it is certain all the same that we do not hold it
    how = "is not free" if options.timeout == 0 else f"was not granted in {short(options.timeout)}"
    complain("lock", f"{options.name!r} {how}{': ' + holder if holder else ''}")
    return int(options.conflict_exit_code)


def _guard(lease: Lease, options: argparse.Namespace, grace: float, signals: Signals) -> int:
    """Run the command under the lease; return its exit code, or LEASE_LOST if it had to be stopped."""
    environment = os.environ | {
        "LESSOR_LOCK_NAME": lease.name,
        "LESSOR_LOCK_NAMESPACE": lease.namespace,
        "LESSOR_LOCK_TOKEN": str(lease.token),
    }
    try:
        command = Command(options.behind, environment, signals.give_back)
    except OSError as error:
        complain("lock", f"{options.behind[0]} cannot be run: {error.strerror}")
        return exit_codes.NOT_EXECUTABLE
    deadline = time.monotonic() + lease.remaining()
    stopping = killed = False
    while (code := command.poll()) is None:
        now, left = time.monotonic(), lease.remaining()
        if left > 0:
            deadline = now + left
        if not stopping and left <= grace:
            stopping = True
            # the service's word that it is lost may come long before the deadline; then this is all the time there is
            deadline = min(deadline, now + grace)
            complain("lock", f"{_why(lease, left)}; {options.behind[0]} is told to stop")
            command.stop()
        if stopping and left <= 0 and now >= deadline:
            if not killed:
                complain("lock", f"{options.behind[0]} is killed: the lease has ended")
            killed = True
            command.kill()
        found = signals.next(min(LOOK_S, max(0.01, (deadline if stopping else deadline - grace) - now)))
        if found is not None and found[0] in HANDED_ON and not _has_it_already(*found):
            command.tell(found[0])
    if not stopping:
        return code
    command.kill()  # what it started may have stayed behind
    return exit_codes.LEASE_LOST


def _why(lease: Lease, left: float) -> str:
    if left > 0:
        return f"the lease could not be renewed and ends in {short(left)}"
    return f"the lease is lost: {lease.lost_reason}"


def _has_it_already(number: int, from_the_terminal: bool) -> bool:  # noqa: FBT001 - as `Signals.next` gives it
    """Return whether the command got this signal itself: a terminal sends Ctrl-C to every process in its foreground."""
    return from_the_terminal and number in (signal.SIGINT, signal.SIGQUIT)


def _release(lease: Lease) -> None:
    """Release the lease; nobody who waits for the exit code is made to wait long for a service that is away."""
    failed: list[str] = []

    def release() -> None:
        try:
            lease.release()
        except LessorError as error:
            failed.append(str(error))

    thread = threading.Thread(target=release, name="lessor-release", daemon=True)
    thread.start()
    thread.join(RELEASE_TIMEOUT_S)
    if failed or thread.is_alive():
        why = failed[0] if failed else "the service does not answer"
        complain("lock", f"{lease.name!r} could not be released ({why}); others may have to wait until its ttl is over")


def _cannot_run(command: str) -> int:
    """Return the exit code if there is no such command, before anybody is made to wait for it; else 0."""
    if shutil.which(command):
        return 0
    found = os.sep in command and Path(command).exists()
    complain("lock", f"{command}: {'cannot be run' if found else 'there is no such command'}")
    return exit_codes.NOT_EXECUTABLE if found else exit_codes.NOT_FOUND


def _exit_code(text: str) -> Any:
    if not text.isascii() or not text.isdigit() or int(text) > 255:
        raise argparse.ArgumentTypeError(f"an exit code is from 0 to 255, not {text!r}")
    return int(text)
