"""The whole command line: finds the subcommand, and turns each error that it may raise into a line and an exit code."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from ..client.errors import AcquireTimeout, ServiceBusy, Unavailable
from ..core.errors import BadRequest, LessorError
from ..transport.names import why_unresolved
from . import (
    bench,
    breaking,
    exit_codes,
    listing,
    lock,
    namespaces,
    pins,
    registers,
    semaphores,
    serve,
    sessions,
    show,
    sim,
    status,
    watch,
)
from .demo import command as demo
from .explain import explain
from .options import Parser, command_of, split_command
from .output import complain
from .server import ServerMissing

SUMMARY = (
    "A distributed lock and lease service: three or five small servers that agree on who holds what and until when."
)
NOTES = """
`lessor COMMAND --help` has more. Every option has an environment variable of the same name: --node-id is
LESSOR_NODE_ID; but `bench` takes --endpoints as a flag only. `lock` exits with the code of the command that it ran, if
that ran to its end.
"""
EXAMPLES = """
lessor demo                                        see it work, on this machine, in a quarter of a minute
lessor serve --node-id 1 --cluster 1=tcp://127.0.0.1:7411 --data ./node1
lessor lock nightly-report -- ./report.sh          run a command while holding a lock
lessor show nightly-report                         who holds it, who waits, and why it is not free
lessor status                                      how the nodes are
"""

COMMANDS: Final[tuple[Any, ...]] = (
    serve,
    demo,
    lock,
    listing,
    show,
    breaking,
    watch,
    status,
    sessions,
    namespaces,
    semaphores,
    pins,
    registers,
    bench,
    sim,
)


def build_parser() -> Parser:
    """Return the parser of the whole command line."""
    from .. import __version__

    parser = Parser(prog="lessor", summary=SUMMARY, examples=EXAMPLES, notes=NOTES, codes=" ".join(exit_codes.MEANINGS))
    parser.add_argument("--version", action="version", version=f"lessor {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.register(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    if sys.stdout is None:  # it was closed before we began: what is written is to fail as on any other file
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
    try:
        try:
            return _run(argv)
        finally:  # the help ends by SystemExit
            sys.stdout.flush()
    except BrokenPipeError:
        _write_no_more()
        return exit_codes.BROKEN_PIPE
    except OSError as error:
        if error.filename is not None:
            raise
        _write_no_more()
        print(f"lessor: cannot write to stdout: {error.strerror}", file=sys.stderr)
        return exit_codes.NOT_WRITTEN


def _write_no_more() -> None:
    """Have what Python itself still wants to flush at its end go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(argv: Sequence[str] | None) -> int:
    arguments, behind = split_command(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    if not arguments:
        parser.print_help(sys.stderr)
        return exit_codes.USAGE
    options, unknown = parser.parse_known_args(arguments)
    chosen: Parser = options.parser
    chosen.take_extras(options, unknown)
    options.behind = chosen.take_behind(options, behind)
    chosen.complete(options)
    try:
        code: int = options.run(options)
    except KeyboardInterrupt as interrupt:
        return exit_codes.of_interrupt(interrupt)
    except (LessorError, ServerMissing) as error:
        complain(command_of(options), explain(error) + _hint(error, options))
        return code_of(error)
    return code


def code_of(error: Exception) -> int:
    """Return the exit code of an error."""
    match error:
        case BadRequest() | ServerMissing():
            return exit_codes.USAGE
        case AcquireTimeout(indefinite=False):
            return exit_codes.NOT_ACQUIRED
        case AcquireTimeout() | Unavailable() | ServiceBusy():
            return exit_codes.UNAVAILABLE
        case _:
            return exit_codes.FAILED


def _hint(error: Exception, options: argparse.Namespace) -> str:
    """Return what may be the cause of no answer; it is looked for only now, since it may take a second."""
    endpoints = getattr(options, "endpoints", None)
    silent = isinstance(error, Unavailable) or (isinstance(error, AcquireTimeout) and error.indefinite)
    why = why_unresolved(endpoints) if silent and endpoints else ""
    return f"; {why}" if why else ""
