"""A client process of the demo: takes the lock, works for a moment under its token, gives it back, and again."""

import random
import sys
import threading
import time
from pathlib import Path
from typing import Final

from ...client.sync import connect
from ...core.errors import LessorError
from ..parent import end_with_parent
from .ledger import FAILED, LOST, RELEASED, Ledger

NAMESPACE: Final = "demo"
LOCK: Final = "the-guarded-file"
TTL_S: Final = 5.0
TIMEOUT_S: Final = 20.0
WORK_S: Final = (0.008, 0.024)


def main(arguments: list[str]) -> int:
    """Work until the standard input ends."""
    name, endpoints, directory, parent = arguments
    end_with_parent(int(parent))
    stopping = threading.Event()
    threading.Thread(target=_stop_at_end_of_input, args=(stopping,), daemon=True).start()
    ledger = Ledger(Path(directory), name)
    with connect(endpoints, NAMESPACE, holder=name) as client:
        while not stopping.is_set():
            try:
                with client.lock(LOCK, ttl=TTL_S, timeout=TIMEOUT_S) as lease:
                    ledger.enter(lease.token)
                    time.sleep(random.uniform(*WORK_S))  # noqa: S311 - the work, of a length that varies
                    if not lease.held:
                        ledger.record(LOST, lease.token, lease.lost_reason)
                    ledger.leave(lease.token)
                    ledger.record(RELEASED, lease.token, "held" if lease.release() else "not held")
            except LessorError as error:
                ledger.record(FAILED, 0, f"{type(error).__name__}: {error}")
    ledger.close()
    return 0


def _stop_at_end_of_input(stopping: threading.Event) -> None:
    sys.stdin.read()
    stopping.set()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
