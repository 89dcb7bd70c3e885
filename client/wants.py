"""How a caller says what is wanted: a name, a path, and for reading, writing or so many units of a semaphore."""

from collections.abc import Iterable, Sequence
from typing import Any

from ..core.checks import check_resource
from ..core.errors import BadRequest
from ..core.resources import Mode, Resource

Name = str | Sequence[str]
"""A plain name, or a path of segments."""

Want = Name | Resource | Iterable[Resource]
"""A name or path to have alone, or what `read`, `write` and `units` return, or several of those at once."""


def write(*path: str) -> Resource:
    """Want a path, and all under it, alone.

    >>> write("users", "42").path
    ('users', '42')
    """
    return Resource(path_of(path), Mode.WRITE)


def read(*path: str) -> Resource:
    """Want a path, and all under it, together with others who read.

    >>> read("users").mode.name
    'READ'
    """
    return Resource(path_of(path), Mode.READ)


def units(name: Name, count: int = 1, limit: int | None = None) -> Resource:
    """Want so many units of a semaphore.

    With a `limit` it appears with its first claim and vanishes with its last one; else it must have been created.

    Raises:
        BadRequest: nobody can be granted that: no units, more than the limit, or a limit of none.

    >>> units("workers", 2, limit=4).count
    2
    """
    if limit is not None and limit == 0:  # on the wire, 0 stands for none, so that the semaphore would have to exist
        raise BadRequest("a limit is from 1 on, not 0; None for a semaphore that was created")
    wanted = Resource(path_of(name), Mode.COUNT, count, 0 if limit is None else limit)
    check_resource(wanted)
    return wanted


def path_of(name: Any) -> tuple[str, ...]:
    """Return the path that a name stands for.

    Raises:
        BadRequest: it is neither text nor several texts.
    """
    if isinstance(name, str):
        return (name,)
    if not isinstance(name, Sequence) or isinstance(name, bytes):
        raise BadRequest(f"a name is text, not {type(name).__name__}; a path is a tuple of texts")
    for part in name:
        if not isinstance(part, str):
            raise BadRequest(f"a name is text, not {type(part).__name__}, also within a path")
    return tuple(name)


def resources_of(want: Any) -> tuple[Resource, ...]:
    """Return the resources that somebody wants, all at once.

    Raises:
        BadRequest: it is nothing that can be wanted.
    """
    if isinstance(want, Resource):
        return (want,)
    if isinstance(want, Iterable) and not isinstance(want, str | bytes):
        wants = list(want)
        if not wants:
            # an empty list is what a computed one may be by mistake; the whole namespace has to be named as such
            raise BadRequest("nothing is wanted here; the whole namespace is `write()` or `read()`")
        if all(isinstance(each, Resource) for each in wants):
            return tuple(wants)
        if any(isinstance(each, Resource) for each in wants):
            raise BadRequest("several wants are all made by read(), write() or units()")
        path = path_of(wants)
        if not isinstance(want, tuple):  # nobody can tell whether a path is meant or several names
            raise BadRequest("a path is a tuple of texts, and several names at once are for `lock_all`")
        return (Resource(path, Mode.WRITE),)
    return (Resource(path_of(want), Mode.WRITE),)


def all_resources(wants: Any) -> list[Resource]:
    """Return the resources of several wants.

    Raises:
        BadRequest: one of them is nothing that can be wanted, or they are not several.
    """
    return [resource for want in several(wants) for resource in resources_of(want)]


def several(names: Any) -> list[Any]:
    """Return what is to be several names, or other wants, as a list.

    Raises:
        BadRequest: they are none, or one text: its letters are not meant.
    """
    if isinstance(names, str | bytes) or not isinstance(names, Iterable):
        raise BadRequest(f"several names are a list of them, not {names!r:.80}")
    return list(names)
