"""Options of the command line: each has an environment variable of the same name, and the flag wins."""

import argparse
import ipaddress
import math
import os
import re
import shutil
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from ..client.sync import Client, connect
from ..core.commands import DEFAULT_NAMESPACE
from ..core.errors import BadRequest
from ..transport.endpoints import parse, parse_list
from . import exit_codes

PREFIX: Final = "LESSOR_"
DEFAULT_ENDPOINTS: Final = "tcp://127.0.0.1:7411"
WIDTH_MAX: Final = 110
READING: Final = """
A TIME is a number of seconds, or 250ms, 30s, 5m, 1h. [LESSOR_...] is the environment variable of an option; the flag
wins, and a switch that the environment turns on is turned off by its --no- form.
"""

_UNSET: Final = object()
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_UNITS: Final = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)")


class Parser(argparse.ArgumentParser):
    """A parser whose options may come from the environment, and whose complaint is one clear line."""

    def __init__(
        self,
        *,
        summary: str = "",
        examples: str = "",
        notes: str = "",
        codes: str = "0 1 2 74 128+N",
        reading: str = READING,
        **settings: Any,
    ) -> None:
        """Describe the command by a sentence, some notes, examples, its exit codes, and how its options are read."""
        epilog = (f"examples:\n{_indented(examples)}", exit_codes.told(codes.split()), reading.strip())
        super().__init__(
            description="\n\n".join(part for part in (summary, notes.strip()) if part),
            epilog="\n\n".join(part for part in epilog if part),
            formatter_class=_formatter,
            allow_abbrev=False,
            **settings,
        )
        self._options: list[tuple[argparse.Action, str, Any, bool]] = []
        self._flags_only: list[tuple[argparse.Action, Any]] = []
        self._names: list[tuple[str, str]] = []  # each with its metavar; the first one is the NAME
        self._behind_usage = ""  # how a NAME that begins with - is given
        self._name_required = False
        self._runs_command = False

    def option(
        self,
        *flags: str,
        help: str,  # noqa: A002 - argparse's own word
        read: Callable[[str], Any] = str,
        default: Any = None,
        shown: str = "",
        required: bool = False,
        metavar: str | None = None,
        flag_only: bool = False,
    ) -> None:
        """Add an option that takes a value; `shown` is how its default is told. One may be `flag_only`: no variable."""
        if default is not None and not shown:
            shown = str(default)
        told = f"{help} (default: {shown})" if shown else help
        action = self.add_argument(*flags, metavar=metavar, type=read, default=_UNSET, help=told)
        if flag_only:
            self._flags_only.append((action, default))
        else:
            self._register(action, default, required=required)

    def name(
        self,
        help: str,  # noqa: A002 - argparse's own word
        *others: tuple[str, str],
        required: bool = True,
        runs_command: bool = False,
    ) -> None:
        """Add the NAME that a command is about, and what follows it: each by its metavar and its help.

        One that begins with - stands behind `--`, as if it were no option. A command that runs another one takes
        several NAMEs.
        """
        self._behind_usage = f"{self.prog} -- -NAME{' -- COMMAND' if runs_command else ''}"
        self._name_required = required
        self._runs_command = runs_command
        for metavar, text in (("NAME", help), *others):
            dest = metavar.lower()
            self._names.append((dest, metavar))
            self.add_argument(dest, metavar=metavar, nargs="*" if runs_command else "?", help=text)

    def take_extras(self, found: argparse.Namespace, unknown: list[str]) -> None:
        """Take what argparse has left over because it stands behind an option: further NAMEs, or what follows one."""
        if any(text.startswith("-") for text in unknown):
            self.refuse(next(text for text in unknown if text.startswith("-")))
        for text in unknown:
            missing = self._missing(found)
            if self._runs_command:
                found.name.append(text)
            elif missing:
                setattr(found, missing[0][0], text)
            else:
                self.refuse(text)

    def take_behind(self, found: argparse.Namespace, behind: list[str] | None) -> list[str] | None:
        """Take what stands behind the first `--`: what begins with -, a command to run; return the command."""
        missing = self._missing(found)
        if behind and self._runs_command and missing and behind[0].startswith("-") and behind[1:2] == ["--"]:
            # only a NAME that must stand here: if it was forgotten, no part of the command is taken for it
            found.name, behind = [behind[0]], behind[2:]
        elif behind and not self._runs_command and len(behind) == len(missing):
            for (dest, _), text in zip(missing, behind, strict=True):
                setattr(found, dest, text)
            behind = None
        if behind and not self._runs_command:
            what = "only a NAME may" if self._names else "nothing may"
            self.error(f"{what} follow --, and no option; only `lessor lock` runs a command")
        missing = self._missing(found)
        if self._name_required and missing:
            what = missing[0][1]
            self.error(
                f"{'an' if what[0] in 'AEIOU' else 'a'} {what} is needed "
                f"(one that begins with - goes behind --, as in: {self._behind_usage})"
            )
        return behind

    def _missing(self, found: argparse.Namespace) -> list[tuple[str, str]]:
        return [each for each in self._names if not getattr(found, each[0]) and getattr(found, each[0]) != ""]

    def refuse(self, unknown: str) -> NoReturn:
        """Say that an argument is none of this command, and what to do if it was meant as a NAME."""
        hint = f"; a name that begins with - goes behind --, as in: {self._behind_usage}" if self._names else ""
        self.error(f"unknown argument {unknown}{hint if unknown.startswith('-') else ''}")

    def switch(self, *flags: str, help: str) -> None:  # noqa: A002 - argparse's own word
        """Add an option that is on or off. Its hidden --no- form undoes what the environment says."""
        action = self.add_argument(*flags, action=_Switch, default=_UNSET, help=help)
        self.add_argument(
            f"--no-{flags[-1].removeprefix('--')}",
            action=_Switch,
            dest=action.dest,
            default=_UNSET,
            help=argparse.SUPPRESS,
        )
        self._register(action, default=False, required=False)

    def complete(self, found: argparse.Namespace) -> None:
        """Fill in what no flag has said: from the environment, or else the default."""
        missing = []
        for action, default in self._flags_only:
            if getattr(found, action.dest) is _UNSET:
                setattr(found, action.dest, default)
        for action, variable, default, required in self._options:
            if getattr(found, action.dest) is not _UNSET:
                continue
            text = os.environ.get(variable, "")
            if text:
                setattr(found, action.dest, self._read(action, variable, text))
            elif required:
                missing.append(f"{action.option_strings[-1]} (or {variable})")
            else:
                setattr(found, action.dest, default)
        if missing:
            self.error(f"still needed: {', '.join(missing)}")

    def variables(self) -> dict[str, str]:
        """Return the environment variable of each option, by its flag."""
        return {action.option_strings[-1]: variable for action, variable, _, _ in self._options}

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments in one line, and where to read on, and end."""
        self.exit(exit_codes.USAGE, f"{self.prog}: {message}\ntry: {self.prog} --help\n")

    def _register(self, action: argparse.Action, default: Any, *, required: bool) -> None:
        variable = variable_of(action.option_strings[-1])
        action.help = f"{action.help} [{variable}]"
        self._options.append((action, variable, default, required))

    def _read(self, action: argparse.Action, variable: str, text: str) -> Any:
        assert callable(action.type)
        try:
            return action.type(text)
        except (argparse.ArgumentTypeError, ValueError) as error:
            self.error(f"environment variable {variable}: {error}")


class _Switch(argparse.Action):
    """On by its flag, off by the form that starts with --no-."""

    def __init__(self, option_strings: Sequence[str], dest: str, default: Any, help: str) -> None:  # noqa: A002
        super().__init__(option_strings, dest, nargs=0, default=default, type=boolean, help=help)

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - argparse's
        namespace: argparse.Namespace,
        values: Any,  # noqa: ARG002 - argparse's
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, not (option_string or "").startswith("--no-"))


Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it
"""To which the commands are added."""


def variable_of(flag: str) -> str:
    """Return the environment variable of a flag.

    >>> variable_of("--node-id")
    'LESSOR_NODE_ID'
    """
    return PREFIX + flag.removeprefix("--").replace("-", "_").upper()


# --- what options are read as ----------------------------------------------------------------------------------------


def boolean(text: str) -> bool:
    """Read a switch in the environment."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise argparse.ArgumentTypeError(f"it is on (1, true, yes, on) or off (0, false, no, off), not {text!r}")


