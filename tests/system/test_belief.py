"""No client believes that it holds what another one holds (P3, P8): real processes killed, paused, cut off, forked.

Each process looks at its lease over and over, in every way there is, and writes down what it was told and when, by the
clock that they all share. A second process stands in line for the same name. Afterwards the two accounts are compared.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, Self

import pytest

import lessor
from lessor.cli.local_cluster import LocalCluster
from lessor.testing.network import CLIENTS, Network, Way

from ..support import believer
from ..support.believer import ASKS, Look, looks, now_ns, spans
from ..support.waiting import until

pytestmark = pytest.mark.system

TTL: Final = 2.5
LATE: Final = 20.0
"""After the ttl of a dead client the next one is served within this, long before its session ends; idle machines need
less than a hundredth of it."""

LONG_TTL: Final = 60
"""Of those to whom nothing is done: they hold until they are told to end, though they stand still for a while."""

FACES: Final = ("thread", "asyncio", "keeper", "forked")

TRANSLATION: Final = """
import os
from lessor.transport import sockets

connect, doors = sockets.dealer, dict(pair.split("=") for pair in os.environ["DOORS"].split())
sockets.dealer = lambda context, endpoint, lane=0: connect(context, doors[endpoint], lane)
"""
"""Has every Python process, helpers too, reach each node through a door of its own, whoever told it of the node."""


class Believer:
    """A process that holds a lease of a name, or waits for it, and what it has written down."""

    def __init__(self, face: str, endpoints: str, name: str, ttl: float, files: Path, **environment: str) -> None:
        """Start it."""
        self._files = files
        self._book = Path(f"{files}.book")
        command = [sys.executable, believer.__file__, face, endpoints, name, str(ttl), str(self._book)]
        with Path(f"{files}.said").open("wb") as said, Path(f"{files}.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=said, stderr=log, env=os.environ | environment
            )
        self.pids = [self._process.pid]

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process."""
        self._tell(signal.SIGKILL, {*self.pids, self._process.pid})
        self._process.communicate()

    @property
    def book(self) -> list[Look]:
        """Every look that was written down."""
        return looks(self._book)

    @property
    def child(self) -> list[Look]:
        """Those of the child that it has forked."""
        return looks(Path(f"{self._book}.child"))

    def has_said(self, what: str, times: int = 1) -> bool:
        """Whether it has said this so often."""
        return len(re.findall(f"^{what}.*\n", Path(f"{self._files}.said").read_text("utf-8"), re.MULTILINE)) >= times

    def line(self, what: str, *, which: int = 0) -> list[str]:
        """Wait until it has said something that begins so, and return the words after that."""

        def found() -> list[list[str]]:
            assert self._process.poll() in (None, 0, -signal.SIGKILL), Path(f"{self._files}.log").read_text("utf-8")
            lines = Path(f"{self._files}.said").read_text("utf-8").splitlines(keepends=True)
            said = [line.split() for line in lines if line.startswith(what) and line.endswith("\n")]
            return said[which : which + 1]

        return until(found, f"the process says that it has {what}")[0][1:]

    def has_held(self, *, which: int = 0) -> tuple[int, int]:
        """Wait until it holds; return since when, and under which token."""
        since, token, *pids = map(int, self.line("held", which=which))
        self.pids = pids
        return since, token

    def believes_until(self) -> int:
        """Return the latest deadline that it has reckoned with."""
        return max(look.until for look in self.book)

    def goes_on(self, look: Callable[[], list[Look]] | None = None) -> None:
        """Wait until it has looked in every way, a good many times, from now on."""
        now = now_ns()
        read = look or (lambda: self.book)

        def enough() -> bool:
            kinds = [each.kind for each in read() if each.before > now]
            return all(kinds.count(kind) >= 20 for kind in range(len(ASKS)))

        until(enough, "it goes on to look")

    def stand_still(self) -> None:
        """Stop whatever belongs to it."""
        self._tell(signal.SIGSTOP, self.pids)
        for pid in self.pids:
            until(lambda pid=pid: state_of(pid) in "TZ", "it stands still")  # type: ignore[misc]

    def wake(self) -> int:
        """Let it go on, and return a moment before that."""
        now = now_ns()
        self._tell(signal.SIGCONT, self.pids)
        return now

    def _tell(self, number: signal.Signals, pids: Iterable[int]) -> None:
        """Send a signal to those that live: a helper ends with its lease, which may be lost early."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self) -> None:
        """Let it come to its end."""
        self._process.communicate(timeout=60)


def state_of(pid: int) -> str:
    """Return what the kernel calls the state of a process; of one that has gone, that of one that is to go."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(") ", maxsplit=1)[1][0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


