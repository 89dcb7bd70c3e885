"""The check of operations: just inside each bound all is well, just outside the text names the bound."""

import typing
from dataclasses import replace
from typing import Any

import pytest

from lessor.core import limits
from lessor.core.checks import check, check_holder
from lessor.core.commands import (
    FOREVER,
    REPEATABLE,
    SESSIONLESS,
    Cancel,
    Claim,
    CloseSession,
    Command,
    Describe,
    ListClaims,
    OpenSession,
    Operation,
    Ping,
    Release,
    Renew,
)
from lessor.core.encoding import INT_MAX, decode, encode
from lessor.core.errors import BadRequest, LessorError, Malformed
from lessor.core.requests import Request
from lessor.core.resources import Resource

KEY = b"k" * limits.SESSION_KEY_BYTES
OPEN = OpenSession(KEY, 10_000, "a client")
CLAIM = Claim("default", (Resource(("nightly",)),), "host", b"", ttl_ms=30_000, wait_ms=0, detached=False)
DETACHED = replace(CLAIM, detached=True)
RENEW = Renew(1, 30_000)
DESCRIBE = Describe("default", ("nightly",))
LISTING = ListClaims("default", 0, 100)
EVERY = [OPEN, CloseSession(), Ping((1,)), CLAIM, DETACHED, Cancel(1), RENEW, Release(1), DESCRIBE, LISTING]


def named(name: str) -> Claim:
    return replace(CLAIM, resources=(Resource((name,)),))


RANGES: list[tuple[Any, str, int, int]] = [
    (OPEN, "timeout_ms", limits.SESSION_TIMEOUT_MS_MIN, limits.SESSION_TIMEOUT_MS_MAX),
    (CLAIM, "ttl_ms", limits.TTL_MS_MIN, limits.TTL_MS_MAX),
    (DETACHED, "ttl_ms", limits.TTL_MS_MIN, limits.TTL_MS_MAX),
    (CLAIM, "wait_ms", 0, limits.WAIT_MS_MAX),
    (RENEW, "ttl_ms", limits.TTL_MS_MIN, limits.TTL_MS_MAX),
    (LISTING, "limit", 1, limits.LIST_PAGE_MAX),
]


def ranged(case: Any) -> str:
    return f"{type(case[0]).__name__}.{case[1]}"


