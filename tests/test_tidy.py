"""The rules of the house, kept by reading the sources; each rule is itself tested on a snippet that breaks it."""

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from .support.set_order import fields_of, set_order_problems
from .support.tidy import (
    COUNTED,
    LINES_MAX,
    PACKAGES,
    ROOT,
    Problem,
    import_problems,
    length_problems,
    link_problems,
    name_of,
    name_problems,
    opening_problems,
    project_files,
    purity_problems,
    python_files,
    sleep_problems,
    unfinished_problems,
)

Rule = Callable[[str, str], list[Problem]]

# These words make an import of everything that the base install promises fail if it reaches for the server's packages.
IMPORT_THE_BASE = """
import importlib, pkgutil, sys
for absent in ("pykka", "sqlite_utils"):
    sys.modules[absent] = None
import lessor
for package in ("core", "transport", "client", "fencing"):
    module = importlib.import_module(f"lessor.{package}")
    for found in pkgutil.walk_packages(module.__path__, f"lessor.{package}."):
        importlib.import_module(found.name)
assert "sqlite3" not in sys.modules, "the client has loaded sqlite3"
module = importlib.import_module("lessor.cli")
for found in pkgutil.walk_packages(module.__path__, "lessor.cli."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
"""


def keep(rule: Rule, paths: Iterable[Path]) -> None:
    """Fail with every place where one of these files breaks the rule; finding no file at all is a failure too."""
    paths = list(paths)
    assert paths, "no file was found to check"
    problems = [problem for path in paths for problem in rule(name_of(path), path.read_text(encoding="utf-8"))]
    assert not problems, "\n" + "\n".join(map(str, problems))


# The rules, kept.


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_keep_their_direction(package: str) -> None:
    keep(import_problems, python_files(package))


def test_core_touches_no_clock_file_or_terminal() -> None:
    keep(purity_problems, python_files("core"))


def test_core_never_lets_the_order_of_a_set_decide() -> None:
    paths = python_files("core")
    fields = fields_of(path.read_text(encoding="utf-8") for path in paths)
    keep(lambda path, source: set_order_problems(path, source, fields), paths)


def test_each_file_opens_with_a_sentence() -> None:
    keep(opening_problems, python_files())


def test_no_file_is_long() -> None:
    keep(length_problems, (path for path in project_files() if path.suffix in COUNTED or path.name == "Makefile"))


def test_nothing_is_marked_as_unfinished() -> None:
    keep(unfinished_problems, (path for path in project_files() if is_text(path)))


def test_no_test_sleeps() -> None:
    keep(sleep_problems, (path for path in python_files("tests") if ROOT / "tests" / "support" not in path.parents))


def test_the_name_of_each_test_is_a_sentence() -> None:
    keep(name_problems, (path for path in python_files("tests") if path.name.startswith("test_")))


def test_the_import_view_holds_one_link_per_package_and_nothing_else() -> None:
    assert link_problems(ROOT / "src" / "lessor") == []


def test_the_base_install_needs_nothing_of_the_server() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_THE_BASE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def is_text(path: Path) -> bool:
    return b"\0" not in path.read_bytes()[:1024]


# The rules, tested.