class Stage:
    """A cluster, and a network between it and one of the clients."""

    def __init__(self, cluster: LocalCluster, network: Network, files: Path) -> None:
        """Let everything pass."""
        self.cluster = cluster
        self.network = network
        self.name = files.name
        self._files = files
        self._stack = ExitStack()
        doors = [f"{cluster.endpoint_of[node]}={network.endpoint(CLIENTS, node)}" for node in cluster.nodes]
        (files / "sitecustomize.py").write_text(TRANSLATION)
        path = os.pathsep.join(filter(None, (str(files), os.environ.get("PYTHONPATH"))))
        self._behind_doors = {"PYTHONPATH": path, "DOORS": " ".join(doors)}
        self.connect()
        self.network.heal()

    def victim(self, face: str) -> Believer:
        """Start the process that things are done to, and wait until it holds and has looked."""
        files, doors = self._files / "one", self._behind_doors
        victim = self._start(Believer(face, self.cluster.endpoints, self.name, TTL, files, **doors))
        victim.has_held()
        victim.goes_on()
        return victim

    def rival(self) -> Believer:
        """Start the process that stands in line, and wait until it does."""
        files = self._files / "two"
        rival = self._start(Believer("thread", self.cluster.endpoints, self.name, LONG_TTL, files))
        self.wait_for_the_line(rival)
        return rival

    def wait_for_the_line(self, process: Believer, *, holds: int = 1) -> None:
        """Wait until somebody stands in line; or holds already, on a machine that stood still meanwhile.

        Args:
            process: of which the one in line is.
            holds: how often it has said that it holds, if the one in line does.
        """
        with lessor.connect(self.cluster.endpoints) as client:

            def there() -> bool:
                waits = any(view.waiting for view in client.describe(self.name))
                return waits or process.has_said("held", holds)

            until(there, "somebody stands in line")

    def _start(self, process: Believer) -> Believer:
        return self._stack.enter_context(process)

    @property
    def up(self) -> list[Way]:
        """The ways from the client to the nodes."""
        return [(CLIENTS, node) for node in self.cluster.nodes]

    @property
    def down(self) -> list[Way]:
        """The ways back."""
        return [(node, CLIENTS) for node in self.cluster.nodes]

    def break_connections(self) -> None:
        """Reset every connection, and refuse new ones."""
        for node in self.cluster.nodes:
            self.network.down(node)

    def connect(self) -> None:
        """Let connections in."""
        for node, endpoint in self.cluster.endpoint_of.items():
            self.network.up(node, int(endpoint.rsplit(":", maxsplit=1)[1]))

    def close(self) -> None:
        """End the processes."""
        self._stack.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Three real nodes, for all tests of this file: none of them harms a node."""
    with LocalCluster(3) as nodes:
        nodes.start()
        nodes.wait_for_leader()
        yield nodes


@pytest.fixture(scope="module")
def network(cluster: LocalCluster) -> Iterator[Network]:
    """The doors of the one who is cut off."""
    doors = Network(cluster.nodes)
    yield doors
    doors.close()


@pytest.fixture
def stage(cluster: LocalCluster, network: Network, tmp_path: Path) -> Iterator[Stage]:
    """A name of its own for each test."""
    made = Stage(cluster, network, tmp_path)
    yield made
    made.close()
    shutil.rmtree(tmp_path)  # many looks take much room


def overlaps(*books: list[Look]) -> list[tuple[tuple[int, int, int], tuple[int, int, int]]]:
    """Return the pairs of beliefs, of different processes, that there was a moment of both of."""
    believed = [(number, span) for number, book in enumerate(books) for span in spans(book)]
    return [
        (one, two)
        for mine, one in believed
        for yours, two in believed
        if mine < yours and one[0] <= two[1] and two[0] <= one[1]
    ]


def compare(victim: list[Look], rival: list[Look], *, knows: bool = True) -> None:
    """Both have held it, one after the other; and the first one looked while the second one held, in every way."""
    (first,), (second,) = list(spans(victim)), list(spans(rival))
    assert first[2] < second[2], "one token after the other"
    meanwhile = [look for look in victim if second[0] <= look.before <= second[1]]
    assert overlaps(victim, rival) == []
    assert [look for look in meanwhile if look.said] == []
    assert not knows or {look.kind for look in meanwhile} == set(range(len(ASKS))), "it looked"


@pytest.mark.parametrize("face", FACES)
def test_what_a_killed_client_held_is_the_next_one_s_after_its_deadline_and_soon_after_its_ttl(
    stage: Stage, face: str
) -> None:
    """P3, P4: no sooner than the dead one could have believed, had it lived."""
    victim = stage.victim(face)
    rival = stage.rival()
    os.kill(victim.pids[0], signal.SIGKILL)
    killed = now_ns()
    granted, _ = rival.has_held()
    rival.goes_on()
    rival.end()
    compare(victim.book, rival.book, knows=False)
    # had it lived, it would have gone on to hold until then; unless the machine stood still before
    assert victim.believes_until() <= granted <= killed + (TTL + LATE) * 1e9


@pytest.mark.parametrize("face", FACES)
def test_a_client_that_wakes_up_after_its_ttl_knows_with_its_first_look_that_it_has_lost(
    stage: Stage, face: str
) -> None:
    """P8: SIGSTOP until the next one holds, then SIGCONT."""
    victim = stage.victim(face)
    rival = stage.rival()
    victim.stand_still()
    rival.has_held()
    rival.goes_on()
    woken = victim.wake()
    victim.goes_on()
    rival.goes_on()
    victim.end()
    rival.end()
    assert [look for look in victim.book if look.before >= woken and look.said] == []
    assert {look.kind for look in victim.book if look.before >= woken} == set(range(len(ASKS)))
    compare(victim.book, rival.book)
    assert victim.line("lost"), "and its `with` says so"
    rival.line("released")


def cut_both_ways(stage: Stage, _: Believer) -> None:
    """Let nothing pass; no connection is closed."""
    stage.network.silence(stage.up + stage.down)


def lose_answers(stage: Stage, _: Believer) -> None:
    """Let requests arrive, and no answer: the renewals of the one who is cut off count."""
    stage.network.silence(stage.down)


def lose_requests(stage: Stage, _: Believer) -> None:
    """Let answers and news arrive, and no request."""
    stage.network.silence(stage.up)


def reset(stage: Stage, _: Believer) -> None:
    """Break every connection."""
    stage.break_connections()


def answer_late(stage: Stage, victim: Believer) -> None:
    """Hold a renewal's answer back for a while, and let nothing pass but that: what it says counts from the asking."""
    with lessor.connect(stage.cluster.endpoints) as client:

        def held() -> lessor.LeaseView | None:
            """Return its lease, None once it has ended: so it does if the machine stands still for long."""
            holder = client.describe(stage.name)[0]
            return holder if holder.token == token else None

        _, token = victim.has_held()
        stage.network.silence(stage.down)
        before = client.describe(stage.name)[0].expire_time_unsafe()
        until(
            lambda: (lease := held()) is None or lease.expire_time_unsafe() > before + TTL * 100,
            "a renewal has arrived",
        )
        until(lambda: (lease := held()) is None or lease.expires_in < 0.7 * TTL, "its answer is late")
    known = victim.believes_until()
    stage.network.silence(stage.up)
    stage.network.heal(stage.down)
    until(lambda: victim.believes_until() > known or not victim.book[-1].said, "the answer has arrived")
    stage.network.silence(stage.down)


