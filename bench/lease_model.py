"""What the lease model costs: memory for each claim, a restart, a round of pings, a name's life, a claim among many.

python bench/lease_model.py claims     100,000 claims of 1,000 sessions on three nodes
python bench/lease_model.py pings      10,000 sessions that ping as at a timeout of 10 s
python bench/lease_model.py churn      a million names, acquired and released
python bench/lease_model.py cost       one claim among 10, 1,000 and 100,000 others, by the state machine alone
"""

import argparse
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from raw import RawClient

from lessor.cli.local_cluster import LocalCluster
from lessor.core.ballot import Ballot
from lessor.core.commands import Claim, Command, OpenSession, Ping, Release
from lessor.core.encoding import encode
from lessor.core.entries import Batch, Lead
from lessor.core.lease_state import LeaseState
from lessor.core.resources import Mode, Resource
from lessor.core.results import ClaimStatus

TICKS = os.sysconf("SC_CLK_TCK")
WEEK_MS = 7 * 24 * 3600 * 1000
TERM = Ballot(1, 1)


def claim(name: str, ttl_ms: int = WEEK_MS) -> Claim:
    """Return a claim of a plain name that is had now or not at all."""
    return Claim("default", (Resource((name,)),), "bench", b"", ttl_ms, 0, detached=False)


def measure_claims(cluster: LocalCluster, claims: int, sessions: int) -> None:
    """Take so many names, and look at memory, files and a restart."""
    cluster.wait_for_leader()
    client = RawClient(list(cluster.endpoint_of.values()))
    before = {node: memory(cluster, node) for node in cluster.nodes}
    numbers = client.open_sessions(sessions, 30 * 60 * 1000)
    begun = time.monotonic()
    answers = client.ask((numbers[index % sessions], claim(f"name-{index}")) for index in range(claims))
    took = time.monotonic() - begun
    assert all(isinstance(answer.result, ClaimStatus) and answer.result.token for answer in answers)
    rate = f"{claims / took:.0f} a second"
    print(f"{claims} claims of {sessions} sessions were granted in {took:.1f} s ({rate}); {told(client)}")
    time.sleep(2)  # the lease tables are written twice a second
    for node in cluster.nodes:
        grown = memory(cluster, node) - before[node]
        print(f"node {node}: {grown / claims:.0f} bytes of memory for each claim; {files(cluster, node)}")
    leader = cluster.wait_for_leader()
    follower = next(node for node in cluster.nodes if node != leader)
    begun = time.monotonic()
    cluster.stop(follower)
    stopped = time.monotonic()
    cluster.start(follower)
    cluster.wait_until_caught_up(follower)
    print(f"node {follower} stops in {stopped - begun:.2f} s and is back after {time.monotonic() - stopped:.2f} s more")
    cluster.kill(follower)
    begun = time.monotonic()
    cluster.start(follower)
    cluster.wait_until_caught_up(follower)
    print(f"killed, it is back {time.monotonic() - begun:.2f} s after its start")
    ping_round(cluster, client, numbers)
    client.close()


def ping_round(cluster: LocalCluster, client: RawClient, sessions: list[int]) -> None:
    """Let every session ping once, as fast as it goes."""

    def measure(leader: int) -> str:
        cpu, size = cpu_s(cluster, leader), written_bytes(cluster, leader)
        begun = time.monotonic()
        client.ask((session, Ping(())) for session in sessions)
        took = time.monotonic() - begun
        cpu, size = cpu_s(cluster, leader) - cpu, written_bytes(cluster, leader) - size
        count = len(sessions)
        return (
            f"a ping of each of {count} sessions: {took:.2f} s; the leader used {cpu * 1e6 / count:.0f} us of CPU "
            f"and wrote {size / count:.0f} bytes to disk for each"
        )

    print(under_one_leader(cluster, client, measure))


