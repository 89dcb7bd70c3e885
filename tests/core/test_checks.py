"""The check of operations as callers made them: a field of a wrong type is refused by name, whatever else is right."""

from dataclasses import fields, replace
from typing import Any, Final

import pytest

from lessor.core.checks import check, check_part, check_resource
from lessor.core.commands import (
    KEEP,
    AlterNamespace,
    Amend,
    Break,
    Check,
    Claim,
    CreateNamespace,
    CreateSemaphore,
    DeleteSemaphore,
    Describe,
    DescribeNamespace,
    DropNamespace,
    EraseRegister,
    GetRegister,
    HeldBy,
    NamespaceConfig,
    OpenSession,
    Pin,
    PutRegister,
    ReadEvents,
    RegisterIs,
    Release,
    Renew,
    Step,
    TokenHeld,
    Unheld,
    Unpin,
    UpdateSemaphore,
    Validate,
)
from lessor.core.errors import BadRequest
from lessor.core.resources import Mode, Resource

A: Final = ("default", ("a",))

OPERATIONS: Final[list[Any]] = [
    OpenSession(bytes(16), 10_000, "of a test", "default"),
    Claim("default", (Resource(("a",)),), "me", b"", 1_000, 0, detached=True),
    Amend(1, 2, to_read=False, wait_ms=KEEP, new_data=True, data=b""),
    Release(1),
    Validate(1),
    Renew(1, 1_000),
    Break(1, "why"),
    Describe(*A),
    CreateSemaphore(*A, 3, b""),
    UpdateSemaphore(*A, b""),
    DeleteSemaphore(*A, force=True),
    Pin(*A, "e"),
    Unpin(*A, "e"),
    PutRegister(*A, 1, 2, b""),
    EraseRegister(*A, 1, 2),
    GetRegister(*A),
    ReadEvents(*A, below=False, after=1, limit=10),
    CreateNamespace("n", NamespaceConfig()),
    AlterNamespace("n", NamespaceConfig()),
    DropNamespace("n", force=True),
    DescribeNamespace("n"),
]

PARTS: Final[list[Any]] = [HeldBy(*A, "me"), Unheld(*A), RegisterIs(*A, 2), TokenHeld(3)]

GIVEN: Final = frozenset(
    "name namespace holder data description reason entity token limit count version after detached".split()
)
"""The fields that hold what a caller gave as it is; the others are computed from that."""

STRANGERS: Final[list[Any]] = [None, 1.5, "text", b"bytes", 7, True, ["a"], object()]


def cases() -> list[Any]:
    return [
        pytest.param(operation, field.name, id=f"{type(operation).__name__}.{field.name}")
        for operation in [*OPERATIONS, *PARTS]
        for field in fields(operation)
        if field.name in GIVEN
    ]


def refuse(operation: Any) -> None:
    if isinstance(operation, Check):
        check_part(operation, Check)
    else:
        check(operation)


@pytest.mark.parametrize(("operation", "name"), cases())
def test_a_field_of_a_wrong_type_is_refused(operation: Any, name: str) -> None:
    """P11: with an error of ours that names what is expected, wherever the value came from."""
    refuse(operation)  # as it is, nothing is wrong with it
    right = getattr(operation, name)
    for stranger in STRANGERS:
        if type(stranger) is type(right):
            continue
        with pytest.raises(BadRequest, match=r"is text|is bytes|is a whole number|True or False"):
            refuse(replace(operation, **{name: stranger}))


@pytest.mark.parametrize("name", ["count", "limit"])
@pytest.mark.parametrize("stranger", [None, 1.5, "3", True])
def test_units_are_counted_in_whole_numbers(name: str, stranger: Any) -> None:
    with pytest.raises(BadRequest, match=f"a {name} is a whole number, not {type(stranger).__name__}"):
        check_resource(replace(Resource(("s",), Mode.COUNT, 1, 3), **{name: stranger}))


@pytest.mark.parametrize("stranger", [1.5, "3", True, None])
def test_a_bound_on_claims_is_a_whole_number(stranger: Any) -> None:
    with pytest.raises(BadRequest, match="a bound on claims is a whole number"):
        check(CreateNamespace("n", NamespaceConfig(claims_max=stranger)))


@pytest.mark.parametrize("part", [None, "release", Describe(*A), OpenSession(bytes(16), 10_000, "", "default")])
def test_only_its_own_parts_have_a_place_in_a_transaction(part: Any) -> None:
    for kinds in (Check, Step):
        with pytest.raises(BadRequest, match="has no place in a transaction"):
            check_part(part, kinds)