@pytest.mark.parametrize("cut", [cut_both_ways, lose_answers, lose_requests, reset, answer_late])
@pytest.mark.parametrize("face", FACES)
def test_a_client_that_is_cut_off_knows_that_it_has_lost_before_the_next_one_holds(
    stage: Stage, face: str, cut: Callable[[Stage, Believer], None]
) -> None:
    """P3, P8: and when it is reached again, it takes nothing from the one who holds now."""
    victim = stage.victim(face)
    rival = stage.rival()
    cut(stage, victim)
    rival.has_held()
    victim.goes_on()
    stage.network.heal()
    stage.connect()
    victim.goes_on()
    rival.goes_on()
    victim.end()
    rival.end()
    compare(victim.book, rival.book)
    assert victim.line("lost"), "and its `with` says so"
    rival.line("released")


def test_the_child_of_a_fork_never_believes_in_its_parent_s_lease_and_the_parent_not_in_the_child_s(
    stage: Stage,
) -> None:
    """P3: the child inherits the lease as an object; then it stands in line, and its parent stands still."""
    parent = stage.victim("forks")
    stage.wait_for_the_line(parent, holds=2)
    inherited = parent.child
    parent.stand_still()
    parent.line("held", which=1)
    parent.goes_on(lambda: parent.child)
    woken = parent.wake()
    parent.goes_on()
    parent.goes_on(lambda: parent.child)
    parent.end()
    assert inherited
    assert [look for look in inherited if look.said] == []
    assert [look for look in parent.book if look.before >= woken and look.said] == []
    compare(parent.book, parent.child)