def measure_pings(cluster: LocalCluster, sessions: int, timeout_s: float, seconds: float) -> None:
    """Let sessions ping at the pace of their timeout."""
    cluster.wait_for_leader()
    client = RawClient(list(cluster.endpoint_of.values()), window=20_000)
    numbers = client.open_sessions(sessions, int(timeout_s * 1000))
    every = timeout_s / 3
    rounds = max(1, int(seconds / every))
    slices = 60

    def measure(leader: int) -> str:
        idle = cpu_s(cluster, leader)
        time.sleep(2)
        idle = (cpu_s(cluster, leader) - idle) / 2
        cpu = {node: cpu_s(cluster, node) for node in cluster.nodes}
        size, begun = written_bytes(cluster, leader), time.monotonic()
        for turn in range(rounds):
            for part in range(slices):
                due = begun + turn * every + part * every / slices
                time.sleep(max(0.0, due - time.monotonic()))
                client.ask((session, Ping(())) for session in numbers[part::slices])
        took = time.monotonic() - begun
        size = written_bytes(cluster, leader) - size
        shares = {node: (cpu_s(cluster, node) - cpu[node]) / took for node in cluster.nodes}
        return (
            f"{sessions} sessions with a timeout of {timeout_s:g} s, pings each {every:.2f} s, for {took:.1f} s:\n"
            f"  {sessions / every:.0f} pings a second; the leader wrote {size / took / 1000:.1f} kB to disk a second\n"
            f"  CPU: leader {shares[leader]:.0%} of a core (idle {idle:.0%}), nodes {shares}"
        )

    print(under_one_leader(cluster, client, measure))
    client.close()


def under_one_leader(cluster: LocalCluster, client: RawClient, measure: Callable[[int], str]) -> str:
    """Return what was measured at the leader; if another one led before it was over, anew at that one."""
    while True:
        leader, changes = cluster.wait_for_leader(), client.leader_changes
        found = measure(leader)
        if client.leader_changes == changes and cluster.wait_for_leader() == leader:
            return found
        print("the leader has changed while it was measured: once more, at the new one")


def told(client: RawClient) -> str:
    """Return how often the leader changed, which took its time."""
    return f"the leader changed {client.leader_changes} times meanwhile"


def measure_churn(cluster: LocalCluster, names: int) -> None:
    """Take and release many names, each once."""
    cluster.wait_for_leader()
    client = RawClient(list(cluster.endpoint_of.values()))
    (session,) = client.open_sessions(1, 30 * 60 * 1000)
    begun = time.monotonic()
    step = 20_000
    sizes: dict[int, list[int]] = {node: [] for node in cluster.nodes}
    journals: dict[int, list[int]] = {node: [] for node in cluster.nodes}
    for first in range(0, names, step):
        taken = client.ask((session, claim(f"name-{index}")) for index in range(first, min(first + step, names)))
        refused = [answer.result for answer in taken if not isinstance(answer.result, ClaimStatus)]
        assert not refused, f"after {first} names {len(refused)} claims failed: {refused[:3]}"
        client.ask((session, Release(answer.result.token)) for answer in taken)
        for node in cluster.nodes:
            sizes[node].append((cluster.data_of(node) / "leases.db").stat().st_size)
            journals[node].append((cluster.data_of(node) / "journal.db").stat().st_size)
    took = time.monotonic() - begun
    pairs = f"{names / took:.0f} pairs a second"
    print(f"{names} names were acquired and released in {took:.0f} s ({pairs}); {told(client)}")
    client.ask([(session, Ping(()))])  # acknowledges the last answers, which are kept until then
    time.sleep(2)
    for node in cluster.nodes:
        fifth = min(len(sizes[node]) - 1, 4)
        early = sizes[node][fifth]
        cluster.stop(node)
        print(
            f"node {node}: leases.db had {early} bytes after {min(names, 5 * step)} names, {sizes[node][-1]} after "
            f"{names}; {in_use(cluster.data_of(node) / 'leases.db')} once its free pages are given back; "
            f"journal.db {journals[node][fifth]} and {journals[node][-1]}"
        )
    client.close()


def measure_cost() -> None:
    """Time one claim and its release among others, in the state machine alone."""
    for others in (10, 1_000, 100_000):
        for kind in ("plain names", "paths of three segments, some read", "one queue of waiters"):
            state, slot = _state_with(others, kind)
            commands = []
            number = state.header.last_claim * 4 + 10
            rounds = 2_000
            token = state.header.last_token
            for index in range(rounds):
                number += 2
                resources = _resources(kind, others + index)
                if kind == "one queue of waiters":
                    resources = (Resource(("elsewhere", str(index))),)
                commands.append(_command(1, number, Claim("default", resources, "h", b"", WEEK_MS, 0, detached=False)))
                commands.append(_command(1, number + 1, Release(token + index + 1)))
            begun = time.process_time()
            for first in range(0, len(commands), 100):
                slot += 1
                state.apply(slot, Batch(TERM, slot, tuple(commands[first : first + 100])))
            each = (time.process_time() - begun) / rounds
            print(f"{others:>7} claims, {kind}: {each * 1e6:.0f} us for a claim and its release, decoding included")


