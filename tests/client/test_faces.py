"""The two faces of the client are one: the same names in the same order, the same parameters, the same first lines."""

import inspect
from typing import Any

import pytest

import lessor
import lessor.client.aio as awaited
import lessor.client.sync as blocking
from lessor.client import aio_holding, aio_watching, asks, holding, watching
from lessor.client.aio_model import AsyncModel
from lessor.client.base import Options
from lessor.client.description import Description
from lessor.client.durations import Duration
from lessor.client.model import Model
from lessor.client.recipes.rules import Leader, Member

ONLY_AWAITED = {
    ("Lock", "__init__"): {"cancel_on_loss"},
    **{("Client", name): {"cancel_on_loss"} for name in ("lock", "read_lock", "write_lock", "lock_all")},
}
"""A thread cannot be cancelled."""

WORDS = {
    "async with": "with",
    "tasks of an event loop": "threads of a process",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
}
WAITING = {"acquire", "try_acquire", "resume", "release", "describe", "leases", "close", "renew"}
WAITING |= {
    "session_ticket",
    "recover",
    "about",
    "wait_free",
    "waiting",
    "validate",
    "shrink",
    "share",
    "update",
    "write",
    "erase",
}
SHAPE = ("Lease", "Lock", "Client")


def same(text: str) -> str:
    """Say it in the words of the blocking face."""
    for word, other in WORDS.items():
        text = text.replace(word, other)
    return text


def members(face: Any, name: str) -> list[str]:
    return [same(member) for member in vars(getattr(face, name)) if callable_or_property(face, name, member)]


def callable_or_property(face: Any, name: str, member: str) -> bool:
    found = vars(getattr(face, name))[member]
    special = member.startswith("__") and member not in {"__init__", "__enter__", "__exit__", "__aenter__", "__aexit__"}
    private = member.startswith("_") and not member.startswith("__")
    return not special and not private and (inspect.isfunction(found) or isinstance(found, property))


def first_line(found: Any) -> str:
    return same((inspect.getdoc(found) or "").split("\n", maxsplit=1)[0])


def without_example(found: Any) -> str:
    return (inspect.getdoc(found) or "").partition(">>>")[0].strip()


def test_both_have_the_same_classes_and_functions() -> None:
    def shape(face: Any, holding: Any) -> list[str]:
        ours = (face.__name__, holding.__name__)
        return [name for name, found in vars(face).items() if getattr(found, "__module__", "") in ours]

    assert [*SHAPE, "connect"] == shape(blocking, holding) == shape(awaited, aio_holding)


def test_what_can_be_asked_beside_leases_is_the_same() -> None:
    ours, theirs = vars(Model), vars(AsyncModel)
    assert list(ours) == list(theirs)
    public = [name for name in ours if inspect.isfunction(ours[name]) and not name.startswith("_")]
    assert len(public) > 15
    for name in public:
        one, two = ours[name], theirs[name]
        assert without_example(one) == without_example(two), name
        assert str(inspect.signature(one)) == str(inspect.signature(two)), name
        assert inspect.iscoroutinefunction(two) == (name != "transaction"), name


@pytest.mark.parametrize("name", SHAPE)
def test_both_have_the_same_names_in_the_same_order(name: str) -> None:
    assert members(blocking, name) == members(awaited, name)
    assert len(members(blocking, name)) >= 3
    assert getattr(blocking, name).__base__ is getattr(awaited, name).__base__


OF_A_LEASE = """
    name path resources namespace token holder data held state lost_reason why_lost loss renewal_lateness remaining
    check progress ticket expire_time_unsafe expire_time_with_safety_gap
    lost ended on_change renew release shrink share update write erase
"""
OF_A_WATCH = "revision closed next close"


