"""`lessor semaphores` and `lessor semaphore …`: semaphores that were created, and stay until they are deleted."""

import argparse
from typing import Any

from ..client.asks import Semaphore
from ..client.refusals import SemaphoreInUse
from . import exit_codes
from .claims import line_of
from .names import PATHS, add_name, called, path_of, shown
from .options import Commands, Parser, add_all, add_client, add_group, add_json, client, command_of, positive
from .output import complain, confirmed, counted, data_fields, print_json, shown_data, table
from .show import all_as_json, print_all

SUMMARY = "List the semaphores that were created: how many units each has, how many are held, and who waits."
NOTES = """
One that was not created appears with its first claim (`lessor lock NAME --count 1 --limit 4`) and vanishes with its
last one: it is in `lessor ls`, not here.
"""
EXAMPLES = """
lessor semaphores
lessor semaphores --json | jq '.semaphores[] | select(.units == .limit)'
"""
GROUP_SUMMARY = "Make a semaphore, change its data, look at it, or remove it."
GROUP_EXAMPLES = """
lessor semaphore create workers --limit 4
lessor lock workers --count 1 -- ./work
"""
CREATE_SUMMARY = "Make a semaphore of so many units, which stays until it is deleted."
CREATE_EXAMPLES = """
lessor semaphore create workers --limit 4 --data "see the runbook, page 7"
"""
UPDATE_SUMMARY = "Replace the data of a semaphore."
UPDATE_EXAMPLES = """
lessor semaphore update workers --data "moved to h9"
"""
DELETE_SUMMARY = "Remove a semaphore. One that is in use is refused, unless --force: then holders and waiters are told."
DELETE_EXAMPLES = """
lessor semaphore delete workers
lessor semaphore delete workers --force --yes
"""
SHOW_SUMMARY = "Show a semaphore that was created: its units, its data, who holds some and who waits."
SHOW_EXAMPLES = """
lessor semaphore show workers
lessor semaphore show workers --json | jq .semaphore
"""

HEADER = "NAME HELD LIMIT WAITING DATA".split()
NUMBERS = "HELD LIMIT WAITING".split()
CODES = "0 1 2 74 121 128+N"


def register(commands: "Commands[Parser]") -> None:
    """Add the commands to the command line."""
    parser = commands.add_parser(
        "semaphores", help="which semaphores are there", summary=SUMMARY, notes=NOTES, examples=EXAMPLES, codes=CODES
    )
    add_all(parser)
    _finish(parser, run_list)
    group = add_group(commands, "semaphore", "make, change or delete a semaphore", GROUP_SUMMARY, GROUP_EXAMPLES)

    parser = _add(group, "create", "make one", CREATE_SUMMARY, CREATE_EXAMPLES)
    parser.option("--limit", metavar="N", read=positive, required=True, help="how many units it has")
    parser.option("--data", metavar="TEXT", default="", shown="none", help="kept with it, for others to see")
    _finish(parser, run_create)

    parser = _add(group, "update", "change its data", UPDATE_SUMMARY, UPDATE_EXAMPLES)
    parser.option("--data", metavar="TEXT", required=True, help="kept with it, for others to see")
    _finish(parser, run_update)

    parser = _add(group, "delete", "remove one", DELETE_SUMMARY, DELETE_EXAMPLES)
    parser.switch("--force", help="also if it is in use")
    parser.switch("--yes", help="do not ask, with --force")
    _finish(parser, run_delete)

    parser = _add(group, "show", "look at one", SHOW_SUMMARY, SHOW_EXAMPLES)
    _finish(parser, run_show)


def _add(group: "Commands[Parser]", name: str, help: str, summary: str, examples: str) -> Parser:  # noqa: A002
    parser = group.add_parser(
        name,
        help=help,
        usage=f"lessor semaphore {name} NAME [options]",
        summary=summary,
        notes=PATHS,
        examples=examples,
        codes=CODES,
    )
    add_name(parser, "of the semaphore")
    return parser


def _finish(parser: Parser, run: Any) -> None:
    add_client(parser)
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run_list(options: argparse.Namespace) -> int:
    """List the semaphores."""
    with client(options) as service:
        found = service.semaphores(all_namespaces=options.all)
    if options.json:
        print_json({"semaphores": [_as_json(semaphore) for semaphore in found]})
    elif found:
        header = ["NAMESPACE", *HEADER] if options.all else HEADER
        rows = [[one.namespace, *_row(one)] if options.all else _row(one) for one in found]
        print(table(header, rows, NUMBERS))
    else:
        where = "in any namespace" if options.all else f"in namespace {options.namespace!r}"
        complain("semaphores", f"no semaphore was created {where}")
    return exit_codes.OK


def _as_json(semaphore: Semaphore) -> dict[str, Any]:
    return {
        "name": semaphore.name,
        "path": list(semaphore.path),
        "namespace": semaphore.namespace,
        "limit": semaphore.limit,
        "units": semaphore.units,
        "waiting": semaphore.waiting,
        **data_fields(semaphore.data),
    }


def _row(semaphore: Semaphore) -> list[Any]:
    data = shown_data(semaphore.data)
    return [shown(semaphore.path), semaphore.units, semaphore.limit, semaphore.waiting, data]


def run_create(options: argparse.Namespace) -> int:
    """Make a semaphore."""
    with client(options) as service:
        service.create_semaphore(path_of(options), options.limit, options.data.encode())
    return _done(options, "created")


def run_update(options: argparse.Namespace) -> int:
    """Replace its data."""
    with client(options) as service:
        changed = service.update_semaphore(path_of(options), options.data.encode())
    return _done(options, "updated", changed=changed)


def run_delete(options: argparse.Namespace) -> int:
    """Remove a semaphore."""
    path, command = path_of(options), command_of(options)
    with client(options) as service:
        if options.force:
            line = line_of(path, service.describe(path))
            used = f"{counted(len(line.holders), 'holder')} and {len(line.waiting)} in line"
            question = f"Semaphore {called(path)} has {used}; they lose it. Delete it?"
            if not confirmed(command, question, yes=options.yes):
                return exit_codes.FAILED
        try:
            service.delete_semaphore(path, force=options.force)
        except SemaphoreInUse as error:
            complain(command, f"{error}; `lessor semaphore show` tells by whom, --force takes it from them")
            return exit_codes.FAILED
    return _done(options, "deleted")


def run_show(options: argparse.Namespace) -> int:
    """Look at a semaphore."""
    path = path_of(options)
    with client(options) as service:
        about = service.about(path)
    line = line_of(path, about.leases)
    if options.json:
        print_json(all_as_json(options.namespace, line, about, {}, []))
    elif about.created:
        print_all(options.namespace, line, about, {}, [])
    else:
        also = "; what is claimed there is told by `lessor show`" if line.held else ""
        complain(command_of(options), f"semaphore {called(path)} was not created{also}")
    return exit_codes.OK if about.created else exit_codes.FAILED


def _done(options: argparse.Namespace, what: str, *, changed: bool = True) -> int:
    path = path_of(options)
    if options.json:
        print_json({"name": "/".join(path), "path": list(path), "namespace": options.namespace, "changed": changed})
    else:
        print(f"{what if changed else 'as it was'}: semaphore {called(path)} in namespace {options.namespace!r}")
    return exit_codes.OK
