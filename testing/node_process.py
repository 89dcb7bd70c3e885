"""The process of one node of a test cluster; it ends with the process that started it."""

import ast
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from ..actors.node import Node, NodeConfig
from ..transport.ports import AddressInUse


def main(described: str) -> int:
    """Run the node that is described, until SIGTERM."""
    threading.Thread(target=_end_with_stdin, name="lessor-parent", daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # in every thread: the main one waits for it
    node, endpoints, data, *rest = ast.literal_eval(described)
    try:
        with Node(NodeConfig(node, endpoints, Path(data), *rest), on_fatal=_end) as running:
            running.start()
            _tell("ready")
            signal.sigwait({signal.SIGTERM})
    except AddressInUse:
        _tell("address in use")
        return 1
    return 0


def _tell(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def _end_with_stdin() -> None:
    while os.read(0, 1024):
        pass
    os._exit(0)


def _end(role: str, error: BaseException) -> Any:
    sys.stderr.write(f"{role}: {error}\n")
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
