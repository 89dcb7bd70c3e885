"""The commands in the documents and in the help are understood, and what operators are told to do works."""

import re
import shlex
from collections.abc import Iterator

import pytest

import lessor
from lessor.cli.dispatch import build_parser
from lessor.cli.options import split_command

from ..support.tidy import ROOT
from .commands import Run
from .test_options import commands

PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CLUSTER = "1=tcp://127.0.0.1:7411,2=tcp://127.0.0.1:7421,3=tcp://127.0.0.1:7431"


def blocks(page: str, after: str = "") -> Iterator[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return (match[1] for match in BLOCK.finditer(text, text.index(after)))


def words_of(line: str) -> list[str]:
    """Return the words behind `lessor`: what a shell would hand over, without comments, pipes and jobs."""
    line = re.split(r" \| | < | {2,}(?=[^-])| #|&$", line)[0]
    return shlex.split(line.replace("$CLUSTER", CLUSTER))[1:]


def in_documents() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in blocks(page):
            yield from ((page, line) for line in block.splitlines() if line.startswith("lessor "))


def in_help() -> Iterator[tuple[str, str]]:
    for name, parser in commands().items():
        examples = (parser.epilog or "").partition("\n\n")[0]
        yield from ((name, line.strip()) for line in examples.splitlines() if line.startswith("  lessor "))


@pytest.mark.parametrize(("where", "line"), [*in_documents(), *in_help()])
def test_each_command_that_is_shown_is_understood(where: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NODE_ID", "CLUSTER", "DATA"):
        monkeypatch.setenv(f"LESSOR_{name}", {"NODE_ID": "1", "CLUSTER": CLUSTER, "DATA": "x"}[name])
    arguments, behind = split_command(words_of(line))
    found, unknown = build_parser().parse_known_args(arguments)
    found.parser.take_extras(found, unknown)
    found.parser.take_behind(found, behind)
    found.parser.complete(found)


def test_what_operators_are_told_to_do_about_namespaces_and_semaphores_does_it(service: str, run: Run) -> None:
    block = iter(blocks("docs/operations.md", after="## Namespaces"))
    for lines in (next(block), next(block)):
        assert lines.count("lessor ") >= 3
        for line in lines.splitlines():
            words, behind = split_command(words_of(line))
            done = run(*words, "--endpoints", service, *(["--", *behind] if behind else []))
            assert done.code == 0, (line, done)


def test_what_operators_are_told_to_do_about_a_lease_breaks_it(service: str, run: Run, client: lessor.Client) -> None:
    show, by_name, by_token = next(blocks("docs/operations.md", after="### Breaking")).splitlines()
    lease = client.acquire("nightly-report", ttl=60)
    assert run(*words_of(show), "--endpoints", service).code == 0
    assert run(*words_of(by_name), "--yes", "--endpoints", service).code == 0
    assert client.validate(lease.token) is None
    again = client.acquire("nightly-report", ttl=60)
    words = [str(again.token) if word == "41" else word for word in words_of(by_token)]
    assert run(*words, "--endpoints", service).code == 0
    assert client.validate(again.token) is None


def test_what_the_readme_shows_of_paths_units_and_registers_runs(client: lessor.Client) -> None:
    names = {"client": client, "lessor": lessor}
    exec(next(blocks("README.md", after="## More than a lock by name")), names)
    assert client.read_register("state").data == b"day 6"
