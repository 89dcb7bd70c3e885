"""`lessor demo`: three real servers, four contending clients, and a leader that is killed while a lease is held."""

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from ...client.sync import Client, Lease, connect
from ...core.errors import LessorError
from .. import exit_codes
from ..local_cluster import ClusterFailed, LocalCluster
from ..options import Commands, Parser, add_json, duration
from ..output import complain, print_json
from ..server import require_server
from ..temporary import Made, temporary_directory
from .contender import NAMESPACE
from .ledger import ENTER, LedgerReader, Verdict, judge
from .story import Story

SUMMARY = "See the point in a quarter of a minute: the leader of three servers is killed while a client holds a lock."
NOTES = """
Starts three real `lessor serve` processes on free ports of this machine, and four client processes that contend for
one lock; each writes its token into a file that only one may touch at a time. The leader gets SIGKILL while the lock
is held, and comes back later. An independent detector then looks for overlaps. Nothing is left behind.

--json prints one object: acquisitions, overlaps (how many holds met another one), tokens_increasing, lease_survived
(the leases held when the leader died kept their tokens), outage_ms (the longest time without a grant from the kill on).
The exit code is 1 if a promise was broken.
"""
EXAMPLES = """
lessor demo
lessor demo --seconds 30
lessor demo --json | jq .outage_ms
"""

CONTENDERS: Final = "ABCD"
KEEPER: Final = "the-primary"
KEEPER_TTL_MAX_S: Final = 5.0
"""More than a busy machine stands still for. Half of the demo if that is less: two thirds of it are left after the
kill, so that the lease lasts to the end only if the new leader renews it."""
SECONDS_MIN: Final = 4.0
SECONDS_MAX: Final = 40.0
SECONDS: Final = 12.0
END_AFTER_S: Final = 18
"""What starting and stopping may take beside the longest of demos; then it is given up. In all: less than a minute."""

BAR_S: Final = 0.05
BARS_ALIVE_S: Final = 3.0
BARS_BEFORE_S: Final = 1.3
BARS_AFTER_S: Final = 1.8
FRESH_NS: Final = 4_000_000
"""A hold that began less than this ago is sure to last until a signal has struck: the work takes twice that."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What `--json` prints."""

    acquisitions: int
    overlaps: int
    tokens_increasing: bool
    lease_survived: bool
    outage_ms: int

    @property
    def kept(self) -> bool:
        """Whether every promise was kept."""
        return self.acquisitions > 0 and self.overlaps == 0 and self.tokens_increasing and self.lease_survived


def register(commands: "Commands[Parser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "demo", help="see it work, on this machine", summary=SUMMARY, notes=NOTES, examples=EXAMPLES
    )
    parser.option(
        "--seconds",
        metavar="TIME",
        read=duration,
        default=SECONDS,
        shown="12s",
        help=f"how long the clients contend, from {SECONDS_MIN:g}s to {SECONDS_MAX:g}s",
    )
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Run the demo and return its exit code."""
    if not SECONDS_MIN <= options.seconds <= SECONDS_MAX:
        options.parser.error(f"--seconds is from {SECONDS_MIN:g} to {SECONDS_MAX:g}, not {options.seconds:g}")
    require_server("lessor demo")
    story = Story(silent=options.json)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(END_AFTER_S + int(SECONDS_MAX))
    try:
        with temporary_directory("lessor-demo-") as made:
            summary = _run(made, story, options.seconds)
    except KeyboardInterrupt as interrupt:
        complain("demo", "interrupted; every process has ended")
        return exit_codes.of_interrupt(interrupt)
    except LessorError as error:
        complain("demo", str(error))
        return exit_codes.FAILED
    finally:
        signal.alarm(0)
    if options.json:
        print_json(asdict(summary))
    return exit_codes.OK if summary.kept else exit_codes.FAILED


def _run(made: Made, story: Story, seconds: float) -> "Summary":
    """Run the demo in a directory, which is kept to be looked at if a promise was broken, or might have been."""
    try:
        with LocalCluster(3, made.path, name="demo") as cluster, Contenders(cluster) as contenders:
            summary = Demo(cluster, contenders, story, seconds).run()
        made.keep = not summary.kept
    except Exception:
        made.keep = True
        raise
    finally:
        story.end()
        if made.keep:
            complain("demo", f"logs and data are kept in {made.path}")
    return summary


class Contenders:
    """The client processes."""

    def __init__(self, cluster: LocalCluster) -> None:
        """Start nobody yet."""
        self._cluster = cluster
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start them all."""
        for name in CONTENDERS:
            command = [sys.executable, "-m", "lessor.cli.demo.contender", name, self._cluster.endpoints]
            with (self._cluster.directory / f"client{name}.log").open("wb") as log:
                self._processes.append(
                    subprocess.Popen(  # noqa: S603 - our own command
                        [*command, str(self._cluster.directory), str(os.getpid())],
                        stdin=subprocess.PIPE,
                        stdout=log,
                        stderr=log,
                        process_group=0,
                    )
                )

    def stop(self) -> None:
        """Let each end after the hold that it is in."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for name, process in zip(CONTENDERS, self._processes, strict=True):
            try:
                code = process.wait(10)
            except subprocess.TimeoutExpired:
                raise ClusterFailed(f"client {name} does not come to its end") from None
            if code:
                raise ClusterFailed(f"client {name} failed with exit code {code}")

    def __enter__(self) -> Self:
        """Return the contenders."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nobody behind."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()


