"""`lessor namespaces` and `lessor namespace …`: the namespaces, their settings, and how much is in them."""

import argparse
from dataclasses import asdict
from typing import Any

from ..client.asks import Namespace
from ..client.refusals import NamespaceInUse
from . import exit_codes
from .options import (
    Commands,
    Parser,
    add_endpoints,
    add_group,
    add_json,
    add_request_timeout,
    client,
    command_of,
    duration,
    whole,
)
from .output import complain, confirmed, counted, print_json, short, table

SUMMARY = "List every namespace that was created or is used: its settings, and how much is in it."
NOTES = """
A namespace is there while it is used, unless the nodes run with --strict-namespaces; one that was created has settings
of its own and stays until it is dropped. A dash stands for no such rule.
"""
EXAMPLES = """
lessor namespaces
lessor namespaces --json | jq -r '.namespaces[] | select(.created) | .name'
"""
GROUP_SUMMARY = "Make a namespace, change its settings, look at it, or remove it."
GROUP_EXAMPLES = """
lessor namespace create reports --default-ttl 30s --lock-delay 5s
lessor namespace describe reports
"""
CREATE_SUMMARY = "Make a namespace with settings of its own. What is not given, or is 0, has no rule."
CREATE_EXAMPLES = """
lessor namespace create reports
lessor namespace create reports --ttl-max 1h --lock-delay 5s --claims-max 10000
"""
ALTER_SUMMARY = "Change the settings that are given; 0 takes a rule away. What is held keeps what it was promised."
ALTER_EXAMPLES = """
lessor namespace alter reports --ttl-max 10m
lessor namespace alter reports --lock-delay 0
"""
DESCRIBE_SUMMARY = "Show the settings of a namespace, and how much is in it."
DESCRIBE_EXAMPLES = """
lessor namespace describe reports
lessor namespace describe reports --json | jq .claims
"""
DROP_SUMMARY = "Remove a namespace. One that is in use is refused, unless --force: then all that is in it ends."
DROP_EXAMPLES = """
lessor namespace drop reports
lessor namespace drop reports --force --yes            holders and waiters in it are told
"""

HEADER = "NAMESPACE CREATED CLAIMS SESSIONS DEFAULT-TTL TTL-MAX SESSION-GRACE LOCK-DELAY CLAIMS-MAX".split()
NUMBERS = "CLAIMS SESSIONS DEFAULT-TTL TTL-MAX SESSION-GRACE LOCK-DELAY CLAIMS-MAX".split()
SETTINGS = {
    "default_ttl": "of leases that are asked for without one, which would live as long as their session",
    "ttl_max": "the longest ttl that may be asked for",
    "session_grace": "what a change of leader adds to the life of a session",
    "lock_delay": "how long a name stays closed after its lease ended otherwise than by its holder",
}
CODES = "0 1 2 74 121 128+N"


def register(commands: "Commands[Parser]") -> None:
    """Add the commands to the command line."""
    parser = commands.add_parser(
        "namespaces", help="which namespaces are there", summary=SUMMARY, notes=NOTES, examples=EXAMPLES, codes=CODES
    )
    _finish(parser, run_list)
    group = add_group(commands, "namespace", "make, change or drop a namespace", GROUP_SUMMARY, GROUP_EXAMPLES)

    parser = _add(group, "create", "make one", CREATE_SUMMARY, CREATE_EXAMPLES)
    _add_settings(parser)
    _finish(parser, run_create)

    parser = _add(group, "alter", "change its settings", ALTER_SUMMARY, ALTER_EXAMPLES)
    _add_settings(parser)
    _finish(parser, run_alter)

    parser = _add(group, "describe", "look at one", DESCRIBE_SUMMARY, DESCRIBE_EXAMPLES)
    _finish(parser, run_describe)

    parser = _add(group, "drop", "remove one", DROP_SUMMARY, DROP_EXAMPLES)
    parser.switch("--force", help="also if it is in use")
    parser.switch("--yes", help="do not ask, with --force")
    _finish(parser, run_drop)


