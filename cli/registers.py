"""`lessor register …`: the fenced registers, which anybody reads and only the holder of a lease on the name writes."""

import argparse
import sys
from typing import Any

from ..client.refusals import NotHeldError, VersionConflict
from . import exit_codes
from .names import PATHS, add_name, called, path_of, shown
from .options import Commands, Parser, add_all, add_client, add_group, add_json, client, command_of, positive, whole
from .output import complain, data_fields, print_json, table

SUMMARY = "Read and write the small registers that are kept beside the names, each write fenced by a token."
EXAMPLES = """
lessor register get nightly-report
lessor lock nightly-report -- sh -c 'lessor register put nightly-report done --token "$LESSOR_LOCK_TOKEN"'
"""
LS_SUMMARY = "List the registers: the version of each, and the token of the lease under which it was written."
LS_EXAMPLES = """
lessor register ls
lessor register ls --all --json | jq '.registers | length'
"""
GET_SUMMARY = "Print what the register of a name holds, as it is. The exit code is 1 if there is none."
GET_EXAMPLES = """
lessor register get nightly-report
lessor register get nightly-report --json | jq .version
"""
PUT_SUMMARY = "Write the register of a name under the token of a lease that covers it; its version grows."
PUT_NOTES = (
    """
VALUE is text, or - for what comes on stdin. It is refused, and nothing written, if the token's lease is not held any
more, or the version is another one than --version.
"""
    + PATHS
)
PUT_EXAMPLES = """
lessor register put nightly-report "day 5 done" --token 41
lessor register put nightly-report - --token 41 --version 3 < state.json
"""
ERASE_SUMMARY = "Remove the register of a name under the token of a lease that covers it."
ERASE_EXAMPLES = """
lessor register erase nightly-report --token 41
"""
CODES = "0 1 2 74 121 128+N"


def register(commands: "Commands[Parser]") -> None:
    """Add the commands to the command line."""
    group = add_group(commands, "register", "read and write fenced registers", SUMMARY, EXAMPLES)
    parser = group.add_parser("ls", help="list them", summary=LS_SUMMARY, examples=LS_EXAMPLES, codes=CODES)
    add_all(parser)
    _finish(parser, run_ls)

    parser = group.add_parser(
        "get",
        help="read one",
        usage="lessor register get NAME [options]",
        summary=GET_SUMMARY,
        notes=PATHS,
        examples=GET_EXAMPLES,
        codes=CODES,
    )
    add_name(parser, "of the register")
    _finish(parser, run_get)

    parser = group.add_parser(
        "put",
        help="write one",
        usage="lessor register put NAME VALUE --token N [options]",
        summary=PUT_SUMMARY,
        notes=PUT_NOTES,
        examples=PUT_EXAMPLES,
        codes=CODES,
    )
    add_name(parser, "of the register", ("VALUE", "what it shall hold"))
    _add_fence(parser)
    _finish(parser, run_put)

    parser = group.add_parser(
        "erase",
        help="remove one",
        usage="lessor register erase NAME --token N [options]",
        summary=ERASE_SUMMARY,
        notes=PATHS,
        examples=ERASE_EXAMPLES,
        codes=CODES,
    )
    add_name(parser, "of the register")
    _add_fence(parser)
    _finish(parser, run_erase)


def _add_fence(parser: Parser) -> None:
    parser.option("--token", metavar="N", read=positive, required=True, help="of a lease that covers the name")
    parser.option(
        "--version", metavar="N", read=whole, shown="any", help="the version that it must have now; 0: there is none"
    )


def _finish(parser: Parser, run: Any) -> None:
    add_client(parser)
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run_ls(options: argparse.Namespace) -> int:
    """List the registers."""
    with client(options) as service:
        found = service.registers(all_namespaces=options.all)
    if options.json:
        registers = [
            {"name": one.name, "path": list(one.path), "namespace": one.namespace}
            | {"version": one.version, "token": one.token}
            for one in found
        ]
        print_json({"registers": registers})
    elif found:
        header = "NAMESPACE NAME VERSION TOKEN".split()[0 if options.all else 1 :]
        rows = [[one.namespace, shown(one.path), one.version, one.token][0 if options.all else 1 :] for one in found]
        print(table(header, rows, ["VERSION", "TOKEN"]))
    else:
        where = "any namespace" if options.all else f"namespace {options.namespace!r}"
        complain(command_of(options), f"there is no register in {where}")
    return exit_codes.OK


def run_get(options: argparse.Namespace) -> int:
    """Read a register."""
    path = path_of(options)
    with client(options) as service:
        found = service.read_register(path)
    if options.json:
        data = data_fields(found.data if found else None)
        print_json({**_place(options), "version": found.version or None, "token": found.token or None, **data})
    elif found:
        sys.stdout.flush()
        sys.stdout.buffer.write(found.data)
        sys.stdout.buffer.flush()
    else:
        complain(command_of(options), f"{called(path)} has no register in namespace {options.namespace!r}")
    return exit_codes.OK if found else exit_codes.FAILED


def run_put(options: argparse.Namespace) -> int:
    """Write a register."""
    path = path_of(options)
    data = sys.stdin.buffer.read() if options.value == "-" else options.value.encode()
    try:
        with client(options) as service:
            written = service.write_register(path, data, options.token, version=options.version)
    except (NotHeldError, VersionConflict) as error:
        return _refused(options, error)
    if options.json:
        print_json({**_place(options), "version": written.version, "token": written.token})
    else:
        print(f"written: {called(path)} in namespace {options.namespace!r} has version {written.version}")
    return exit_codes.OK


def run_erase(options: argparse.Namespace) -> int:
    """Remove a register."""
    path = path_of(options)
    try:
        with client(options) as service:
            changed = service.erase_register(path, options.token, version=options.version)
    except (NotHeldError, VersionConflict) as error:
        return _refused(options, error)
    if options.json:
        print_json({**_place(options), "changed": changed})
    else:
        what = "erased" if changed else "there was none"
        print(f"{what}: the register of {called(path)} in namespace {options.namespace!r}")
    return exit_codes.OK


def _place(options: argparse.Namespace) -> dict[str, Any]:
    path = path_of(options)
    return {"name": "/".join(path), "path": list(path), "namespace": options.namespace}


def _refused(options: argparse.Namespace, error: NotHeldError | VersionConflict) -> int:
    if isinstance(error, VersionConflict):
        why = f"version {error.version or '0 (none)'}, not {options.version}; read it again with `lessor register get`"
        complain(command_of(options), f"{called(path_of(options))} has {why}")
    else:
        why = "it was released, has ended, or never was; `lessor show` tells who holds the name"
        complain(command_of(options), f"nothing was written: no lease of token {options.token} is held: {why}")
    return exit_codes.FAILED
