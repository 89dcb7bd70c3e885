"""The check of operations: just inside each bound all is well, just outside the text names the bound."""

import re
import typing
from dataclasses import replace
from typing import Any

import pytest

from lessor.core import limits
from lessor.core.checks import check, check_holder, in_seconds
from lessor.core.commands import (
    ANY_VERSION,
    FOREVER,
    KEEP,
    REPEATABLE,
    SESSIONLESS,
    Adopt,
    AlterNamespace,
    Amend,
    AttachSession,
    Break,
    Cancel,
    Claim,
    CloseSession,
    Command,
    CreateNamespace,
    CreateSemaphore,
    DeleteSemaphore,
    Describe,
    DescribeNamespace,
    DropNamespace,
    EndSession,
    EraseRegister,
    GetRegister,
    HeldBy,
    KeepAlive,
    ListClaims,
    ListRecords,
    NamespaceConfig,
    OpenSession,
    Operation,
    Pin,
    Ping,
    PutRegister,
    ReadEvents,
    RegisterIs,
    Release,
    Renew,
    TokenHeld,
    Transact,
    Unheld,
    Unpin,
    UpdateSemaphore,
    Validate,
)
from lessor.core.encoding import INT_MAX, decode, encode
from lessor.core.errors import BadRequest, LessorError, Malformed
from lessor.core.requests import Request
from lessor.core.resources import Mode, Resource

KEY = b"k" * limits.SESSION_KEY_BYTES
OPEN = OpenSession(KEY, 10_000, "a client")
CLAIM = Claim("default", (Resource(("nightly",)),), "host", b"", ttl_ms=30_000, wait_ms=0, detached=False)
DETACHED = replace(CLAIM, detached=True)
RENEW = Renew(1, 30_000)
DESCRIBE = Describe("default", ("nightly",))
LISTING = ListClaims("default", 0, 100)
PLACE = ("default", ("nightly", "report"))
CONFIG = NamespaceConfig(default_ttl_ms=1000, lock_delay_ms=KEEP)
EVERY = [
    *(OPEN, CloseSession(), EndSession(1), Ping((1,)), CLAIM, DETACHED, Cancel(1), RENEW, Release(1)),
    *(DESCRIBE, LISTING),
    *(AttachSession(1, KEY, 1, 10_000, "again"), Amend(1, 2), Break(1, "it hangs"), Adopt(1), Validate(1)),
    *(CreateSemaphore(*PLACE, 3, b""), UpdateSemaphore(*PLACE, b"x"), DeleteSemaphore(*PLACE, force=True)),
    *(Pin(*PLACE, "machine-1"), Unpin(*PLACE, "machine-1"), PutRegister(*PLACE, 1, 0, b"x"), GetRegister(*PLACE)),
    *(EraseRegister(*PLACE, 1, ANY_VERSION), CreateNamespace("n", CONFIG), AlterNamespace("n", CONFIG)),
    *(DropNamespace("n", force=False), DescribeNamespace("n"), ListRecords("sessions", "", 0, 10)),
    ReadEvents(*PLACE, below=True, after=7, limit=100),
    Transact((HeldBy(*PLACE, "host"), TokenHeld(1), Unheld(*PLACE), RegisterIs(*PLACE, 0)), (Release(1),)),
    Claim("default", (Resource(("a",), Mode.READ), Resource(("b",), Mode.COUNT, 2, 5)), "h", b"", 0, 0, False, 500, 1),
]


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
        named = [in_seconds(each) if name.endswith("_ms") else str(each) for each in (low, high, value)]
        assert "from {} to {}, not {}".format(*named) in str(refused.value)


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


# --- paths and resources ---------------------------------------------------------------------------------------------


def at(path: tuple[str, ...]) -> list[Any]:
    return [replace(CLAIM, resources=(Resource(path),)), replace(DESCRIBE, path=path), Pin("default", path, "e")]


@pytest.mark.parametrize("path", [(), ("a", "b"), ("a",) * limits.PATH_SEGMENTS_MAX, ("x" * 1024,) * 4])
def test_a_path_may_reach_its_bounds(path: tuple[str, ...]) -> None:
    for operation in at(path):
        check(operation)


@pytest.mark.parametrize(
    ("path", "what"),
    [
        (("a",) * 33, "a path has at most 32 segments, not 33"),
        (("x" * 1024,) * 4 + ("x",), "a path may have 4096 bytes in UTF-8, not 4097"),
        (("é" * 512,) * 4 + ("x",), "a path may have 4096 bytes in UTF-8, not 4097"),
        (("a", ""), "a name must not be empty"),
        (("a", "b\n"), "a name must be printable"),
        (("a", "x" * 1025), "a name may have 1024 bytes in UTF-8, not 1025"),
    ],
)
def test_a_path_past_its_bounds_is_refused_and_the_bound_is_named(path: tuple[str, ...], what: str) -> None:
    for operation in at(path):
        with pytest.raises(BadRequest, match=what):
            check(operation)


def of(*resources: Resource) -> Claim:
    return replace(CLAIM, resources=resources)


