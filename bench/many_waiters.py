"""Measures one client with many waiters: 500 threads, or 5,000 asyncio tasks, on one contended lock and on their own.

    python bench/many_waiters.py [--threads 500] [--tasks 5000]

One embedded node in a process of its own answers. Each waiter acquires and releases once; the contended lock must be
handed on in the order in which the claims came. Memory is what the process of the client grew by while all waited.
"""

import argparse
import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lessor

NODE = (
    "import sys, lessor\nwith lessor.embedded() as node:\n    print(node.endpoints, flush=True)\n    sys.stdin.read()"
)


class Run:
    """What the waiters of one measurement saw."""

    def __init__(self, what: str, waiters: int) -> None:
        """Begin to measure."""
        self.what = what
        self.waiters = waiters
        self.before_kb = memory_kb()
        self.waiting_kb = 0
        self.claims: list[int] = []
        self.began = time.perf_counter()

    def took(self, lease: lessor.Lease | lessor.aio.Lease) -> None:
        """Count a lease, held by whoever calls."""
        if not self.claims:
            self.waiting_kb = memory_kb()
        self.claims.append(lease._record.claim)

    def report(self, *, in_order: bool) -> None:
        """Print the figures; nobody may have been left out or overtaken."""
        seconds = time.perf_counter() - self.began
        assert len(self.claims) == self.waiters, "all were served"
        assert not in_order or self.claims == sorted(self.claims), "in the order in which they came"
        each = (self.waiting_kb - self.before_kb) / self.waiters
        print(
            f"{self.what:34} {self.waiters:5}  {seconds:6.2f} s  {self.waiters / seconds:7.0f} pairs/s"
            f"  {memory_kb() / 1024:5.0f} MB, {each:5.1f} KB for each that waits",
            flush=True,
        )


@contextmanager
def node() -> Iterator[str]:
    """Run a node in a process of its own, and give its endpoints."""
    with subprocess.Popen(
        [sys.executable, "-c", NODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()  # which it waits for


def memory_kb() -> int:
    """Return what this process has in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4


def with_threads(endpoints: str, count: int, *, contended: bool, session_timeout: float = 10) -> None:
    """Have so many threads acquire and release once."""
    with lessor.connect(endpoints, request_timeout=300, session_timeout=session_timeout) as client:
        first = client.acquire("gate")
        run = Run("threads, one lock" if contended else "threads, a lock each", count)
        took = threading.Lock()

        def work(number: int) -> None:
            with client.lock("gate" if contended else f"name {number}") as lease, took:
                run.took(lease)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        while contended and sum(view.waiting for view in client.leases()) < count:
            pass
        if contended:
            run.began = time.perf_counter()  # from the moment at which all of them wait
        first.release()
        for thread in threads:
            thread.join()
        run.report(in_order=contended)


async def with_tasks(endpoints: str, count: int, *, contended: bool, session_timeout: float = 10) -> None:
    """Have so many tasks acquire and release once."""
    async with lessor.aio.connect(endpoints, request_timeout=300, session_timeout=session_timeout) as client:
        first = await client.acquire("gate")
        run = Run("tasks, one lock" if contended else "tasks, a lock each", count)

        async def work(number: int) -> None:
            async with client.lock("gate" if contended else f"name {number}") as lease:
                run.took(lease)

        tasks = [asyncio.create_task(work(number)) for number in range(count)]
        while contended and sum(view.waiting for view in await client.leases()) < count:
            pass
        if contended:
            run.began = time.perf_counter()
        await first.release()
        await asyncio.gather(*tasks)
        run.report(in_order=contended)


def main() -> None:
    """Measure each in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=500)
    parser.add_argument("--tasks", type=int, default=5000)
    options = parser.parse_args()
    with node() as endpoints:
        for contended in (True, False):
            with_threads(endpoints, options.threads, contended=contended)
            asyncio.run(with_tasks(endpoints, options.tasks, contended=contended))


if __name__ == "__main__":
    main()