@pytest.mark.parametrize(
    ("path", "source"),
    [
        pytest.param("core/x.py", "from ..storage import journal", id="core reaches up"),
        pytest.param("core/x.py", "from .. import storage", id="core reaches up by name"),
        pytest.param("core/x.py", "from .. import __version__", id="core reads the root"),
        pytest.param("core/deep/x.py", "from ...actors.node import Node", id="core reaches up from a folder"),
        pytest.param("core/x.py", "from lessor.core.ballot import Ballot", id="by the absolute name"),
        pytest.param("core/x.py", "import lessor.core.ballot", id="by the absolute name, whole"),
        pytest.param("core/x.py", "import core.ballot", id="by a second name"),
        pytest.param("core/x.py", "from ...core import ballot", id="past the root"),
        pytest.param("core/x.py", "import time", id="clock"),
        pytest.param("core/x.py", "from random import Random", id="chance"),
        pytest.param("core/x.py", "import secrets", id="secrets"),
        pytest.param("core/x.py", "import uuid", id="uuid"),
        pytest.param("core/x.py", "import os.path", id="os"),
        pytest.param("core/x.py", "import threading", id="threads"),
        pytest.param("core/x.py", "import socket", id="sockets"),
        pytest.param("core/x.py", "import asyncio", id="asyncio"),
        pytest.param("core/x.py", "import select", id="select"),
        pytest.param("core/x.py", "import subprocess", id="processes"),
        pytest.param("core/x.py", "import zmq", id="zmq in core"),
        pytest.param("core/x.py", "def f():\n    import time", id="clock inside a function"),
        pytest.param(
            "core/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import socket", id="for types"
        ),
        pytest.param("storage/x.py", "from ..actors import acceptor", id="storage reaches up"),
        pytest.param("storage/x.py", "from ..transport import wire", id="storage reaches aside"),
        pytest.param("transport/x.py", "from ..storage import journal", id="transport reaches aside"),
        pytest.param("transport/x.py", "from ..client import sync", id="transport reaches up"),
        pytest.param("actors/x.py", "from ..client import sync", id="actors reach aside"),
        pytest.param("client/x.py", "from ..storage import journal", id="client reaches storage"),
        pytest.param(
            "client/x.py", "def f():\n    from ..actors import node", id="client reaches actors in a function"
        ),
        pytest.param("client/x.py", "import pykka", id="client reaches pykka"),
        pytest.param("client/x.py", "import sqlite3", id="client reaches sqlite"),
        pytest.param("client/x.py", "def f():\n    import sqlite_utils", id="client reaches sqlite in a function"),
        pytest.param("client/x.py", "from ..cli import main", id="client reaches up"),
        pytest.param("cli/x.py", "from ..actors import node", id="cli reaches the server at once"),
        pytest.param("cli/x.py", "import pykka", id="cli reaches pykka at once"),
        pytest.param("fencing/x.py", "from ..client import sync", id="fencing reaches aside"),
        pytest.param("testing/x.py", "from ..cli import local_cluster", id="the test kit reaches the command"),
        pytest.param("cli/x.py", "def f():\n    from ..testing import Cluster", id="the command reaches the test kit"),
        pytest.param("client/x.py", "from ..testing import Cluster", id="client reaches the test kit"),
        pytest.param("fencing/x.py", "import sqlite3", id="fencing reaches sqlite"),
    ],
)
def test_an_import_against_the_direction_is_found(path: str, source: str) -> None:
    assert import_problems(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "core/x.py",
            "import cbor2\nfrom . import ballot\nfrom .ballot import Ballot\nfrom collections.abc import Iterable",
        ),
        ("core/deep/x.py", "from ..ballot import Ballot\nfrom . import y\nfrom ...core import messages"),
        ("storage/x.py", "import sqlite3\nimport sqlite_utils\nfrom ..core.ballot import Ballot"),
        ("transport/x.py", "import zmq\nfrom ..core.messages import Accept"),
        ("actors/x.py", "import pykka\nfrom .. import storage, transport\nfrom ..core.messages import Accept"),
        ("client/x.py", "import asyncio\nimport zmq.asyncio\nfrom ..transport import wire\nfrom .. import core"),
        (
            "cli/x.py",
            "from .. import connect\ndef f():\n    from ..actors import node\n    import pykka",
        ),
    ],
)
def test_an_import_along_the_direction_is_allowed(path: str, source: str) -> None:
    assert import_problems(path, source) == []


@pytest.mark.parametrize(
    "source",
    [
        "x = datetime.now()",
        "x = datetime.datetime.utcnow()",
        "x = date.today()",
        "x = open('f')",
        "print(1)",
        "x = hash('name')",
        "x = id(object())",
        "x = sorted(y, key=id)",
        "x = __import__('time')",
        "async def f(): pass",
    ],
)
def test_an_impure_call_in_core_is_found(source: str) -> None:
    assert purity_problems("core/x.py", source)


def test_a_field_or_method_of_that_name_is_no_impure_call() -> None:
    assert purity_problems("core/x.py", "class C:\n    id: int\n\nx = c.id + c.hash() + c.open()") == []


@pytest.mark.parametrize(
    "source",
    [
        "for x in {1, 2}: pass",
        "for x in {y for y in z}: pass",
        "for x in set(y): pass",
        "for x in frozenset(y): pass",
        "for x in set(a) | b: pass",
        "for x in a.keys() & b: pass",
        "for x in (s := {1}): pass",
        "s: set[int] = f()\nfor x in s: pass",
        "s: 'frozenset[int] | None' = f()\nfor x in s: pass",
        "s = set(y)\nt = s\nfor x in t: pass",
        "def f(s: set[int]):\n    for x in s: pass",
        "def f(s: Set[int]):\n    return [x for x in s]",
        "def f(s: frozenset[int] | None):\n    return {x: 1 for x in s or ()}",
        "def f(s: set[int]):\n    return f(x for x in s)",
        "def f(s: set[int]):\n    return list(s), 1",
        "def f(s: set[int]):\n    return tuple(s - {1})",
        "def f(s: set[str]):\n    return ','.join(s)",
        "def f(s: set[str]):\n    return ','.join(x for x in s)",
        "def f(s: set[int]):\n    return [*s]",
        "def f(s: set[int]):\n    a, b = s",
        "def f(s: set[int]):\n    yield from s",
        "def f(s: set[int]):\n    return next(iter(s))",
        "def f(s: set[int]):\n    return s.pop()",
        "def f(s: set[int]):\n    return f'{s}'",
        "def f(s: set[int]):\n    return sorted(s, key=g)",
        "def f(s: set[int]):\n    return min(s, key=g)",
        "def f(a, s: set[int]):\n    a += s\n    a.extend(s)",
        "def f(s: set[int]):\n    return enumerate(s.union(t))",
        "class C:\n    s: set[int]\n    def f(self):\n        for x in self.s: pass",
        "class C:\n    def __init__(self):\n        self.s = set(y)\n    def f(self):\n        return list(self.s)",
        "class C:\n    @property\n    def s(self) -> set[int]: ...\n\nx = list(c.s)",
        "def voters() -> frozenset[int]: ...\n\nfor x in voters(): pass",
        "class C:\n    acks: dict[int, set[int]]\n\nfor x in c.acks[3]: pass",
        "def f(m: dict[int, set[int]]):\n    for x in m.get(3, ()): pass",
        "def f(m: dict[int, set[int]]):\n    return [list(s) for s in m.values()]",
        "def f(m: dict[int, set[int]]):\n    for k, s in m.items():\n        for x in s: pass",
    ],
)
def test_the_order_of_a_set_is_found_where_it_decides(source: str) -> None:
    assert set_order_problems("core/x.py", source)


