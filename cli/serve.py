"""`lessor serve`: one node of a cluster, in the foreground, until it is told to stop."""

import argparse
import gc
import logging
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Final, NoReturn

from ..core.errors import Corrupt, ForeignDatabase, LessorError
from ..transport.endpoints import parse_cluster
from ..transport.names import why_unresolved
from ..transport.ports import AddressInUse
from . import exit_codes
from .options import Commands, Parser, choice, host, positive
from .output import complain
from .parent import end_with_parent
from .server import needs_server

SUMMARY = "Run one node of a cluster in the foreground, until SIGTERM or Ctrl-C."
NOTES = """
A node has one base port, for clients; the four ports above it are for its peers and the event feed. Its directory
belongs to this node number for ever: a node that lost its directory stays away, and the others go on without it.
What happens is logged on stderr, one line for each event: that it listens, who leads, which node is missing. Clients
are served once a leader is known. SIGTERM ends it in order, with exit code 0; a second one ends it at once.
"""
EXAMPLES = """
lessor serve --node-id 1 --cluster 1=tcp://127.0.0.1:7411 --data ./node1           one node alone
lessor serve --node-id 2 --cluster 1=tcp://h1:7411,2=tcp://h2:7411,3=tcp://h3:7411 --data /var/lib/lessor
LESSOR_NODE_ID=3 LESSOR_CLUSTER=... LESSOR_DATA=/data lessor serve --bind 0.0.0.0  in a container
"""

CODES: Final = "0 1 2 70 78"

GC_THRESHOLDS: Final = (50_000, 20, 100)
"""How seldom the cycle collector runs; what it would find is next to nothing."""

SWITCH_INTERVAL_S: Final = 0.001
"""How long a thread may keep the interpreter while another wants it. A request passes through four threads of the
node, and each hand-over to a thread that just woke up may have to wait for as long as this; Python's own 5 ms would be
longer than all the rest of the way."""

LOOK_S: Final = 0.5

log = logging.getLogger("lessor")


def register(commands: "Commands[Parser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "serve", help="run one node of a cluster", summary=SUMMARY, notes=NOTES, examples=EXAMPLES, codes=CODES
    )
    parser.option("--node-id", metavar="N", read=positive, required=True, help="this node's number in the cluster")
    parser.option(
        "--cluster",
        metavar="MEMBERS",
        read=members,
        required=True,
        help="every node's number and where its clients connect, as in 1=tcp://h1:7411,2=tcp://h2:7411; "
        "the same on every node",
    )
    parser.option(
        "--data", metavar="DIR", read=_directory, required=True, help="the directory that keeps this node's state"
    )
    parser.option(
        "--bind", metavar="HOST", read=host, default="", shown="the host named in --cluster", help="where to listen"
    )
    parser.option(
        "--cluster-name", metavar="NAME", default="lessor", help="keeps clusters apart that meet on one network"
    )
    parser.switch("--strict-namespaces", help="a namespace must be created before it is used; the same on every node")
    parser.option(
        "--log-level",
        metavar="LEVEL",
        read=choice("debug", "info", "warning", "error"),
        default="info",
        help="debug, info, warning or error",
    )
    parser.option(
        "--parent", metavar="PID", read=positive, help="end at once when this process, the parent, ends (for tests)"
    )
    parser.set_defaults(run=run, parser=parser)


def members(text: str) -> dict[int, str]:
    """Read the members of the cluster."""
    try:
        return parse_cluster(text)
    except LessorError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _directory(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("a directory needs a name (is a variable unset?)")
    path = Path(text)
    there = next((part for part in (path, *path.parents) if part.exists()), path)
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{str(there)!r} is no directory: name one, it is made if it is not there")
    return path


def run(options: argparse.Namespace) -> int:
    """Run the node and return its exit code."""
    if options.parent:
        end_with_parent(options.parent)
    if not __debug__:
        complain("serve", "a node does not run under `python -O` or PYTHONOPTIMIZE: its assertions are part of it")
        return exit_codes.USAGE
    with needs_server("lessor serve"):
        from ..actors.node import Node, NodeConfig
        from ..storage.failures import StorageFailed
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    set_up_log(options.log_level)
    demand = Demand()
    config = NodeConfig(
        options.node_id,
        options.cluster,
        options.data,
        options.cluster_name,
        options.bind,
        strict=options.strict_namespaces,
    )
    try:
        with Node(config, on_fatal=_end) as node:
            node.start()
            # our messages hold no cycles, and a full collection walks the whole lease state while every role waits
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            reason = demand.wait()
    except (Corrupt, ForeignDatabase) as error:
        complain("serve", str(error))
        return exit_codes.NODE_UNUSABLE
    except AddressInUse as error:
        own = f"tcp://{options.bind}:1" if options.bind else options.cluster[options.node_id]
        why = why_unresolved([own])
        complain("serve", f"{why}; give --bind the address to listen on" if why else str(error))
        return exit_codes.FAILED
    except StorageFailed as error:
        complain("serve", str(error))
        return _code_of(error)
    log.info("node %d has stopped, as %s demands", options.node_id, reason)
    return exit_codes.OK


class Demand:
    """The wish of an operator or a supervisor that the node shall stop, which a signal tells."""

    def __init__(self) -> None:
        """Take over SIGTERM and SIGINT. Neither interrupts what the node is doing: it is stopped in order."""
        self._told = threading.Event()
        self._name = ""
        signal.signal(signal.SIGTERM, self._tell)
        signal.signal(signal.SIGINT, self._tell)

    def wait(self) -> str:
        """Wait for the first signal, and return its name."""
        # not for ever at a time: a signal may come in the moment between looking for one and waiting
        while not self._told.wait(LOOK_S):
            pass
        return self._name

    def _tell(self, number: int, _frame: Any) -> None:
        if self._told.is_set():
            # whoever asks twice does not want to wait; nothing is lost by it, what was said is on disk
            os._exit(exit_codes.SIGNALLED + number)
        self._name = signal.Signals(number).name
        self._told.set()


def _end(_role: str, error: BaseException) -> NoReturn:
    """End the whole process at once: a node that lacks one role answers some questions and not others; better none."""
    os._exit(_code_of(error))


def _code_of(error: BaseException) -> int:
    from ..storage.failures import StorageForbidden  # the server is installed, if a node has failed

    unusable = isinstance(error, Corrupt | ForeignDatabase | StorageForbidden)
    return exit_codes.NODE_UNUSABLE if unusable else exit_codes.NODE_FAILED


# --- the log ---------------------------------------------------------------------------------------------------------


class LineFormatter(logging.Formatter):
    """One line for each event, whatever it carries: the time in UTC, the level, the words."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None and not isinstance(record.exc_info[1], LessorError):
            text += " | " + "".join(traceback.format_exception(record.exc_info[1]))
        line = " | ".join(part.strip() for part in text.splitlines() if part.strip())
        return f"{when}.{int(record.msecs):03}Z {record.levelname.lower():8} {line}"


def set_up_log(level: str) -> None:
    """Log to stderr from this level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("pykka").setLevel(max(logging.WARNING, logging.getLogger().level))
