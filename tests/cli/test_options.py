"""Every command's arguments: flags, environment variables, and what is said about wrong ones."""

import argparse
import doctest
import re
import types
from typing import cast

import pytest

from lessor.cli import exit_codes, names, options, output
from lessor.cli.dispatch import build_parser
from lessor.cli.options import Parser, boolean, duration, positive, split_command, variable_of

from .commands import Run


def commands(parser: Parser | None = None) -> dict[str, Parser]:
    """Every command by its words, those of a command among them: `namespace create`."""
    found: dict[str, Parser] = {}
    for action in (parser or build_parser())._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, one in cast("dict[str, Parser]", action.choices).items():
                found |= {name: one} | {f"{name} {below}": each for below, each in commands(one).items()}
    return found


COMMANDS = sorted(commands())


def test_the_commands_of_the_readme_are_there() -> None:
    assert {"serve", "demo", "lock", "ls", "show", "status", "watch", "bench", "break"} <= set(COMMANDS)
    assert {"namespace create", "semaphore show", "register put", "pin"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_flag_has_a_variable_of_the_same_name_and_help_shows_it(command: str, run: Run) -> None:
    flags = {
        flag
        for action in commands()[command]._actions
        for flag in action.option_strings
        if flag.startswith("--") and flag != "--help" and not flag.startswith("--no-")
    }
    help_ = " ".join(run(*command.split(), "--help").out.split())
    if command == "bench":  # must not load a service because of a variable that is set
        flags.remove("--endpoints")
        assert "only as a flag" in help_
    assert commands()[command].variables() == {flag: variable_of(flag) for flag in flags}
    for flag in flags:
        assert flag in help_
        assert f"[{variable_of(flag)}]" in help_


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_it_does_and_shows_examples(command: str, run: Run) -> None:
    done = run(*command.split(), "--help")
    assert done.code == 0
    assert "examples:\n  lessor" in done.out
    assert commands()[command].description


def test_what_lock_tells_its_command_is_no_option_of_any() -> None:
    """A `lessor` that runs inside of `lessor lock` must not take what it finds for its own settings."""
    variables = {variable for parser in commands().values() for variable in parser.variables().values()}
    assert variables.isdisjoint({"LESSOR_LOCK_NAME", "LESSOR_LOCK_NAMESPACE", "LESSOR_LOCK_TOKEN"})


def codes_in(text: str) -> set[int]:
    table = text.partition("exit codes:\n")[2].partition("\n\n")[0]
    return {int(code) for code in re.findall(r"^  (\d+)", table, re.MULTILINE)}


def test_the_help_names_every_exit_code(run: Run) -> None:
    codes = {value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)}
    named = codes_in(run("--help").out)
    assert codes - named == {exit_codes.INTERRUPTED, exit_codes.BROKEN_PIPE}  # 128+N
    assert named <= codes


@pytest.mark.parametrize(
    ("command", "codes"),
    [("serve", {0, 1, 2, 70, 78}), ("lock", {2, 120, 121, 122, 126, 127, 128}), ("show", {0, 1, 2, 74, 121, 128})],
)
def test_the_help_of_a_command_names_its_own_exit_codes(command: str, codes: set[int], run: Run) -> None:
    assert codes_in(run(*command.split(), "--help").out) == codes


@pytest.mark.parametrize("command", COMMANDS)
def test_each_help_says_how_times_and_variables_are_read(command: str, run: Run) -> None:
    out = run(*command.split(), "--help").out
    assert exit_codes.USAGE in codes_in(out)
    assert "A TIME is a number of seconds, or 250ms" in out
    assert max(map(len, out.splitlines())) <= 120


def parsed(*arguments: str) -> argparse.Namespace:
    found = build_parser().parse_args(arguments)
    found.parser.complete(found)
    return found


def test_the_flag_wins_over_the_environment_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed("lock", "x").ttl == 30
    monkeypatch.setenv("LESSOR_TTL", "7s")
    assert parsed("lock", "x").ttl == 7
    assert parsed("lock", "x", "--ttl", "250ms").ttl == 0.25


