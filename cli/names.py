"""NAMEs on the command line: each one segment, or with --path a path of segments; and how paths are shown."""

import argparse
from typing import Final

from ..core.errors import BadRequest
from .options import Parser
from .output import printable

Path = tuple[str, ...]

PATHS: Final = r"""
A NAME is one segment, whatever is in it. With --path it is a path: its segments are separated by /, one before the
first may be there or not, \/ is a slash within a segment, and / alone is the whole namespace. A path overlaps what
lies above it and below it.
"""


def add_name(
    parser: Parser,
    help: str,  # noqa: A002 - argparse's own word
    *others: tuple[str, str],
    required: bool = True,
    runs_command: bool = False,
) -> None:
    """Add the NAME of what is held, and how it is read."""
    parser.name(help, *others, required=required, runs_command=runs_command)
    parser.switch("--path", help="read a NAME as a path: users/42 is below users, and / is the whole namespace")


def path_of(options: argparse.Namespace) -> Path:
    """Return the path that a command is about."""
    return as_path(options.name, options)


def as_path(name: str, options: argparse.Namespace) -> Path:
    """Return the path that a NAME stands for."""
    return read_path(name) if options.path else (name,)


def read_path(text: str) -> Path:
    r"""Return the path that a text with slashes stands for.

    >>> [read_path(text) for text in ("users/42", "/users/42", "/", r"a\/b/c")]
    [('users', '42'), ('users', '42'), (), ('a/b', 'c')]
    """
    if text == "/":
        return ()
    segments = [""]
    escaped = False
    for letter in text.removeprefix("/"):
        if escaped and letter not in "/\\":
            segments[-1] += "\\"
        if letter == "\\" and not escaped:
            escaped = True
            continue
        if letter == "/" and not escaped:
            segments.append("")
        else:
            segments[-1] += letter
        escaped = False
    if escaped:
        segments[-1] += "\\"
    if "" in segments:
        raise BadRequest(f"a segment of the path {text!r} is empty")
    return tuple(segments)


def shown(path: Path) -> str:
    r"""Return a path for people: a plain name as it is, any other one as --path would read it.

    >>> [shown(path) for path in ((), ("a/b",), ("users", "42"), ("a/b", "c"))]
    ['/', 'a/b', '/users/42', '/a\\/b/c']
    """
    if len(path) == 1:
        return printable(path[0])
    return printable("/" + "/".join(segment.replace("\\", "\\\\").replace("/", "\\/") for segment in path))


def called(path: Path) -> str:
    """Return what a path is called within a sentence."""
    return repr(shown(path)) if path else "the whole namespace"