@pytest.mark.parametrize("count", [0, limits.RESOURCES_PER_CLAIM_MAX + 1])
def test_a_claim_asks_for_some_resources_and_not_for_too_many(count: int) -> None:
    check(of(*(Resource((str(number),)) for number in range(limits.RESOURCES_PER_CLAIM_MAX))))
    with pytest.raises(BadRequest, match=f"1 to {limits.RESOURCES_PER_CLAIM_MAX} resources, not {count}"):
        check(of(*(Resource((str(number),)) for number in range(count))))


MOST = limits.SEMAPHORE_LIMIT_MAX
A = ("a",)


@pytest.mark.parametrize(
    ("resources", "what"),
    [
        ([Resource(A, 4)], "4 is no mode"),
        ([Resource(A, Mode.COUNT, 0)], f"a count is from 1 to {MOST}, not 0"),
        ([Resource(A, Mode.COUNT, MOST + 1)], f"a count is from 1 to {MOST}, not {MOST + 1}"),
        ([Resource(A, Mode.COUNT, 3, 2)], "a count of 3 is more than the limit 2: never granted"),
        ([Resource(A, Mode.COUNT, 3, MOST + 1)], f"a limit is from 0 to {MOST}, not {MOST + 1}"),
        ([Resource(A, Mode.WRITE, 1)], "only units of a semaphore are counted"),
        ([Resource(A, Mode.READ, 0, 1)], "only units of a semaphore are counted"),
        ([Resource(A, Mode.OBSERVE), Resource(("b",))], "an observer observes one resource alone"),
        ([Resource(A, Mode.COUNT, 1, 3), Resource(A, Mode.COUNT, 1, 3)], "counts units of a semaphore once"),
        ([Resource(A, Mode.READ), Resource(A, Mode.COUNT, 1, 3)], "does not read it beside that"),
        ([Resource(A, Mode.COUNT, 1, 3), Resource(A, Mode.READ)], "does not read it beside that"),
    ],
)
def test_what_no_claim_can_want_is_refused(resources: list[Resource], what: str) -> None:
    with pytest.raises(BadRequest, match=what):
        check(of(*resources))


def test_what_is_covered_may_be_asked_for_twice() -> None:  # Locktopus: duplicates bring no deadlock
    check(of(Resource(A), Resource(A)))
    check(of(Resource(A, Mode.COUNT, 1, 3), Resource(())))
    check(of(Resource(A, Mode.COUNT, 1, 3), Resource(("b",), Mode.COUNT, 1, 3)))
    check(of(Resource(A, Mode.COUNT, MOST, MOST), Resource(("b",), Mode.READ)))


# --- namespaces, transactions, listings ------------------------------------------------------------------------------

PUT = PutRegister("default", A, 1, 0, b"")
CONFIGS = [
    ("default_ttl_ms", limits.TTL_MS_MIN, limits.TTL_MS_MAX, "a default ttl is from"),
    ("ttl_max_ms", limits.TTL_MS_MIN, limits.TTL_MS_MAX, "a maximum ttl is from"),
    ("session_grace_ms", 0, limits.SESSION_GRACE_MS_MAX, "a session grace is from"),
    ("lock_delay_ms", 0, limits.LOCK_DELAY_MS_MAX, "a lock delay is from"),
    ("claims_max", 1, limits.CLAIMS_MAX, "a bound on claims is from"),
]


@pytest.mark.parametrize(("name", "low", "high", "what"), CONFIGS)
def test_each_setting_of_a_namespace_has_its_bounds(name: str, low: int, high: int, what: str) -> None:
    for value in (0, KEEP, low, high):
        check(CreateNamespace("n", NamespaceConfig(**{name: value})))
    for value in (-1, high + 1):
        named = [in_seconds(each) if name.endswith("_ms") else str(each) for each in (low, high, value)]
        with pytest.raises(BadRequest, match=re.escape("{} {} to {}, not {}".format(what, *named))):
            check(AlterNamespace("n", NamespaceConfig(**{name: value})))


def test_a_default_ttl_is_no_longer_than_the_maximum() -> None:
    check(CreateNamespace("n", NamespaceConfig(default_ttl_ms=500, ttl_max_ms=500)))
    with pytest.raises(BadRequest, match="the default ttl is longer than the maximum ttl"):
        check(CreateNamespace("n", NamespaceConfig(default_ttl_ms=501, ttl_max_ms=500)))


@pytest.mark.parametrize(
    ("checks", "steps", "what"),
    [
        ((), (), "needs a check or a step"),
        ((TokenHeld(1),) * 65, (), "at most 64 checks, not 65"),
        ((), tuple(Pin("n", A, str(number)) for number in range(65)), "at most 64 steps, not 65"),
        ((TokenHeld(-1),), (), "the number of a token is from 0"),
        ((HeldBy("n", A, ""),), (), "a holder's name must not be empty"),
        ((RegisterIs("n", ("",), 0),), (), "a name must not be empty"),
        ((), (replace(PUT, data=b"x" * 70_000),), "70000 bytes is more than 65536"),
        ((), (PUT, PUT), "two steps of a transaction may not touch the same thing"),
        ((), (PUT, EraseRegister("default", A, 2, 5)), "two steps of a transaction may not touch the same thing"),
        ((), (Release(1), Renew(1, 0)), "two steps of a transaction may not touch the same thing"),
        ((), (Pin("n", A, "e"), Unpin("n", A, "e")), "two steps of a transaction may not touch the same thing"),
        ((), (UpdateSemaphore("n", A, b"1"),) * 2, "two steps of a transaction may not touch the same thing"),
    ],
)
def test_a_transaction_that_nobody_can_mean_is_refused(checks: Any, steps: Any, what: str) -> None:
    with pytest.raises(BadRequest, match=what):
        check(Transact(checks, steps))


