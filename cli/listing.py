"""`lessor ls`: who holds what, for reading, writing or so many units, until when, and how many wait for it."""

import argparse
from typing import Any

from ..client.lease import LeaseView
from . import exit_codes
from .claims import Line, as_json, lines, mode, resource_at
from .names import shown
from .options import Commands, Parser, add_all, add_client, add_json, client
from .output import complain, print_json, printable, short, table

SUMMARY = "List what is held in a namespace: by whom, to read, to write or for how many units, until when, who waits."
NOTES = """
One line for each holder of each path. Paths of several segments are shown as --path reads them: /users/42.
"""
EXAMPLES = """
lessor ls
lessor ls --all                                        of every namespace
lessor ls --json | jq '.leases[] | select(.waiting != [])'
"""

HEADER = "NAME HOLDER TOKEN MODE HELD EXPIRES WAITING".split()
NUMBERS = "TOKEN HELD EXPIRES WAITING".split()


def register(commands: "Commands[Parser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "ls", help="who holds what", summary=SUMMARY, notes=NOTES, examples=EXAMPLES, codes="0 2 74 121 128+N"
    )
    add_client(parser)
    add_all(parser)
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """List the leases."""
    with client(options) as service:
        found = lines(service.leases(all_namespaces=options.all))
    if options.json:
        print_json({"leases": [as_json(namespace, line) for namespace, line in found]})
        return exit_codes.OK
    if not found:
        where = "in any namespace" if options.all else f"in namespace {options.namespace!r}"
        complain("ls", f"nothing is held {where}")
        return exit_codes.OK
    header = ["NAMESPACE", *HEADER] if options.all else HEADER
    rows = [
        [namespace, *row] if options.all else row
        for namespace, line in found
        for row in ([_row(line, view) for view in line.holders] or [_row(line, None)])
    ]
    print(table(header, rows, NUMBERS))
    return exit_codes.OK


def _row(line: Line, view: LeaseView | None) -> list[Any]:
    if view is None:
        return [shown(line.path), "-", "-", "-", "-", "-", len(line.waiting)]
    return [
        shown(line.path),
        printable(view.holder),
        view.token,
        mode(resource_at(view, line.path)),
        short(view.held_for),
        f"in {short(view.expires_in)}",
        len(line.waiting) if view is line.holders[0] else "",
    ]