def _add(group: "Commands[Parser]", name: str, help: str, summary: str, examples: str) -> Parser:  # noqa: A002
    parser = group.add_parser(
        name,
        help=help,
        usage=f"lessor namespace {name} NAME [options]",
        summary=summary,
        examples=examples,
        codes=CODES,
    )
    parser.name("of the namespace")
    return parser


def _add_settings(parser: Parser) -> None:
    for name, text in SETTINGS.items():
        parser.option(f"--{name.replace('_', '-')}", metavar="TIME", read=duration, help=text)
    parser.option("--claims-max", metavar="N", read=whole, help="how many claims there may be at once")


def _finish(parser: Parser, run: Any) -> None:
    add_endpoints(parser)
    add_request_timeout(parser, 10.0)
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in (*SETTINGS, "claims_max") if getattr(options, name) is not None}


def run_list(options: argparse.Namespace) -> int:
    """List the namespaces."""
    with client(options) as service:
        found = service.namespaces()
    if options.json:
        print_json({"namespaces": [asdict(namespace) for namespace in found]})
    elif found:
        print(table(HEADER, [_row(namespace) for namespace in found], NUMBERS))
    else:
        complain("namespaces", "no namespace was created, and none is used")
    return exit_codes.OK


def _row(namespace: Namespace) -> list[Any]:
    times = [getattr(namespace, name) for name in SETTINGS]
    return [
        namespace.name,
        "yes" if namespace.created else "no",
        namespace.claims,
        namespace.sessions,
        *[short(seconds) if seconds else "-" for seconds in times],
        namespace.claims_max or "-",
    ]


def run_create(options: argparse.Namespace) -> int:
    """Make a namespace."""
    with client(options) as service:
        service.create_namespace(options.name, **_settings(options))
        return _tell(options, "created", service.describe_namespace(options.name))


def run_alter(options: argparse.Namespace) -> int:
    """Change its settings."""
    settings = _settings(options)
    if not settings:
        options.parser.error("say what to change, as in: lessor namespace alter NAME --ttl-max 1h")
    with client(options) as service:
        changed = service.alter_namespace(options.name, **settings)
        return _tell(options, "altered" if changed else "as it was", service.describe_namespace(options.name))


def run_describe(options: argparse.Namespace) -> int:
    """Look at one."""
    with client(options) as service:
        namespace = service.describe_namespace(options.name)
    if namespace.created or namespace.claims or namespace.sessions:
        return _tell(options, "created" if namespace.created else "used, not created", namespace)
    if options.json:
        print_json(asdict(namespace))
    else:
        complain(command_of(options), f"namespace {options.name!r} was not created, and is not used")
    return exit_codes.FAILED


def run_drop(options: argparse.Namespace) -> int:
    """Remove a namespace."""
    command = command_of(options)
    with client(options) as service:
        if options.force:
            found = service.describe_namespace(options.name)
            used = f"{counted(found.claims, 'claim')} and {counted(found.sessions, 'session')}"
            question = f"Namespace {options.name!r} has {used}. All that is in it ends. Drop it?"
            if not confirmed(command, question, yes=options.yes):
                return exit_codes.FAILED
        try:
            service.drop_namespace(options.name, force=options.force)
        except NamespaceInUse as error:
            complain(command, f"{error}; `lessor ls --namespace {options.name}` lists what is held, --force ends it")
            return exit_codes.FAILED
    if options.json:
        print_json({"name": options.name, "dropped": True})
    else:
        print(f"dropped: namespace {options.name!r}")
    return exit_codes.OK


def _tell(options: argparse.Namespace, what: str, namespace: Namespace) -> int:
    if options.json:
        print_json(asdict(namespace))
        return exit_codes.OK
    print(f"{'namespace:':16}{namespace.name} ({what})")
    print(f"{'in it:':16}{counted(namespace.claims, 'claim')}, {counted(namespace.sessions, 'session')}")
    for name in SETTINGS:
        seconds = getattr(namespace, name)
        print(f"{name.replace('_', '-') + ':':16}{short(seconds) if seconds else 'none'}")
    print(f"{'claims-max:':16}{namespace.claims_max or 'none'}")
    return exit_codes.OK
