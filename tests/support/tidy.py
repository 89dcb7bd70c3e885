"""The rules that tests/test_tidy.py keeps, each a function from a source text to the problems found in it."""

import ast
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("core", "actors", "transport", "storage", "client", "cli", "fencing", "testing")
# What stands in src/lessor besides the links: what users import, `python -m lessor`, and the mark of a typed package.
ROOT_FILES = ("__init__.py", "__main__.py", "aio.py", "recipes.py", "py.typed")

# core <- storage <- actors;  core <- transport <- actors;  core <- transport <- client <- cli;  core <- fencing.
# The test kit starts whole clusters, so it may reach all of it but the command; nothing reaches the kit.
# "lessor" stands for the root of the package, which gathers what users import and so lies above the client.
OURS = {
    "core": {"core"},
    "storage": {"storage", "core"},
    "transport": {"transport", "core"},
    "actors": {"actors", "storage", "transport", "core"},
    "client": {"client", "transport", "core"},
    "cli": {"cli", "client", "transport", "core", "lessor"},
    "fencing": {"fencing", "core"},
    "testing": {"testing", "actors", "storage", "client", "transport", "core"},
}
# The base install has no pykka and no sqlite-utils: the command imports the server inside the functions that need it.
OURS_LAZILY = {"cli": {"actors", "storage"}}

# What core may use of the standard library: modules that only compute.
PURE = frozenset(
    "__future__ abc base64 binascii bisect collections contextlib copy dataclasses datetime enum fractions functools "
    "hashlib heapq hmac itertools math numbers operator re string struct textwrap types typing unicodedata zlib".split()
)
STDLIB = frozenset(sys.stdlib_module_names)
WIRE = frozenset({"zmq", "cbor2"})
OUTSIDE = {
    "core": PURE | {"cbor2"},
    "storage": STDLIB | {"cbor2", "sqlite_utils"},
    "transport": (STDLIB - {"sqlite3"}) | WIRE,
    "actors": STDLIB | WIRE | {"pykka"},
    "client": (STDLIB - {"sqlite3"}) | WIRE,
    "cli": STDLIB | WIRE,
    "testing": (STDLIB - {"sqlite3"}) | WIRE | {"pytest"},
    "fencing": STDLIB - {"sqlite3"},  # the connection is the user's
}
OUTSIDE_LAZILY = {"cli": {"pykka", "sqlite_utils"}}

# Builtins that reach out of core, or whose answer differs from process to process.
PURE_ALL_THE_SAME = {
    # it writes out a function for each message class from the class's own fields, as `dataclass` itself does
    ("core/encoding.py", "exec"),
}
IMPURE_NAMES = frozenset({"__import__", "breakpoint", "eval", "exec", "hash", "id", "input", "open", "print"})
CLOCK_READS = frozenset({"now", "today", "utcnow"})

LINES_MAX = 600
COUNTED = frozenset({".py", ".pyi", ".sh", ".toml", ".yaml", ".yml", ".cfg", ".ini"})
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3)) + r")\b")
LEFT_BEHIND = frozenset({"build", "dist", "htmlcov", "__pycache__"})


@dataclass(frozen=True, slots=True)
class Problem:
    """One place where a rule is broken."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        """Print as file:line, which editors open."""
        return f"{self.path}:{self.line}: {self.what}"


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module: the package of ours or the outside module that it reaches."""

    line: int
    target: str
    ours: bool
    relative: bool
    lazy: bool  # inside a function, or for the type checker alone


def project_files(*folders: str) -> Iterator[Path]:
    """Each file of the project, or of these folders of it, without following links, caches and builds left out."""
    for folder in folders or (".",):
        for here, inside, names in os.walk(ROOT / folder):
            inside[:] = sorted(name for name in inside if not is_left_behind(name))
            yield from (Path(here, name) for name in sorted(names) if not Path(here, name).is_symlink())


def is_left_behind(folder: str) -> bool:
    return folder in LEFT_BEHIND or folder.endswith(".egg-info") or (folder.startswith(".") and folder != ".ci")


