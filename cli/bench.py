"""`lessor bench`: how many locks are acquired and released in a second, how long that takes, and what it costs."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from ..client.errors import Unavailable
from ..client.status import ask_status
from ..core import limits
from ..core.errors import LessorError
from . import exit_codes
from .local_cluster import LocalCluster
from .options import Commands, Parser, add_json, endpoints, positive, positives, some_time, variable_of
from .output import print_json, table
from .server import require_server
from .temporary import temporary_directory

SUMMARY = (
    "Measure pairs of acquire and release, each worker with a lock of its own: throughput, latency, CPU, batching."
)
NOTES = """
A cluster of real nodes is started on this machine, measured, and removed with its data. Only --endpoints, given as a
flag, has a service measured that is there, with locks in its namespace `bench`: LESSOR_ENDPOINTS is not heeded here.
The first line says what is measured.

The workers are threads that share one client, or one client in each of several processes (--processes). Every acquire
and every release is synced to the disks of a majority before it is answered, so the disk matters: on a tmpfs a sync
costs nothing, and the result says little.

The exit code is 1 if a request failed.
"""
EXAMPLES = """
lessor bench
lessor bench --workers 1,16,64,256 --processes 2 --directory /var/tmp
lessor bench --endpoints tcp://h1:7411,tcp://h2:7411,tcp://h3:7411 --json
"""

TICKS: Final = os.sysconf("SC_CLK_TCK")
SLACK_S: Final = 30.0


class BenchFailed(LessorError):
    """A client process could not do its work."""


@dataclass(slots=True)
class Run:
    """What one number of workers achieved. CPU is in cores: 1.0 is one core all the time."""

    workers: int
    pairs_per_s: float
    acquire_p50_ms: float
    acquire_p99_ms: float
    errors: int
    leader: int
    mean_batch: float | None
    cpu: dict[str, float] = field(default_factory=dict)


def register(commands: "Commands[Parser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "bench", help="how fast it is", summary=SUMMARY, notes=NOTES, examples=EXAMPLES, codes="0 1 2 74 121 128+N"
    )
    parser.option(
        "--workers",
        metavar="LIST",
        read=positives,
        default=[1, 16, 64],
        shown="1,16,64",
        help="how many, one run for each",
    )
    parser.option("--seconds", metavar="TIME", read=some_time, default=5.0, shown="5s", help="how long each run takes")
    parser.option(
        "--processes", metavar="N", read=positive, default=1, help="spread the workers over so many client processes"
    )
    parser.option("--nodes", metavar="N", read=_nodes, default=3, help="size of the cluster that is started")
    parser.option(
        "--directory",
        metavar="DIR",
        read=_directory,
        shown="that of temporary files",
        help="where the nodes that are started keep their data, in a directory of its own",
    )
    parser.option(
        "--endpoints",
        metavar="LIST",
        read=endpoints,
        flag_only=True,
        help="measure the service there, and start no cluster; only as a flag",
    )
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Measure, and print."""
    with _service(options) as (service, pids, directory):
        filesystem = _filesystem(directory) if directory else None
        if not options.json:
            print(
                f"measuring {_what(options, service, filesystem)}; "
                f"{options.processes} client process(es), {options.seconds:g} s for each line",
                flush=True,
            )
        runs = []
        for workers in options.workers:
            runs.append(_measure(service, pids, workers, min(workers, options.processes), options.seconds))
            if not options.json:
                _print_run(runs[-1], first=len(runs) == 1)
    if options.json:
        nodes = options.nodes if directory else None
        print_json(
            {
                "endpoints": options.endpoints,
                "nodes": nodes,
                "filesystem": filesystem,
                "processes": options.processes,
                "seconds": options.seconds,
                "runs": [asdict(each) for each in runs],
            }
        )
    return exit_codes.FAILED if any(each.errors for each in runs) else exit_codes.OK


def _nodes(text: str) -> int:
    count = positive(text)
    if count > limits.NODES_MAX:
        raise argparse.ArgumentTypeError(f"a cluster has at most {limits.NODES_MAX} nodes, not {count}")
    return count