@pytest.mark.parametrize("face", [holding, aio_holding, watching, aio_watching])
def test_what_is_not_for_users_has_no_public_name(face: Any) -> None:
    """What only the client's own parts may do with a lease or a watch gave users odd errors."""
    shown, names = (face.Lease, OF_A_LEASE) if hasattr(face, "Lease") else (face.Watch, OF_A_WATCH)
    assert {name for name in dir(shown) if not name.startswith("_")} == set(names.split())


@pytest.mark.parametrize("name", [*SHAPE, "connect"])
def test_parameters_defaults_and_first_lines_are_the_same(name: str) -> None:
    one, two = getattr(blocking, name), getattr(awaited, name)
    pairs = [(name, one, two)]
    if inspect.isclass(one):
        ours = {same(member): found for member, found in vars(two).items()}
        pairs += [(member, vars(one)[member], ours[member]) for member in members(blocking, name)]
    for member, ours, theirs in pairs:
        assert same(first_line(theirs)) == first_line(ours), f"{name}.{member}"
        if inspect.isfunction(ours):
            extra = ONLY_AWAITED.get((name, member), set())
            assert parameters(ours) == [p for p in parameters(theirs) if p[0] not in extra], f"{name}.{member}"
            assert inspect.iscoroutinefunction(theirs) == (member in WAITING or member in {"__enter__", "__exit__"})


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("face", [blocking, awaited])
def test_what_connect_takes_is_what_a_client_takes(face: Any) -> None:
    """Its options are written down once more, for type checkers."""
    given = inspect.signature(face.Client).parameters.values()
    assert Options.__annotations__ == {each.name: each.annotation for each in given if each.kind is each.KEYWORD_ONLY}


def test_what_users_must_annotate_has_a_public_name() -> None:
    """Whatever the calls of a client return, and their arguments."""
    shown = {name for name in dir(lessor) if name in lessor.__all__}
    assert {type(lessor.read("x")).__name__, type(lessor.read("x").mode).__name__} <= shown
    classes = {asks.Events, asks.Namespace, asks.Register, asks.Session, asks.Transaction, Description, Leader, Member}
    assert {getattr(lessor, each.__name__, None) for each in classes} == classes
    assert lessor.Duration == Duration


@pytest.mark.parametrize("face", [blocking, awaited])
def test_whichever_way_a_lock_is_asked_for_it_may_have_data_a_longest_hold_and_word_of_its_loss(face: Any) -> None:
    client = face.connect("tcp://127.0.0.1:7411")
    how: dict[str, Any] = {"timeout": 5, "data": b"d", "max_hold": 60, "on_lost": "terminate"}
    also: dict[str, Any] = {"cancel_on_loss": True} if face is awaited else {}
    for lock in (
        client.read_lock("x", ttl=7, **how, **also),
        client.write_lock("x", ttl=7, **how, **also),
        client.lock_all(["x"], 7, **how, **also),
    ):
        asked = vars(lock)["_arguments"]
        assert {name: asked[name] for name in how} == how
        assert asked["ttl"] == 7
        assert face is blocking or vars(lock)["_cancel_on_loss"]


@pytest.mark.parametrize("face", [blocking, awaited])
def test_what_a_debugger_shows_says_what_it_is(face: Any) -> None:
    client = face.connect("tcp://127.0.0.1:7411", "reports", holder="me")
    shown = {
        client: "<Client 'reports' holder='me' of tcp://127.0.0.1:7411>",
        client.lock(("users", "42")): "<Lock 'users/42'>",
        client.lock_all(["a", "b"]): "<Lock 'a', 'b'>",
        client.election("e"): "<Election 'e'>",
        client.semaphore("p", 2): "<Semaphore 'p' limit=2>",
        client.semaphore("p"): "<Semaphore 'p'>",
        client.watch("x", since=7): "<Watch 'x' revision=7>",
        client.watch("x", below=True): "<Watch 'x' and below revision=0>",
        client.watch(): "<Watch everything revision=0>",
    }
    assert [repr(each) for each in shown] == list(shown.values())