def test_steps_that_touch_different_things_go_together() -> None:
    check(Transact((), (PUT, Release(1), Renew(2, 0), Pin("n", A, "e"), Unpin("n", A, "f"), Pin("n", (), "e"))))


@pytest.mark.parametrize(
    ("operation", "what"),
    [
        (Break(1, ""), "a reason must not be empty"),
        (Break(1, "x" * 1025), "a reason may have 1024 bytes"),
        (CreateSemaphore("n", A, 0, b""), f"a limit is from 1 to {MOST}, not 0"),
        (CreateSemaphore("n", A, 1, b"x" * 70_000), "70000 bytes is more than 65536"),
        (Pin("n", A, ""), "an entity must not be empty"),
        (Pin("n", A, "x" * 1025), "an entity may have 1024 bytes"),
        (Amend(1, count=0), f"a count is from 1 to {MOST}, not 0"),
        (Amend(1, wait_ms=-1), "a wait is from 0 s"),
        (Amend(1, data=b"x" * 70_000), "70000 bytes is more than 65536"),
        (AttachSession(1, KEY, 0, 1000, ""), f"an? attach number is from 1 to {limits.ATTACHES_MAX}, not 0"),
        (AttachSession(1, KEY, limits.ATTACHES_MAX + 1, 1000, ""), f"from 1 to {limits.ATTACHES_MAX}"),
        (AttachSession(1, b"short", 1, 1000, ""), "a session key has 16 bytes, not 5"),
        (EndSession(-1), "the number of a session is from 0"),
        (ListRecords("locks", "", 0, 10), "there is no list of 'locks', only of namespaces, sessions"),
        (ListRecords("pins", "", 0, limits.LIST_PAGE_MAX + 1), "a page size is from 1 to 500"),
        (ReadEvents("", A, below=False, after=0, limit=1), "a path is in a namespace"),
        (ReadEvents("n", A, below=False, after=0, limit=0), "a page size is from 1 to 500, not 0"),
        (replace(CLAIM, max_hold_ms=1), "a maximum hold is from 0.1 s"),
        (replace(CLAIM, chain=-1), "the number of a chain is from 0"),
        (KeepAlive((1, 1, 0, 0)), "gathered by the gateway"),
    ],
)
def test_every_other_bound_has_its_own_words(operation: Any, what: str) -> None:
    with pytest.raises(BadRequest, match=what):
        check(operation)


# --- all operations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", EVERY, ids=lambda operation: type(operation).__name__)
def test_an_ordinary_operation_is_accepted_and_travels(operation: Operation) -> None:
    check(operation)
    assert decode(encode(operation)) == operation
    assert decode(encode(Request(1, 2, 3, operation))).operation == operation
    assert decode(encode(Command(1, 2, 3, 4, operation))).operation == operation


def test_each_kind_of_operation_is_tried_here() -> None:
    assert {type(operation) for operation in EVERY} | {KeepAlive} == set(typing.get_args(Operation))
    assert set(SESSIONLESS) <= set(REPEATABLE) <= set(typing.get_args(Operation))


LONG = "x" * 2000
ODD: dict[str, Operation] = {
    "a long description": replace(OPEN, description=LONG),
    "a description that is no Unicode": replace(OPEN, description="\ud83d"),
    "a ping for too many claims": Ping((1,) * (limits.CLAIMS_PER_PING_MAX + 1)),
    "a ping for a negative number": Ping((-1,)),
    "a claim for too many resources": replace(CLAIM, resources=(Resource(("a",)),) * 65),
    "a claim of a negative count": of(Resource(A, Mode.COUNT, -1)),
    "a claim of a negative limit": of(Resource(A, Mode.COUNT, 1, -1)),
    "a path with too many segments": replace(DESCRIBE, path=("a",) * 33),
    "a pin of a long entity": Pin("n", A, LONG),
    "a break with a long reason": Break(1, LONG),
    "an attachment with a long description": AttachSession(1, KEY, 1, 1000, LONG),
    "a transaction of too many steps": Transact((), tuple(Pin("n", A, str(number)) for number in range(65))),
    "a transaction that claims": Transact((), (CLAIM,)),  # type: ignore[arg-type]
    "a transaction that checks by claiming": Transact((CLAIM,), ()),  # type: ignore[arg-type]
    "a setting below zero": CreateNamespace("n", NamespaceConfig(lock_delay_ms=-1)),
    "a list of an unknown kind": ListRecords(LONG, "", 0, 1),
    "a register of a negative version": replace(PUT, version=-1),
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