def _directory(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(
            f"{text!r} is {'no directory' if path.exists() else 'not there; make it first'}"
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{text!r} may not be written to by this user")
    return path


def _what(options: argparse.Namespace, service: list[str], filesystem: str | None) -> str:
    if options.endpoints:
        return f"the service at {','.join(service)}"
    other = os.environ.get(variable_of("--endpoints"))
    aside = f", not the service of LESSOR_ENDPOINTS (for that, give --endpoints {other})" if other else ""
    return f"a cluster of its own, {options.nodes} node(s) on this machine, data on {filesystem}{aside}"


@contextmanager
def _service(options: argparse.Namespace) -> Iterator[tuple[list[str], dict[str, int], Path | None]]:
    """Find the service or start it; give its endpoints, the processes of its nodes and where they keep their data."""
    if options.endpoints:
        if not ask_status(options.endpoints).answers:
            raise Unavailable(f"no node answers at {','.join(options.endpoints)}", indefinite=False)
        yield options.endpoints, {}, None
        return
    require_server("lessor bench")
    with (
        temporary_directory("lessor-bench-", options.directory) as made,
        LocalCluster(options.nodes, made.path) as cluster,
    ):
        cluster.start()
        cluster.wait_for_leader()
        pids = {f"node{node}": cluster.pid_of(node) for node in cluster.nodes}
        yield list(cluster.endpoint_of.values()), pids, made.path


def _measure(service: list[str], pids: dict[str, int], workers: int, processes: int, seconds: float) -> Run:
    shares = [workers // processes + (number < workers % processes) for number in range(processes)]
    clients = {
        f"client{number}": _start_client(service, share, seconds, number) for number, share in enumerate(shares, 1)
    }
    try:
        for client in clients.values():
            assert client.stdout is not None
            if client.stdout.readline() != "ready\n":
                raise BenchFailed(f"a client process did not become ready: {client.communicate()[1].strip()}")
        before, cpu_before = _counters(service), _cpu(pids, clients)
        for client in clients.values():
            assert client.stdin is not None
            client.stdin.write("go\n")
            client.stdin.flush()
        found = [json.loads(_result_of(client, seconds)) for client in clients.values()]
        cpu_after, after = _cpu(pids, clients), _counters(service)
        for client in clients.values():
            client.communicate(timeout=SLACK_S)
    finally:
        for client in clients.values():
            client.kill()
            client.wait()
    took = sorted(sample for each in found for sample in each["acquire_us"])
    leader, counts = after
    return Run(
        workers=workers,
        pairs_per_s=round(len(took) / seconds, 1),
        acquire_p50_ms=_quantile_ms(took, 0.50),
        acquire_p99_ms=_quantile_ms(took, 0.99),
        errors=sum(each["errors"] for each in found),
        leader=leader,
        mean_batch=_mean_batch(before[1], counts),
        cpu={name: round((cpu_after[name] - cpu_before[name]) / seconds, 2) for name in cpu_before},
    )


def _start_client(service: list[str], workers: int, seconds: float, number: int) -> "subprocess.Popen[str]":
    arguments = [",".join(service), str(workers), str(seconds), f"lock-{os.getpid()}-{number}", str(os.getpid())]
    return subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "lessor.cli.bench_load", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def _result_of(client: "subprocess.Popen[str]", seconds: float) -> str:
    """Return the line that a client prints at its end; it is still there then, so that its CPU can be read."""
    assert client.stdout is not None
    line = client.stdout.readline()
    if not line:
        raise BenchFailed(f"a client process failed: {client.communicate(timeout=seconds)[1].strip()}")
    return line


def _counters(service: list[str]) -> tuple[int, dict[str, int]]:
    """Return the leader, and the counters of its node."""
    cluster = ask_status(service)
    answer = next((answer for answer in cluster.answers if answer.node == cluster.leader), None)
    return cluster.leader, {counter.name: counter.value for counter in answer.counters} if answer else {}


def _mean_batch(before: dict[str, int], after: dict[str, int]) -> float | None:
    """Return how many commands the leader put into one slot, None if it does not count them."""
    batches = after.get("batches", 0) - before.get("batches", 0)
    commands = after.get("batched_commands", 0) - before.get("batched_commands", 0)
    return round(commands / batches, 1) if batches > 0 else None


def _cpu(pids: dict[str, int], clients: "dict[str, subprocess.Popen[str]]") -> dict[str, float]:
    """Return the seconds of CPU that each process has used."""
    found = {}
    for name, pid in (pids | {name: client.pid for name, client in clients.items()}).items():
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        found[name] = (int(words[11]) + int(words[12])) / TICKS  # in user mode and in the kernel
    return found


def _quantile_ms(ordered: list[int], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1000, 2) if ordered else 0.0


def _filesystem(directory: Path) -> str:
    """Return the kind of file system that a directory is on."""
    path = str(directory.resolve())
    best, kind = "", "an unknown file system"
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, found = line.split()[:3]
        inside = path == mount or path.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, found
    return kind


def _print_run(found: Run, *, first: bool) -> None:
    header = ["WORKERS", "PAIRS/S", "P50 ms", "P99 ms", "BATCH", "ERRORS"]
    row: list[Any] = [
        found.workers,
        f"{found.pairs_per_s:.0f}",
        f"{found.acquire_p50_ms:.2f}",
        f"{found.acquire_p99_ms:.2f}",
        "-" if found.mean_batch is None else f"{found.mean_batch:.1f}",
        found.errors,
    ]
    for name, cores in found.cpu.items():
        header.append(f"CPU {name}")
        row.append(f"{'*' if name == f'node{found.leader}' else ''}{cores * 100:.0f}%")
    lines = table(
        header, [[f"{cell:>{len(title)}}" for cell, title in zip(row, header, strict=True)]], header
    ).splitlines()
    print("\n".join(lines if first else lines[1:]), flush=True)