def python_files(*folders: str) -> list[Path]:
    return [path for path in project_files(*folders) if path.suffix == ".py"]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports_of(path: str, tree: ast.Module) -> Iterator[Import]:
    """All imports of the file `path` (as core/ballot.py), wherever in it they stand."""
    package = ("lessor", *Path(path).parent.parts)
    for node, lazy in with_laziness(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top, _, rest = alias.name.partition(".")
                ours = top == "lessor"
                yield Import(node.lineno, (rest.split(".")[0] or top) if ours else top, ours, relative=False, lazy=lazy)
        elif isinstance(node, ast.ImportFrom):
            module = tuple(node.module.split(".")) if node.module else ()
            full = package[: len(package) - node.level + 1] + module if node.level else module
            relative = node.level > 0
            if full == ("lessor",):  # `from .. import core`: the names may be packages
                for alias in node.names:
                    target = alias.name if alias.name in PACKAGES else "lessor"
                    yield Import(node.lineno, target, ours=True, relative=relative, lazy=lazy)
            elif full[:1] == ("lessor",):
                yield Import(node.lineno, full[1], ours=True, relative=relative, lazy=lazy)
            else:  # a relative import that climbs past the root ends here too, as a module nobody allows
                target = "." * node.level + node.module.split(".")[0] if node.module else "." * node.level
                yield Import(node.lineno, target, ours=False, relative=relative, lazy=lazy)


def with_laziness(node: ast.AST, *, lazy: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Walk the tree, and say of each node whether importing the module leaves it out."""
    for child in ast.iter_child_nodes(node):
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and child in node.body:
            inside = True
        yield child, inside
        yield from with_laziness(child, lazy=inside)


def import_problems(path: str, source: str) -> list[Problem]:
    """Imports against their direction, of foreign modules that the package may not use, or of ours by absolute name."""
    package = path.split("/", maxsplit=1)[0]
    problems = []
    for found in imports_of(path, ast.parse(source)):
        ours, outside = set(OURS[package]), set(OUTSIDE[package])
        if found.lazy:
            ours |= OURS_LAZILY.get(package, set())
            outside |= OUTSIDE_LAZILY.get(package, set())
        if found.ours and not found.relative:
            problems.append(Problem(path, found.line, f"imports {found.target} by its absolute name"))
        if found.target not in (ours if found.ours else outside):
            problems.append(Problem(path, found.line, f"{package} may not import {found.target} here"))
    return problems


def purity_problems(path: str, source: str) -> list[Problem]:
    """What core must not call: clocks, files, the terminal, and answers that differ from process to process."""
    problems = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in IMPURE_NAMES:
            if (path, node.id) not in PURE_ALL_THE_SAME:
                problems.append(Problem(path, node.lineno, f"{node.id} is banned from core"))
        elif isinstance(node, ast.Attribute) and node.attr in CLOCK_READS:
            problems.append(Problem(path, node.lineno, f".{node.attr} reads a clock; time is a field of the message"))
        elif isinstance(node, ast.AsyncFunctionDef | ast.Await):
            problems.append(Problem(path, node.lineno, "core waits for nothing"))
    return problems


def opening_problems(path: str, source: str) -> list[Problem]:
    """A Python file that does not open with a sentence saying what it is (an empty file says nothing and is fine)."""
    if not source.strip():
        return []
    first = (ast.get_docstring(ast.parse(source)) or "").split("\n", maxsplit=1)[0]
    if not first.endswith((".", ".)")) or len(first.split()) < 3:
        return [Problem(path, 1, "does not open with a docstring whose first line is a sentence")]
    return []


def length_problems(path: str, source: str) -> list[Problem]:
    lines = source.count("\n") + (not source.endswith("\n"))
    return [Problem(path, LINES_MAX + 1, f"has {lines} lines, {LINES_MAX} are allowed")] if lines > LINES_MAX else []


def unfinished_problems(path: str, source: str) -> list[Problem]:
    found = ((number, UNFINISHED.search(line)) for number, line in enumerate(source.splitlines(), start=1))
    return [Problem(path, number, f"{match[0]}: finish it, or write an issue") for number, match in found if match]


def sleep_problems(path: str, source: str) -> list[Problem]:
    """Sleeps in a test, which pass on one machine and fail on a slower one; `asyncio.sleep(0)` only gives way."""
    problems = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "asyncio"):
            asleep = any(alias.name == "sleep" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "asyncio.sleep":
            asleep = [ast.unparse(argument) for argument in node.args] != ["0"]
        else:
            asleep = isinstance(node, ast.Attribute) and ast.unparse(node) == "time.sleep"
        if asleep:
            problems.append(
                Problem(path, getattr(node, "lineno", 1), "sleeps; wait for the event (tests/support/waiting.py)")
            )
    return problems


def name_problems(path: str, source: str) -> list[Problem]:
    """Tests whose name is not a sentence, taking three words as the least that a sentence needs."""
    return [
        Problem(path, node.lineno, f"{node.name} is no sentence")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test")
        and len([word for word in node.name.removeprefix("test").split("_") if word]) < 3
    ]


def link_problems(package_root: Path) -> list[str]:
    """What is wrong with src/lessor: one relative link for each package folder, some files, and nothing else."""
    problems = []
    found = {path.name: path for path in package_root.iterdir() if path.name != "__pycache__"}
    for name in PACKAGES:
        link = found.pop(name, None)
        if link is None or not link.is_symlink():
            problems.append(f"{name} is no link")
        elif link.readlink() != Path("../..", name):
            problems.append(f"{name} links to {link.readlink()}")
    present = {name for name in ROOT_FILES if name in found and found.pop(name).is_file()}
    problems += [f"{name} is missing" for name in ROOT_FILES if name not in present]
    return problems + [f"{name} does not belong here" for name in sorted(found)]