def test_an_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LESSOR_TTL", "")
    assert parsed("lock", "x").ttl == 30


def test_a_node_is_configured_by_its_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LESSOR_NODE_ID", "2")
    monkeypatch.setenv("LESSOR_CLUSTER", "1=tcp://h1:7411,2=tcp://h2:7411")
    monkeypatch.setenv("LESSOR_DATA", "/data")
    found = parsed("serve")
    assert (found.node_id, str(found.data)) == (2, "/data")
    assert found.cluster == {1: "tcp://h1:7411", 2: "tcp://h2:7411"}


def test_a_switch_of_the_environment_can_be_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed("ls").json is False
    assert parsed("ls", "--json").json is True
    monkeypatch.setenv("LESSOR_JSON", "yes")
    assert parsed("ls").json is True
    assert parsed("ls", "--no-json").json is False


def test_endpoints_come_from_the_flag_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed("ls").endpoints == ["tcp://127.0.0.1:7411"]
    monkeypatch.setenv("LESSOR_ENDPOINTS", "tcp://a:1, tcp://b:2")
    assert parsed("ls").endpoints == ["tcp://a:1", "tcp://b:2"]
    assert parsed("ls", "--endpoints", "tcp://c:3").endpoints == ["tcp://c:3"]


@pytest.mark.parametrize("command", ["show", "watch", "lock"])
def test_a_name_may_begin_with_a_dash_if_it_stands_behind_two(command: str) -> None:
    def name_of(*arguments: str) -> tuple[str, list[str] | None]:
        before, behind = split_command([command, *arguments])
        found = build_parser().parse_args(before)
        left = found.parser.take_behind(found, behind)
        return (found.name[0] if command == "lock" else found.name), left

    run = ("--", "true", "--", "-y") if command == "lock" else ()
    expected = ["true", "--", "-y"] if command == "lock" else None
    assert name_of("x", *run) == ("x", expected)
    assert name_of("--", "-x", *run) == ("-x", expected)
    assert name_of("--endpoints", "tcp://h:1", "--", "--json", *run) == ("--json", expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nonsense",), "nonsense"),
        (("ls", "--nonsense"), "lessor ls: unknown argument --nonsense"),
        (("ls", "nonsense"), "lessor ls: unknown argument nonsense"),
        (("ls", "--js"), "lessor ls: unknown argument --js"),
        (("ls", "--", "true"), "nothing may follow --, and no option; only `lessor lock` runs a command"),
        (("ls", "--endpoints", "http://h:1"), "tcp://HOST:PORT"),
        (("ls", "--endpoints", ","), "at least one endpoint"),
        (("ls", "--namespace", ""), "must not be empty"),
        (("show",), "NAME"),
        (("lock",), "NAME"),
        (("lock", "x"), "put the command behind --"),
        (("lock", "x", "--"), "put the command behind --"),
        (("lock", "x", "true"), "put the command behind --"),
        (("show", "x", "y"), "unknown argument y"),
        (("show", "x", "--json", "y", "z"), "unknown argument y"),
        (("show", "--path", "a//b"), "a segment of the path 'a//b' is empty"),
        (("break", "x"), "still needed: --reason (or LESSOR_REASON)"),
        (("break", "--reason", "r"), "either NAME or --token"),
        (("break", "x", "--token", "1", "--reason", "r"), "either NAME or --token"),
        (("break", "x", "--token", "0", "--reason", "r"), "from 1 on"),
        (("pin", "x"), "an ENTITY is needed"),
        (("register", "put", "x", "y"), "still needed: --token"),
        (("register", "put", "x", "y", "--token", "1", "--version", "-1"), "--version"),
        (("namespace",), "COMMAND"),
        (("namespace", "alter", "x"), "say what to change"),
        (("semaphore", "create", "x"), "still needed: --limit"),
        (("lock", "x", "--read", "--count", "2", "--", "true"), "exclude each other"),
        (("lock", "x", "--limit", "2", "--", "true"), "--limit goes with --count"),
        (("lock", "x", "--max-hold", "1", "--", "true"), "--max-hold is more than --grace"),
        (("watch", "--below"), "--below goes with a NAME"),
        (
            ("lock", "-x", "--", "true"),
            "argument -x; a name that begins with - goes behind --, as in: lessor lock -- -NAME",
        ),
        (("lock", "--", "true"), "a NAME is needed"),
        (("lock", "--", "true", "--", "x"), "a NAME is needed"),
        (("show", "-x"), "argument -x; a name that begins with - goes behind --, as in: lessor show -- -NAME"),
        (("show", "x", "--", "-x"), "only a NAME may follow --"),
        (("show", "--", "-x", "--json"), "and no option"),
        (("watch", "-x"), "as in: lessor watch -- -NAME"),
        (("ls", "-x"), "lessor ls: unknown argument -x\n"),
        (("ls", "--request-timeout", "0"), "--request-timeout: it must be more than 0"),
        (("status", "--request-timeout", "0"), "--request-timeout: it must be more than 0"),
        (("lock", "x", "--ttl", "soon", "--", "true"), "a duration is a number of seconds"),
        (("lock", "x", "--ttl", "-1", "--", "true"), "--ttl"),
        (("lock", "x", "--ttl", "4", "--grace", "3", "--", "true"), "half of the ttl"),
        (("lock", "x", "-E", "256", "--", "true"), "from 0 to 255"),
        (("watch", "x", "--all"), "either NAME or --all"),
        (("demo", "--seconds", "3600"), "--seconds is from"),
        (("bench", "--workers", "1,0"), "from 1 on"),
        (("bench", "--seconds", "0"), "more than 0"),
        (("bench", "--nodes", "10"), "at most 9 nodes"),
        (("serve",), "still needed: --node-id (or LESSOR_NODE_ID), --cluster (or LESSOR_CLUSTER)"),
        (("serve", "--node-id", "0"), "from 1 on"),
        (("serve", "--node-id", "1", "--cluster", "tcp://h:1", "--data", "d"), "1=tcp://HOST:PORT"),
        (("serve", "--node-id", "1", "--cluster", "1=tcp://h:1,2=tcp://h:2", "--data", "d"), "overlap"),
        (("serve", "--bind", "0.0.0.0:7411"), "it is a host name or an address, not '0.0.0.0:7411'"),
        (("serve", "--log-level", "chatty"), "debug, info, warning, error"),
        ((), "usage: lessor"),
    ],
)
def test_wrong_arguments_are_told_on_stderr_with_exit_code_2(arguments: tuple[str, ...], words: str, run: Run) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (exit_codes.USAGE, "")
    assert words in done.err
    assert "Traceback" not in done.err


