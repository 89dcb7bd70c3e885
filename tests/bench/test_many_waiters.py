"""Very many who wait at one client for one lock: all are served, each in its turn (P7)."""

import asyncio

import pytest

from .conftest import Program

STANDS_STILL_S = 300.0
"""For so long the machine may stand still: who lost his session would stand in line anew."""

pytestmark = [pytest.mark.system, pytest.mark.deep, pytest.mark.timeout(900)]


def test_five_hundred_threads_on_one_lock_are_served_in_the_order_of_their_places(program: Program) -> None:
    many = program("many_waiters")
    with many.node() as endpoints:
        many.with_threads(endpoints, 500, contended=True, session_timeout=STANDS_STILL_S)


def test_five_thousand_tasks_on_one_lock_are_served_in_the_order_of_their_places(program: Program) -> None:
    many = program("many_waiters")
    with many.node() as endpoints:
        asyncio.run(many.with_tasks(endpoints, 5_000, contended=True, session_timeout=STANDS_STILL_S))