def _state_with(others: int, kind: str) -> tuple[LeaseState, int]:
    state = LeaseState()
    state.apply(1, Lead(TERM))
    state.apply(2, Batch(TERM, 2, (_command(0, 1, OpenSession(bytes(16), 30 * 60 * 1000, "")),)))
    slot = 2
    for first in range(0, others, 1000):
        slot += 1
        commands = []
        for index in range(first, min(first + 1000, others)):
            wait_ms = 24 * 3600 * 1000 if kind == "one queue of waiters" else 0
            asked = Claim("default", _resources(kind, index), "h", b"", WEEK_MS, wait_ms, detached=False)
            commands.append(_command(1, index + 2, asked))
        state.apply(slot, Batch(TERM, slot, tuple(commands)))
    return state, slot


def _resources(kind: str, index: int) -> tuple[Resource, ...]:
    if kind == "plain names":
        return (Resource((f"name-{index}",)),)
    if kind == "one queue of waiters":
        return (Resource(("contended",)),)
    path = (f"a{index % 10}", f"b{index % 1000}", f"c{index}")
    return (Resource(path, Mode.READ if index % 2 else Mode.WRITE),)


def _command(session: int, number: int, operation: object) -> bytes:
    return encode(Command(number, session, number, number, operation))  # type: ignore[arg-type]


def memory(cluster: LocalCluster, node: int) -> int:
    """Return the memory of a node's process that is in use, in bytes."""
    pages = int(Path(f"/proc/{cluster.pid_of(node)}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_s(cluster: LocalCluster, node: int) -> float:
    """Return the seconds of CPU that a node has used."""
    words = Path(f"/proc/{cluster.pid_of(node)}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


def written_bytes(cluster: LocalCluster, node: int) -> int:
    """Return how many bytes a node's process has sent to disk: whole pages, of its journal, lease tables and log.

    What lies in memory (tmpfs) is not counted.
    """
    for line in Path(f"/proc/{cluster.pid_of(node)}/io").read_text(encoding="ascii").splitlines():
        name, _, count = line.partition(": ")
        if name == "write_bytes":
            return int(count)
    raise RuntimeError("this kernel does not count what a process writes")


def in_use(database: Path) -> int:
    """Give back the free pages of a database that nobody has open, and return its size."""
    with closing(sqlite3.connect(database)) as connection:  # the file is written when it is closed
        connection.execute("VACUUM")
    return database.stat().st_size


def files(cluster: LocalCluster, node: int) -> str:
    """Return the sizes of a node's files, for people."""
    found = {path.name: path.stat().st_size for path in sorted(cluster.data_of(node).glob("*.db"))}
    return ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in found.items())


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("claims", "pings", "churn", "cost"))
    parser.add_argument("--directory", type=Path, help="where the nodes keep their data (default: a temporary one)")
    parser.add_argument("--claims", type=int, default=100_000)
    parser.add_argument("--sessions", type=int, default=0)
    parser.add_argument("--names", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    if options.what == "cost":
        measure_cost()
        return
    if options.directory:
        options.directory.mkdir(parents=True, exist_ok=True)
        if inside := sorted(options.directory.iterdir()):
            parser.error(
                f"--directory: {options.directory} is not empty (it has {inside[0].name}): it is for new nodes"
            )
    with LocalCluster(3, options.directory) as cluster:
        cluster.start()
        cluster.wait_for_leader()
        for node in cluster.nodes:
            cluster.wait_until_caught_up(node)  # one that starts late has no files yet
        if options.what == "claims":
            measure_claims(cluster, options.claims, options.sessions or 1_000)
        elif options.what == "pings":
            measure_pings(cluster, options.sessions or 10_000, 10.0, options.seconds)
        else:
            measure_churn(cluster, options.names)


if __name__ == "__main__":
    main()