def test_a_wrong_variable_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LESSOR_NODE_ID", "first")
    done = run("serve", "--cluster", "1=tcp://h:1", "--data", "d")
    assert done.code == exit_codes.USAGE
    assert "environment variable LESSOR_NODE_ID: it is a whole number from 1 on, not 'first'" in done.err


def test_a_wrong_variable_of_a_switch_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LESSOR_JSON", "maybe")
    assert "LESSOR_JSON" in run("status").err


@pytest.mark.parametrize("text", ["", "x", "1 y", "-1", "1e3", "nan", "inf", "1..5", "s", "1s2"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        duration(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "x", "²"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        positive(text)


@pytest.mark.parametrize(("text", "value"), [("1", True), ("TRUE", True), ("on", True), ("0", False), ("No", False)])
def test_switches_are_read_as_people_write_them(text: str, *, value: bool) -> None:
    assert boolean(text) is value


def test_names_may_stand_anywhere_among_the_options() -> None:
    def taken(*arguments: str) -> argparse.Namespace:
        found, unknown = build_parser().parse_known_args(arguments)
        found.parser.take_extras(found, unknown)
        return found

    assert taken("lock", "a", "--read", "b", "--ttl", "5", "c").name == ["a", "b", "c"]
    found = taken("register", "put", "x", "--token", "3", "value")
    assert (found.name, found.value) == ("x", "value")


@pytest.mark.parametrize("module", [options, output, names])
def test_the_examples_in_the_sources_are_true(module: types.ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed
