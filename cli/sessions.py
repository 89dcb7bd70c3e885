"""`lessor sessions`: which clients are there, and what each of them holds and waits for."""

import argparse
from dataclasses import asdict

from . import exit_codes
from .options import Commands, Parser, add_all, add_client, add_json, client
from .output import complain, print_json, printable, short, table

SUMMARY = "List the sessions of the clients: how long each outlives its client, and what it holds and waits for."
NOTES = """
A session is opened by a client with its first request that needs one, and ends when the client closes, or when it has
shown no sign of life for the timeout; what it holds without a ttl and what it waits for ends with it. ATTACH counts how
often another client has taken it over. This command's own session is not there: it only looks.
"""
EXAMPLES = """
lessor sessions
lessor sessions --all                                  of every namespace
lessor sessions --json | jq '.sessions[] | select(.held > 100)'
"""

HEADER = "SESSION NAMESPACE TIMEOUT ATTACH HELD WAITING DESCRIPTION".split()
NUMBERS = "SESSION TIMEOUT ATTACH HELD WAITING".split()


def register(commands: "Commands[Parser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "sessions",
        help="which clients are there",
        summary=SUMMARY,
        notes=NOTES,
        examples=EXAMPLES,
        codes="0 2 74 121 128+N",
    )
    add_client(parser)
    add_all(parser)
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """List the sessions."""
    with client(options) as service:
        found = service.sessions(all_namespaces=options.all)
    if options.json:
        print_json({"sessions": [asdict(session) for session in found]})
        return exit_codes.OK
    if not found:
        where = "in any namespace" if options.all else f"in namespace {options.namespace!r}"
        complain("sessions", f"there is no session {where}")
        return exit_codes.OK
    rows = [
        [
            session.number,
            session.namespace,
            short(session.timeout),
            session.attach,
            session.held,
            session.waiting,
            printable(session.description),
        ]
        for session in found
    ]
    print(table(HEADER, rows, NUMBERS))
    return exit_codes.OK