def test_a_set_that_another_module_declares_is_known_too() -> None:
    fields = fields_of(["class C:\n    voters: frozenset[int]", "ALL = frozenset({1})"])
    assert set_order_problems("core/x.py", "for x in c.voters: pass", fields)
    assert set_order_problems("core/x.py", "from .y import ALL as every\nfor x in every: pass", fields)


@pytest.mark.parametrize(
    "source",
    [
        "for x in sorted({1, 2}): pass",
        "for x in (1, 2): pass",
        "def f(s: set[int]):\n    return len(s), max(s), 3 in s, sorted(s), s <= {1}",
        "def f(s: set[int]):\n    return any(x > 1 for x in s) and sum(1 for x in s)",
        "def f(s: set[int]):\n    return sorted(x + 1 for x in s)",
        "def f(s: set[int]):\n    return {x + 1 for x in s} | {*s}",
        "def f(s: set[int]):\n    return g(s)",
        "def f(d: dict[int, int]):\n    return list(d.keys()), [k for k, v in d.items()]",
        "def f(s: set[int]): pass\n\ndef g(s: list[int]):\n    return list(s)",
    ],
)
def test_a_set_whose_order_decides_nothing_is_allowed(source: str) -> None:
    assert set_order_problems("core/x.py", source) == []


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        pytest.param(opening_problems, "x = 1\n", id="no docstring"),
        pytest.param(opening_problems, '"""No full stop at all"""\n', id="no full stop"),
        pytest.param(opening_problems, '"""Spread over\ntwo lines."""\n', id="a sentence over two lines"),
        pytest.param(opening_problems, '"""Things."""\n', id="one word"),
        pytest.param(length_problems, "x = 1\n" * (LINES_MAX + 1), id="too long"),
        pytest.param(unfinished_problems, "x = 1  # TO" + "DO: more\n", id="to be done"),
        pytest.param(unfinished_problems, "# FIX" + "ME\n", id="to be fixed"),
        pytest.param(unfinished_problems, "# X" + "XX\n", id="to be crossed"),
        pytest.param(sleep_problems, "import time\ntime.sleep(1)\n", id="sleeps"),
        pytest.param(sleep_problems, "from time import sleep\n", id="imports sleep"),
        pytest.param(sleep_problems, "nap = time.sleep\n", id="sleeps under another name"),
        pytest.param(sleep_problems, "async def f():\n    await asyncio.sleep(0.1)\n", id="sleeps asynchronously"),
        pytest.param(name_problems, "def test_it(): pass\n", id="one word in a name"),
        pytest.param(
            name_problems, "class TestX:\n    async def test_two_words(self): pass\n", id="two words in a name"
        ),
    ],
)
def test_a_file_that_breaks_a_rule_is_found(rule: Rule, source: str) -> None:
    assert rule("tests/test_x.py", source)


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (opening_problems, ""),
        (opening_problems, '"""This says what it is. (And where it comes from.)"""\n'),
        (opening_problems, '"""This says what it is.\n\nAnd more.\n"""\n'),
        (length_problems, "x = 1\n" * LINES_MAX),
        (unfinished_problems, "METHOD" + "OLOGY = 'TO" + "DOS'\n"),
        (sleep_problems, "async def f():\n    await asyncio.sleep(0)\n"),
        (name_problems, "def test_this_is_enough(): pass\ndef helper(): pass\n"),
    ],
)
def test_a_file_that_keeps_the_rule_is_left_in_peace(rule: Rule, source: str) -> None:
    assert rule("tests/test_x.py", source) == []


def test_a_stray_file_a_missing_link_and_an_absolute_link_are_found(tmp_path: Path) -> None:
    for name in PACKAGES[2:]:
        (tmp_path / name).symlink_to(f"../../{name}")
    (tmp_path / PACKAGES[0]).symlink_to(ROOT / PACKAGES[0])
    (tmp_path / "stray.py").touch()
    (tmp_path / "py.typed").touch()
    problems = " ".join(link_problems(tmp_path))
    for expected in (
        f"{PACKAGES[0]} links to",
        f"{PACKAGES[1]} is no link",
        "__init__.py is missing",
        "__main__.py is missing",
        "stray.py does not",
    ):
        assert expected in problems
    assert "py.typed" not in problems


def test_a_deep_test_that_is_named_is_run_as_the_lines_that_repeat_a_failure_ask() -> None:
    name = "tests/system/test_crashes.py::test_two_of_three_nodes_suffice"
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert name in done.stdout.splitlines(), done.stdout