@pytest.mark.parametrize("case", RANGES, ids=ranged)
def test_a_number_within_its_bounds_is_accepted(case: tuple[Any, str, int, int]) -> None:
    operation, name, low, high = case
    for value in (low, low + 1, (low + high) // 2, high - 1, high):
        check(replace(operation, **{name: value}))


@pytest.mark.parametrize("case", RANGES, ids=ranged)
def test_a_number_out_of_its_bounds_is_refused_and_both_bounds_are_named(case: tuple[Any, str, int, int]) -> None:
    operation, name, low, high = case
    for value in (-1, low - 1, high + 1, INT_MAX - 1):
        if value == 0 and name == "ttl_ms":
            continue  # has a meaning of its own, tested below
        with pytest.raises(BadRequest) as refused:
            check(replace(operation, **{name: value}))
        assert {str(low), str(high), str(value)} <= set(str(refused.value).replace(",", " ").split())


def test_a_lease_without_a_ttl_lives_as_long_as_its_session() -> None:
    check(replace(CLAIM, ttl_ms=0))


def test_a_detached_lease_without_a_ttl_is_refused() -> None:
    with pytest.raises(BadRequest, match="needs a ttl"):
        check(replace(DETACHED, ttl_ms=0))


def test_a_renewal_without_a_ttl_uses_the_leases_own() -> None:
    check(replace(RENEW, ttl_ms=0))


def test_waiting_for_ever_is_said_as_such() -> None:
    check(replace(CLAIM, wait_ms=FOREVER))
    with pytest.raises(BadRequest, match="a wait is from"):
        check(replace(CLAIM, wait_ms=FOREVER - 1))


@pytest.mark.parametrize("size", [0, limits.SESSION_KEY_BYTES - 1, limits.SESSION_KEY_BYTES + 1])
def test_a_session_key_has_just_its_size(size: int) -> None:
    check(OPEN)
    with pytest.raises(BadRequest, match=f"has {limits.SESSION_KEY_BYTES} bytes, not {size}"):
        check(replace(OPEN, key=b"k" * size))


def test_data_may_reach_its_bound_and_not_pass_it() -> None:
    check(replace(CLAIM, data=b"x" * limits.DATA_BYTES_MAX))
    with pytest.raises(BadRequest, match=f"{limits.DATA_BYTES_MAX + 1} bytes is more than {limits.DATA_BYTES_MAX}"):
        check(replace(CLAIM, data=b"x" * (limits.DATA_BYTES_MAX + 1)))


# --- names -----------------------------------------------------------------------------------------------------------

TEXTS: list[tuple[str, Any, int]] = [
    ("a name", named, limits.NAME_BYTES_MAX),
    ("a name", lambda text: replace(DESCRIBE, path=(text,)), limits.NAME_BYTES_MAX),
    ("a namespace", lambda text: replace(CLAIM, namespace=text), limits.NAMESPACE_BYTES_MAX),
    ("a namespace", lambda text: replace(DESCRIBE, namespace=text), limits.NAMESPACE_BYTES_MAX),
    ("a holder's name", lambda text: replace(CLAIM, holder=text), limits.HOLDER_BYTES_MAX),
]
EACH_TEXT = pytest.mark.parametrize("case", TEXTS, ids=lambda case: f"{case[0]} of {type(case[1]('x')).__name__}")


@EACH_TEXT
def test_a_text_may_reach_its_bound_in_utf_8(case: tuple[str, Any, int]) -> None:
    _, operation, bound = case
    for text in (
        "x",
        "x" * bound,
        "x" * (bound - 2) + "é",
        "x" * (bound % 2) + "é" * (bound // 2),
        "😀" * (bound // 4),
    ):
        check(operation(text))


@EACH_TEXT
def test_a_text_past_its_bound_is_refused_and_the_bound_is_named(case: tuple[str, Any, int]) -> None:
    what, operation, bound = case
    for text in ("x" * (bound + 1), "x" * (bound - 1) + "é", "é" * (bound // 2 + 1), "😀" * bound):
        with pytest.raises(BadRequest, match=f"{what} may have {bound} bytes in UTF-8, not {len(text.encode())}"):
            check(operation(text))


@EACH_TEXT
def test_a_text_must_not_be_empty(case: tuple[str, Any, int]) -> None:
    what, operation, _ = case
    with pytest.raises(BadRequest, match=f"{what} must not be empty"):
        check(operation(""))


@EACH_TEXT
@pytest.mark.parametrize("text", ["a\nb", "\0", "tab\t", "\x1b[31m", "\x7f", "\u202eb", "\u2028", "\ufeff"])
def test_a_text_must_be_printable(case: tuple[str, Any, int], text: str) -> None:
    what, operation, _ = case
    with pytest.raises(BadRequest, match=f"{what} must be printable"):
        check(operation(text))


@EACH_TEXT
def test_a_text_must_be_unicode(case: tuple[str, Any, int]) -> None:
    what, operation, _ = case
    with pytest.raises(BadRequest, match=f"{what} must be valid Unicode"):
        check(operation("half a pair \ud83d"))


@pytest.mark.parametrize("text", ["with space", "a/b.c$d#e", "größe", "名前", "🔒", "-", ".."])
def test_a_name_may_be_anything_that_people_can_read(text: str) -> None:  # Juju refused . $ # and spaces
    check(named(text))
    check_holder(text)


def test_a_holders_name_is_checked_alone_in_the_same_way() -> None:
    check_holder("x" * limits.HOLDER_BYTES_MAX)
    for text in ("", "\n", "x" * (limits.HOLDER_BYTES_MAX + 1)):
        with pytest.raises(BadRequest, match="a holder's name"):
            check_holder(text)


def test_a_refusal_never_repeats_a_long_text() -> None:
    with pytest.raises(BadRequest) as refused:
        check(named("\n" * limits.NAME_BYTES_MAX))
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("path", [(), ("a", "b"), ("a",) * 33])
def test_a_resource_is_named_by_one_segment(path: tuple[str, ...]) -> None:
    for operation in (replace(CLAIM, resources=(Resource(path),)), replace(DESCRIBE, path=path)):
        with pytest.raises(BadRequest, match=f"one segment, not {len(path)}"):
            check(operation)


def test_a_claim_needs_a_resource() -> None:
    with pytest.raises(BadRequest, match="needs a resource"):
        check(replace(CLAIM, resources=()))


# --- all operations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", EVERY, ids=lambda operation: type(operation).__name__)
def test_an_ordinary_operation_is_accepted_and_travels(operation: Operation) -> None:
    check(operation)
    assert decode(encode(operation)) == operation
    assert decode(encode(Request(1, 2, 3, operation))).operation == operation
    assert decode(encode(Command(1, 2, 3, 4, operation))).operation == operation


def test_each_kind_of_operation_is_tried_here() -> None:
    assert {type(operation) for operation in EVERY} == set(typing.get_args(Operation))
    assert set(SESSIONLESS) <= set(REPEATABLE) <= set(typing.get_args(Operation))


LONG = "x" * 2000
ODD: dict[str, Operation] = {
    "a long description": replace(OPEN, description=LONG),
    "a description that is no Unicode": replace(OPEN, description="\ud83d"),
    "a ping for too many claims": Ping((1,) * (limits.CLAIMS_PER_PING_MAX + 1)),
    "a ping for a negative number": Ping((-1,)),
    "a claim for two resources": replace(CLAIM, resources=(Resource(("a",)), Resource(("b",)))),
    "a cancel of a negative number": Cancel(-1),
    "a cancel of a huge number": Cancel(INT_MAX + 1),
    "a renewal of a negative token": replace(RENEW, token=-1),
    "a renewal of a huge token": replace(RENEW, token=INT_MAX + 1),
    "a release of a negative token": Release(-1),
    "a release of a huge token": Release(INT_MAX + 1),
    "a listing of a long namespace": replace(LISTING, namespace=LONG),
    "a listing of a namespace that is no Unicode": replace(LISTING, namespace="\ud83d"),
    "a listing after a negative number": replace(LISTING, after=-1),
    "a listing after a huge number": replace(LISTING, after=INT_MAX + 1),
}


@pytest.mark.parametrize("operation", ODD.values(), ids=ODD.keys())
def test_what_cannot_travel_is_refused_where_it_is_asked_for(operation: Operation) -> None:
    """Otherwise the other side takes the packet for hostile, drops it, and the caller waits for nothing."""
    with pytest.raises((Malformed, UnicodeEncodeError)):
        decode(encode(operation))
    with pytest.raises(BadRequest):
        check(operation)


def test_a_bad_request_is_definite_and_a_value_error() -> None:  # P9
    assert issubclass(BadRequest, ValueError)
    assert issubclass(BadRequest, LessorError)
    assert not BadRequest.indefinite