def duration(text: str) -> float:
    """Read a length of time, in seconds unless a unit is given.

    >>> [duration(text) for text in ("30", "1.5s", "250ms", "2m", "1h")]
    [30.0, 1.5, 0.25, 120.0, 3600.0]
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else math.inf
    if not math.isfinite(seconds):
        raise argparse.ArgumentTypeError(f"a duration is a number of seconds, or 250ms, 30s, 5m, 1h, not {text!r}")
    return seconds


def some_time(text: str) -> float:
    """Read a length of time that is not 0."""
    seconds = duration(text)
    if not seconds:
        raise argparse.ArgumentTypeError(f"it must be more than 0, not {text!r}")
    return seconds


def host(text: str) -> str:
    """Read a host name or an address; empty: none."""
    try:
        if ":" in text:  # then it is an address of IPv6, or has a port that belongs elsewhere
            ipaddress.IPv6Address(text.removeprefix("[").removesuffix("]"))
        return parse(f"tcp://{text}:1")[0] if text else ""
    except ValueError:  # which BadRequest is, too
        raise argparse.ArgumentTypeError(f"it is a host name or an address, not {text!r}") from None


def positive(text: str) -> int:
    """Read a whole number from 1 on."""
    if not text.strip().isascii() or not text.strip().isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"it is a whole number from 1 on, not {text!r}")
    return int(text)


def whole(text: str) -> int:
    """Read a whole number from 0 on."""
    if not text.strip().isascii() or not text.strip().isdigit():
        raise argparse.ArgumentTypeError(f"it is a whole number from 0 on, not {text!r}")
    return int(text)


def positives(text: str) -> list[int]:
    """Read whole numbers that are separated by commas."""
    return [positive(part) for part in text.split(",")]


def word(text: str) -> str:
    """Read a name, which is not empty."""
    if not text:
        raise argparse.ArgumentTypeError("it must not be empty")
    return text


def endpoints(text: str) -> list[str]:
    """Read a list of endpoints."""
    try:
        return parse_list(text)
    except BadRequest as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def choice(*allowed: str) -> Callable[[str], str]:
    """Return what reads one of these words."""

    def read(text: str) -> str:
        if text.lower() not in allowed:
            raise argparse.ArgumentTypeError(f"it is one of {', '.join(allowed)}, not {text!r}")
        return text.lower()

    return read


# --- options of several commands -------------------------------------------------------------------------------------


def add_endpoints(parser: Parser) -> None:
    """Add where the service is."""
    parser.option(
        "--endpoints",
        metavar="LIST",
        read=endpoints,
        default=[DEFAULT_ENDPOINTS],
        shown=DEFAULT_ENDPOINTS,
        help="where the nodes listen for clients, separated by commas",
    )


def add_request_timeout(parser: Parser, default: float) -> None:
    """Add how long an answer is waited for."""
    parser.option(
        "--request-timeout",
        metavar="TIME",
        read=some_time,
        default=default,
        shown=f"{default:g}s",
        help="how long to wait for the service to answer",
    )


def add_namespace(parser: Parser) -> None:
    """Add in which namespace names are looked up."""
    parser.option("--namespace", metavar="NAME", read=word, default=DEFAULT_NAMESPACE, help="the namespace to look in")


def add_json(parser: Parser) -> None:
    """Add output for programs."""
    parser.switch("--json", help="print JSON, for programs")


def add_client(parser: Parser) -> None:
    """Add what every command needs that acts as a client."""
    add_endpoints(parser)
    add_namespace(parser)
    add_request_timeout(parser, 10.0)


def add_all(parser: Parser, help: str = "list every namespace") -> None:  # noqa: A002 - argparse's own word
    """Add that all namespaces are meant."""
    parser.switch("--all", help=help)


def client(options: argparse.Namespace, **settings: Any) -> Client:
    """Return a client by the options that `add_client` has added."""
    namespace = getattr(options, "namespace", DEFAULT_NAMESPACE)
    return connect(options.endpoints, namespace, request_timeout=options.request_timeout, **settings)


def command_of(options: argparse.Namespace) -> str:
    """Return which command this is, as people write it: `namespace create`."""
    prog: str = options.parser.prog
    return prog.partition(" ")[2]


def add_group(commands: "Commands[Parser]", name: str, help: str, summary: str, examples: str) -> "Commands[Parser]":  # noqa: A002
    """Add a command that has commands of its own, and return to what they are added."""
    parser = commands.add_parser(name, help=help, summary=summary, examples=examples, codes="2")
    return parser.add_subparsers(title="commands", dest="subcommand", metavar="COMMAND", required=True)


# --- how help looks --------------------------------------------------------------------------------------------------


def _formatter(prog: str) -> argparse.HelpFormatter:
    width = min(WIDTH_MAX, shutil.get_terminal_size().columns)
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=28, width=width)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.strip().splitlines())


def split_command(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Return what stands before the first `--`, and the command behind it (None: there is no `--`)."""
    arguments = list(argv)
    if "--" not in arguments:
        return arguments, None
    place = arguments.index("--")
    return arguments[:place], arguments[place + 1 :]
