"""A client process of the bench: its workers acquire and release locks of their own, as fast as they are answered."""

import json
import sys
import threading
import time

from ..client.sync import Client, connect
from ..core.errors import LessorError
from .parent import end_with_parent

NAMESPACE = "bench"
TTL_S = 30.0
TIMEOUT_S = 10.0


class Worker(threading.Thread):
    """One worker with one lock."""

    def __init__(self, client: Client, name: str, start: threading.Event) -> None:
        """Prepare; it begins to count when `start` is set."""
        super().__init__(daemon=True)
        self.client = client
        self.lock_name = name
        self.start_counting = start
        self.until_ns = 0
        self.acquire_us: list[int] = []
        self.errors = 0
        self.warm = threading.Event()

    def run(self) -> None:
        """Work until `until_ns`, after one pair that opens the session and the connection."""
        self.client.acquire(self.lock_name, TTL_S, timeout=TIMEOUT_S).release()
        self.warm.set()
        self.start_counting.wait()
        acquire, name, took, clock = self.client.acquire, self.lock_name, self.acquire_us, time.perf_counter_ns
        while (begin := clock()) < self.until_ns:
            try:
                lease = acquire(name, TTL_S, timeout=TIMEOUT_S)
                took.append((clock() - begin) // 1000)
                lease.release()
            except LessorError:
                self.errors += 1


def main(arguments: list[str]) -> int:
    """Say `ready`, wait for a line, work, and print what came of it."""
    endpoints, count, seconds, prefix, parent = arguments
    end_with_parent(int(parent))
    start = threading.Event()
    with connect(endpoints, NAMESPACE) as client:
        workers = [Worker(client, f"{prefix}-{number}", start) for number in range(int(count))]
        for worker in workers:
            worker.start()
        if not all(worker.warm.wait(TIMEOUT_S) for worker in workers):
            print("the service does not answer", file=sys.stderr)
            return 1
        print("ready", flush=True)
        sys.stdin.readline()
        until_ns = time.perf_counter_ns() + int(float(seconds) * 1e9)
        for worker in workers:
            worker.until_ns = until_ns
        start.set()
        for worker in workers:
            worker.join()
    took = sorted(sample for worker in workers for sample in worker.acquire_us)
    print(json.dumps({"acquire_us": took, "errors": sum(worker.errors for worker in workers)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
