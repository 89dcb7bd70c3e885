"""The recipes of both faces are one: the same names with the same parameters; and their examples are true."""

import asyncio
import doctest
import importlib
import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest

import lessor
import lessor.recipes
from lessor.client import aio_watching, watching
from lessor.client.recipes import aio as aio_recipes
from lessor.client.recipes import aio_groups, aio_names, sync_groups
from lessor.client.recipes import sync as sync_recipes

SHARED = {"SKIPPED", "Leader", "LeadershipChanged", "Member"}
"""What needs no face."""

AT_ONCE = {"__init__", "__iter__", "check", "observe", "stable", "held", "token", "lost", "singleton"}
"""What waits for nothing."""

EXAMPLES = [sync_recipes, sync_groups, aio_recipes, aio_groups]


def blocking_name(name: str) -> str:
    return name.replace("__a", "__", 1) if name in {"__aenter__", "__aexit__", "__aiter__", "__anext__"} else name


def members(found: type) -> dict[str, Any]:
    """What a class offers, by the names of the blocking face."""
    return {
        blocking_name(name): member
        for name, member in vars(found).items()
        if (inspect.isfunction(member) or isinstance(member, property))
        and (
            not name.startswith("_")
            or blocking_name(name) in {"__init__", "__enter__", "__exit__", "__iter__", "__next__"}
        )
    }


def words(found: Any) -> str:
    text = (inspect.getdoc(found) or "").split("\n", maxsplit=1)[0]
    return (
        text.replace("async with", "with")
        .replace("task that has it", "thread that has it")
        .replace("what this task has", "what this thread has")
        .replace("this task has, or", "this thread has, or")
    )


def parameters(function: Any) -> list[Any]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def test_both_faces_offer_the_same_names() -> None:
    ours, theirs = lessor.recipes.__all__, aio_names.__all__
    assert [name for name in ours if name != "aio"] == theirs
    assert lessor.recipes.aio is aio_names
    for name in theirs:
        assert (getattr(lessor.recipes, name) is getattr(aio_names, name)) == (name in SHARED), name


@pytest.mark.parametrize("name", [*sorted(set(aio_names.__all__) - SHARED - {"singleton"}), "Recipes"])
def test_both_have_the_same_calls_with_the_same_parameters(name: str) -> None:
    if name == "Recipes":
        one, two = members(sync_groups.Recipes), members(aio_groups.Recipes)
    else:
        one, two = members(getattr(lessor.recipes, name)), members(getattr(aio_names, name))
    assert list(one) == list(two)
    assert len(one) > 1
    for member, ours in one.items():
        assert words(ours) == words(two[member]), member
        if inspect.isfunction(ours):
            assert parameters(ours) == parameters(two[member]), member
            waits = name != "Recipes" and member not in AT_ONCE
            assert inspect.iscoroutinefunction(two[member]) == waits, member
    functions = [lessor.recipes.singleton, aio_names.singleton]
    assert parameters(functions[0]) == parameters(functions[1])


@pytest.mark.parametrize("name", ["Watch", "Watches"])
def test_both_watches_have_the_same_calls_with_the_same_parameters(name: str) -> None:
    one, two = members(getattr(watching, name)), members(getattr(aio_watching, name))
    assert list(one) == list(two)
    assert one
    for member, ours in one.items():
        assert words(ours) == words(two[member]), member
        if inspect.isfunction(ours):
            assert parameters(ours) == parameters(two[member]), member
            waits = member not in {"__init__", "__iter__", "watch"}
            assert inspect.iscoroutinefunction(two[member]) == waits, member


def test_clients_offer_each_recipe() -> None:
    offered = set(members(sync_groups.Recipes))
    assert offered == {
        "semaphore",
        "reentrant_lock",
        "election",
        "stable_leadership",
        "barrier",
        "double_barrier",
        "party",
        "workers",
        "singleton",
    }
    assert all(callable(getattr(face, name)) for name in offered for face in (lessor.Client, lessor.aio.Client))


def test_every_recipe_has_an_example() -> None:
    recipes = [getattr(lessor.recipes, name) for name in lessor.recipes.__all__ if name not in SHARED | {"aio"}]
    shown = [found.__name__ for found in recipes if ">>>" in (inspect.getdoc(found) or "")]
    made_by_others = {"Leadership", "Observation"}
    assert {found.__name__ for found in recipes} - set(shown) == made_by_others


@pytest.mark.parametrize("module", EXAMPLES)
def test_the_examples_in_the_docstrings_are_true(module: Any) -> None:
    with lessor.embedded() as node, lessor.connect(node.endpoints) as client:

        def run(example: Callable[[Any], Any]) -> None:
            async def play() -> None:
                async with lessor.aio.connect(node.endpoints) as awaited:
                    await example(awaited)

            asyncio.run(play())

        found = {"client": client, "run": run, "threading": threading}
        result = doctest.testmod(importlib.import_module(module.__name__), extraglobs=found)
    assert result.attempted
    assert not result.failed
