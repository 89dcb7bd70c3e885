"""`lessor lock`: run a command only while holding a lock, and stop it before the lock can be anybody else's."""

import argparse
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from ..client import clock
from ..client.errors import AcquireTimeout
from ..client.lease import ends_by_max_hold
from ..client.refusals import Refused
from ..client.status import ask_status
from ..client.sync import Client, Lease, connect
from ..client.wants import units
from ..core.errors import LessorError
from ..core.resources import Mode, Resource
from ..transport.names import why_unresolved
from . import exit_codes
from .claims import line_of, mode, resource_at, stands_in_the_way
from .descendants import Command
from .explain import explain
from .names import PATHS, add_name, as_path, called
from .options import Commands, Parser, add_client, client, duration, positive, some_time, word
from .output import complain, printable, short

SUMMARY = "Run a command while holding the lock NAME: wait in line for it, run the command, release the lock at once."
NOTES = """
The lease is renewed while the command runs. When it cannot be renewed, the command and all that it started get SIGTERM
some time (--grace) before the lease ends, and SIGKILL when it ends: nothing of it runs on when somebody else may hold
the lock. So too when the service says that the lease is lost. If `lessor lock` itself is killed, so is the command,
but not what that has started.

SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are handed on to the command; the lock is held until it has ended.

Several NAMEs are taken at once, all or none, and so cannot deadlock with others that are taken so; `lessor lock` inside
of `lessor lock` can. --read shares them with other readers. --count takes so many units of the semaphore NAME: one that
was created, or with --limit one that is there while somebody has or wants units of it.

The command finds LESSOR_LOCK_NAME (several: one on each line), LESSOR_LOCK_NAMESPACE and LESSOR_LOCK_TOKEN in its
environment. The token is larger than that of every earlier holder: hand it to what the command writes to, so that it
can refuse one who comes late.

While it waits it says on stderr what for: who holds the lock and how many stand before, or that no node answers. It
waits for the service as for a holder, for ever unless there is a --timeout, which counts all of it.

Exits with the command's own exit code, 128+N if signal N killed it; else as below.
"""
EXAMPLES = """
lessor lock nightly-report -- ./report.sh --all
lessor lock deploy --timeout 0 -- make deploy                now or not at all
lessor lock backup --timeout 0 -E 0 -- ./backup.sh           for cron: somebody else is at it, and that is fine
lessor lock --timeout 5s -- -odd-name -- ./work              a name that begins with -
lessor lock --path users/42 reports/may -- ./move            two paths, and all below them, at once
lessor lock catalogue --read -- ./export                     together with others who read
lessor lock workers --count 1 --limit 4 -- ./work            at most four at a time
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
        usage="lessor lock NAME... [options] -- COMMAND [ARGUMENT...]",
        summary=SUMMARY,
        notes=NOTES + PATHS,
        examples=EXAMPLES,
        codes="120 121 122 126 127 128+N 2",
    )
    add_name(parser, "what is to be held; several are taken at once", runs_command=True)
    parser.switch("--read", help="share it with others who read; who writes waits")
    parser.option("--count", metavar="N", read=positive, help="take so many units of a semaphore")
    parser.option(
        "--limit",
        metavar="N",
        read=positive,
        shown="that of the semaphore that was created",
        help="how many units it has, with --count",
    )
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
    parser.option(
        "--max-hold",
        metavar="TIME",
        read=some_time,
        shown="none",
        help="how long it may be held in all: the command is told to stop before, as when the lease is lost",
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
    if options.max_hold is not None and options.max_hold <= grace:
        options.parser.error(f"--max-hold is more than --grace, {short(grace)}, not {short(options.max_hold)}")
    if (options.read and options.count) or (options.limit and not options.count):
        options.parser.error("--read and --count exclude each other, and --limit goes with --count")
    options.wants = _wants(options)
    missing = _cannot_run(options.behind[0])
    if missing:
        return missing
    # blocked before the client starts its threads, so that these, too, leave the signals to the loop below
    signals = Signals(HANDED_ON)
    try:
        return _run(options, grace, signals)
    except Refused as error:
        # what this command has to say itself is told apart from what the other one says by its exit code
        complain("lock", explain(error))
        return exit_codes.USAGE
    finally:
        signals.give_back()


def _wants(options: argparse.Namespace) -> list[Resource]:
    """Return what is to be held."""
    paths = [as_path(name, options) for name in options.name]
    if options.count:
        return [units(path, options.count, options.limit) for path in paths]
    return [Resource(path, Mode.READ if options.read else Mode.WRITE) for path in paths]


def _all_of(options: argparse.Namespace) -> str:
    """Return what is to be held, as it is told."""
    return ", ".join(called(resource.path) for resource in options.wants)


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
                self.outcome = self._service.try_acquire(options.wants, options.ttl, max_hold=options.max_hold)
            else:
                self.outcome = self._service.acquire(
                    options.wants, options.ttl, timeout=options.timeout, max_hold=options.max_hold
                )
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
        complain("lock", f"{_all_of(options)} was granted after {waited}, with token {acquisition.outcome.token}")
    return 0


def _tell(acquisition: Acquisition, options: argparse.Namespace) -> None:
    """Say what is waited for, unless it has come meanwhile."""
    what = _what_is_missing(options)
    if what and not acquisition.done:
        complain("lock", f"waiting for {_all_of(options)}, {what}")


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
            return _holders(asker, options.wants)
    except LessorError as error:
        return f"but the service does not answer: {error}; still trying"


def _holders(service: Client, wants: Sequence[Resource]) -> str:
    """Return in words who stands in the way and how many wait before us, nothing if nobody does by now."""
    closed_for = 0.0
    in_the_way: dict[int, str] = {}
    before: dict[int, None] = {}
    for want in wants:
        about = service.about(want.path)
        line = line_of(want.path, about.leases)
        for view in (*line.holders, *line.overlapping):
            if stands_in_the_way(view, want):
                at = resource_at(view, want.path)
                what = "" if len(wants) == 1 and at.path == want.path else f"{called(at.path)} is "
                how = "" if at.mode == Mode.WRITE else f"{mode(at)}, "
                told = f"{what}held by {printable(view.holder)} for {short(view.held_for)} ({how}token {view.token})"
                in_the_way[view.claim] = told
        others = takewhile(lambda view: view.holder != service.holder, line.waiting)
        before |= {view.claim: None for view in others}
        closed_for = max(closed_for, about.closed_for)
    if not in_the_way and closed_for:
        return f"closed for {short(closed_for)} since its last lease lapsed (lock delay)"
    more = f" and {len(in_the_way) - 1} more" if len(in_the_way) > 1 else ""
    place = f"; {len(before)} more in line before" if before else ""
    return next(iter(in_the_way.values())) + more + place if in_the_way else place.removeprefix("; ")


def _not_granted(service: Client, options: argparse.Namespace) -> int:
    holder = ""
    try:
        holder = _holders(service, options.wants)
    except LessorError:
        pass  # it is certain all the same that we do not hold it
    how = "is not free" if options.timeout == 0 else f"was not granted in {short(options.timeout)}"
    complain("lock", f"{_all_of(options)} {how}{': ' + holder if holder else ''}")
    return int(options.conflict_exit_code)


def _guard(lease: Lease, options: argparse.Namespace, grace: float, signals: Signals) -> int:
    """Run the command under the lease; return its exit code, or LEASE_LOST if it had to be stopped."""
    environment = os.environ | {
        "LESSOR_LOCK_NAME": "\n".join(["/".join(resource.path) for resource in options.wants]),
        "LESSOR_LOCK_NAMESPACE": lease.namespace,
        "LESSOR_LOCK_TOKEN": str(lease.token),
    }
    try:
        command = Command(options.behind, environment, signals.give_back)
    except OSError as error:
        complain("lock", f"{options.behind[0]} cannot be run: {error.strerror}")
        return exit_codes.NOT_EXECUTABLE
    # on the lease's own clock: one that stands still while the machine sleeps would let the command run on afterwards
    deadline = _now() + lease.remaining()
    stopping = killed = False
    while (code := command.poll()) is None:
        now, left = _now(), lease.remaining()
        if left > 0:
            deadline = now + left
        if not stopping and left <= grace:
            stopping = True
            # the service's word that it is lost may come long before the deadline; then this is all the time there is
            deadline = min(deadline, now + grace)
            complain("lock", f"{_why(lease, left, options.max_hold)}; {options.behind[0]} is told to stop")
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


def _now() -> float:
    return clock.now_ms() / 1000


def _why(lease: Lease, left: float, max_hold: float | None) -> str:
    if max_hold is not None and left > 0 and ends_by_max_hold(lease):
        return f"the lease may be held for {short(max_hold)} in all (--max-hold), and that ends in {short(left)}"
    if left > 0:
        return f"the lease could not be renewed and ends in {short(left)}"
    return f"the lease is lost: {lease.why_lost}"


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
        complain(
            "lock", f"{called(lease.path)} could not be released ({why}); others may have to wait until its ttl is over"
        )


def _cannot_run(command: str) -> int:
    """Return the exit code if there is no such command, before anybody is made to wait for it; else 0."""
    if shutil.which(command):
        return 0
    found = os.sep in command and Path(command).exists()
    why = "it is a directory" if found and Path(command).is_dir() else "permission denied"
    complain("lock", f"{command}: {f'cannot be run: {why}' if found else 'there is no such command'}")
    return exit_codes.NOT_EXECUTABLE if found else exit_codes.NOT_FOUND


def _exit_code(text: str) -> Any:
    if not text.isascii() or not text.isdigit() or int(text) > 255:
        raise argparse.ArgumentTypeError(f"an exit code is from 0 to 255, not {text!r}")
    return int(text)