class Demo:
    """The course of events."""

    def __init__(self, cluster: LocalCluster, contenders: Contenders, story: Story, seconds: float) -> None:
        """Take the stage."""
        self.cluster = cluster
        self.contenders = contenders
        self.story = story
        self.seconds = seconds
        self.ledger = LedgerReader(cluster.directory)
        self.leader = 0
        self.began = 0.0
        self.killed_ns = (0, 0)  # before and after the signal was sent

    def run(self) -> Summary:
        """Let it happen, and return what came of it."""
        story, cluster = self.story, self.cluster
        story.title("lessor demo: three servers, four clients, one lock, and the death of the leader")
        begin = time.monotonic()
        cluster.start()
        story.say("start", f"three nodes, a process and a data directory each, at {cluster.endpoints}")
        self.leader = cluster.wait_for_leader()
        story.say("elect", f"node {self.leader} leads, {time.monotonic() - begin:.1f} s after the start")
        with connect(cluster.endpoints, NAMESPACE, holder="the demo", session_timeout=5) as client:
            ttl_s = min(KEEPER_TTL_MAX_S, self.seconds / 2)
            keeper = client.acquire(KEEPER, ttl_s, timeout=10)
            story.say("hold", f"the demo itself takes {KEEPER!r} for {ttl_s:g} s at a time: token {keeper.token}")
            self.contenders.start()
            story.say("contend", f"clients {', '.join(CONTENDERS)} want one lock; each writes its token into one file")
            self.began = time.monotonic()
            self._watch_until(self.seconds / 3)
            self._kill()
            self._watch_until(self.seconds * 2 / 3)
            self._restart()
            self._watch_until(self.seconds)
            self.contenders.stop()
            ended_ns = time.monotonic_ns()
            self.ledger.read()
            return self._sum_up(client, keeper, ended_ns)

    def _watch_until(self, seconds: float) -> None:
        while (passed := time.monotonic() - self.began) < seconds:
            self._look(passed)
            time.sleep(0.05)

    def _look(self, passed: float) -> None:
        self.ledger.read()
        entered = [record for record in self.ledger.records if record.kind == ENTER]
        if not entered:
            return
        shares = "  ".join(f"{name} {sum(record.client == name for record in entered):>3}" for name in CONTENDERS)
        now = time.monotonic_ns()
        counts = _per_bar([record.at_ns for record in entered], now - int(BARS_ALIVE_S * 1e9), now)[:-1]
        self.story.live(f"{passed:4.1f} s  token {entered[-1].token:>4}   {shares}", counts)

    # --- the death of the leader -------------------------------------------------------------------------------------

    def _kill(self) -> None:
        self.leader = self.cluster.wait_for_leader()
        deadline = time.monotonic() + 5
        while not self._somebody_has_just_entered():
            if time.monotonic() > deadline:
                raise ClusterFailed(f"nobody gets the lock{self.cluster.ends_of_logs(*self.cluster.nodes)}")
            time.sleep(0.0005)
        before = time.monotonic_ns()
        os.kill(self.cluster.pid_of(self.leader), signal.SIGKILL)
        self.killed_ns = (before, time.monotonic_ns())
        self.cluster.kill(self.leader)
        holder = next((record for record in reversed(self.ledger.records) if record.kind == ENTER), None)
        assert holder is not None
        self.story.say(
            "kill",
            f"SIGKILL to node {self.leader}, the leader, while {holder.client} holds token {holder.token}",
            "red",
        )
        leader = self.cluster.wait_for_leader(10, other_than=self.leader)
        passed_ms = (time.monotonic_ns() - before) / 1e6
        self.story.say("elect", f"node {leader} leads, {passed_ms:.0f} ms after the kill; two of three are enough")

    def _somebody_has_just_entered(self) -> bool:
        added = self.ledger.read()
        return bool(added) and added[-1].kind == ENTER and time.monotonic_ns() - added[-1].at_ns < FRESH_NS

    def _restart(self) -> None:
        begin = time.monotonic()
        self.cluster.restart(self.leader)
        self.cluster.wait_until_caught_up(self.leader)
        passed = time.monotonic() - begin
        self.story.say("restart", f"node {self.leader} is back on its old data, and has caught up after {passed:.1f} s")

    # --- what came of it ---------------------------------------------------------------------------------------------

    def _sum_up(self, client: Client, keeper: Lease, ended_ns: int) -> Summary:
        verdict = judge(self.ledger.records)
        held = verdict.held_at(*self.killed_ns)
        survived = verdict.released.get(held, False) if held else True
        kept = _is_kept(client, keeper)
        outage_ms = round(verdict.longest_gap_ns(self.killed_ns[0], ended_ns) / 1e6)
        summary = Summary(
            acquisitions=verdict.acquisitions,
            overlaps=verdict.overlaps,
            tokens_increasing=verdict.tokens_increasing,
            lease_survived=kept and survived and not verdict.lost,
            outage_ms=outage_ms,
        )
        self._tell(summary, verdict, held, keeper, survived=survived, kept=kept)
        return summary

    def _tell(
        self, summary: Summary, verdict: Verdict, held: int, keeper: Lease, *, survived: bool, kept: bool
    ) -> None:
        story = self.story
        story.blank()
        killed = self.killed_ns[0]
        before, after = killed - int(BARS_BEFORE_S * 1e9), killed + int(BARS_AFTER_S * 1e9)
        story.say("grants", story.bars(_per_bar(verdict.entered_ns, before, after)))
        place = killed // int(BAR_S * 1e9) - before // int(BAR_S * 1e9)
        story.say("", f"{'':{place}}^ the kill; each bar is {BAR_S * 1000:.0f} ms", "dim")
        shares = ", ".join(
            f"{name} {sum(client == name for _, _, client in verdict.spans.values())}" for name in CONTENDERS
        )
        self._mark(summary.acquisitions > 0, f"{summary.acquisitions} acquisitions: {shares}")
        self._mark(summary.overlaps == 0, f"{summary.overlaps} overlaps: never were two at work at once")
        self._mark(summary.tokens_increasing, "tokens strictly increasing, over the change of leader")
        if held:
            whose = verdict.spans[held][2]
            self._mark(
                survived, f"the lock held at the kill kept its token: {whose} gave {held} back to the new leader"
            )
        self._mark(kept, f"{KEEPER!r} was held from the start to the end with token {keeper.token}")
        story.say("outage", f"{summary.outage_ms} ms was the longest time without a grant, from the kill on", "yellow")
        for failure in verdict.failures:
            story.say("note", f"client {failure}", "yellow")
        story.blank()
        if summary.kept:
            story.say("result", "every promise was kept", "green")
        else:
            story.say("result", "A PROMISE WAS BROKEN", "red")

    def _mark(self, good: bool, text: str) -> None:  # noqa: FBT001 - what it says
        self.story.say("ok" if good else "BROKEN", text, "green" if good else "red")


def _is_kept(client: Client, keeper: Lease) -> bool:
    """Return whether the keeper's lease is held, as its holder sees it and as the service does."""
    holder = next((view for view in client.describe(KEEPER) if not view.waiting), None)
    return keeper.held and holder is not None and holder.token == keeper.token


def _per_bar(moments_ns: list[int], from_ns: int, to_ns: int) -> list[int]:
    """Return how many moments fall into each stretch between two times."""
    bar_ns = int(BAR_S * 1e9)
    # stretches begin at multiples of their length, or the picture would flicker as it moves on
    first = from_ns // bar_ns
    counts = [0] * (to_ns // bar_ns - first + 1)
    for moment in moments_ns:
        if first <= moment // bar_ns < first + len(counts):
            counts[moment // bar_ns - first] += 1
    return counts


def _too_long(_number: int, _frame: Any) -> NoReturn:
    raise ClusterFailed("this takes too long, and is given up")
