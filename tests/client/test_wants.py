"""How a caller says what is wanted, and what is refused before anything is asked."""

from typing import Any

import pytest

from lessor.client.errors import BadRequest
from lessor.client.wants import all_resources, path_of, read, resources_of, units, write
from lessor.core import limits
from lessor.core.checks import check
from lessor.core.commands import Claim
from lessor.core.resources import Mode, Resource

X = Resource(("x",), Mode.WRITE)


@pytest.mark.parametrize(
    ("want", "resources"),
    [
        ("x", (X,)),
        ("x/y", (Resource(("x/y",), Mode.WRITE),)),
        (("x", "y"), (Resource(("x", "y"), Mode.WRITE),)),
        (X, (X,)),
        (read("x"), (Resource(("x",), Mode.READ),)),
        (read(), (Resource((), Mode.READ),)),
        (write(), (Resource((), Mode.WRITE),)),
        (write("a", "b"), (Resource(("a", "b"), Mode.WRITE),)),
        (units("s"), (Resource(("s",), Mode.COUNT, 1, 0),)),
        (units(("s", "t"), 3, limit=4), (Resource(("s", "t"), Mode.COUNT, 3, 4),)),
        ([read("a"), X], (Resource(("a",), Mode.READ), X)),
        ((one for one in (X, read("b"))), (X, Resource(("b",), Mode.READ))),
    ],
)
def test_what_each_way_to_say_it_stands_for(want: Any, resources: tuple[Resource, ...]) -> None:
    assert resources_of(want) == resources


@pytest.mark.parametrize("want", [None, 7, b"x", ("x", 7), ["x", None], [X, "x"], ["x", X], {"x": 1}.items()])
def test_what_cannot_be_wanted_is_refused(want: Any) -> None:  # P11
    with pytest.raises(BadRequest):
        resources_of(want)


@pytest.mark.parametrize("want", [["a", "b"], (name for name in ("a", "b"))])
def test_names_in_a_list_are_neither_a_path_nor_a_set(want: Any) -> None:
    """`lock_all` takes such a list as two names, so that nobody is to read it as the path a/b elsewhere."""
    with pytest.raises(BadRequest, match="lock_all"):
        resources_of(want)


@pytest.mark.parametrize("name", [None, 7, b"x", ["x", b"y"], {"x"}])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(BadRequest, match="a name is text"):
        path_of(name)


@pytest.mark.parametrize(
    ("count", "limit", "text"),
    [
        *((count, None, "a count is a whole number") for count in (True, 1.0, "1", None)),
        *((1, limit, "a limit is a whole number") for limit in (True, 1.5, "3")),
        *((count, None, "a count is from 1 to") for count in (0, -1, 2**63)),
        *((1, limit, "a limit is from") for limit in (-1, 2**63)),
        (1, 0, "a limit is from 1 on, not 0; None for a semaphore that was created"),
        (5, 4, "more than the limit 4"),
    ],
)
def test_units_are_whole_and_within_bounds(count: Any, limit: Any, text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        units("s", count, limit)


@pytest.mark.parametrize(
    "want",
    [
        Resource(("s",), Mode.COUNT, 0),
        Resource(("s",), Mode.COUNT, 5, 4),
        [units("s"), units("s", 2)],
        "",
        ("x", ""),
        "x" * (limits.NAME_BYTES_MAX + 1),
        [write(str(number)) for number in range(limits.RESOURCES_PER_CLAIM_MAX + 1)],
    ],
)
def test_what_is_wrong_in_itself_is_refused_before_it_is_sent(want: Any) -> None:
    with pytest.raises(BadRequest):
        check(Claim("default", resources_of(want), "me", b"", 0, 0, detached=False))


@pytest.mark.parametrize("nothing", [[], (), iter(())], ids=["list", "tuple", "iterator"])
def test_a_list_that_turned_out_empty_is_not_the_whole_namespace(nothing: Any) -> None:
    with pytest.raises(BadRequest, match="nothing is wanted"):
        resources_of(nothing)


def test_a_text_is_not_a_list_of_its_letters() -> None:
    with pytest.raises(BadRequest, match="a list of them, not 'ledger'"):
        all_resources("ledger")
    assert [one.path for one in all_resources(["ledger", ("a", "b")])] == [("ledger",), ("a", "b")]
