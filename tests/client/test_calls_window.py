"""A client with more to ask than the service keeps answers for: all are served, and nothing urgent waits (P4, P10)."""

from typing import Any

from lessor.client.calls import WINDOW
from lessor.client.errors import AcquireTimeout, Unavailable
from lessor.core import limits
from lessor.core.commands import Describe, Renew
from lessor.core.requests import Answer, Request
from lessor.core.results import ClaimPage, NotHeld

from ..support.fake_service import FakeClient, Outcome, World


def most_under_way(client: FakeClient) -> int:
    return len(client.protocol._calls._open)


def acquire_many(client: FakeClient, count: int) -> list[Outcome]:
    outcomes = []
    for number in range(count):
        outcomes.append(client.acquire(f"name {number}"))
        if number % 500 == 499:
            client.world.run(0.1)
    return outcomes


def test_five_thousand_at_once_are_all_served_in_order_and_never_too_many_at_a_time() -> None:  # P7
    world = World()
    client = world.client()
    world.fate = lambda hop: (50.0,)
    outcomes = acquire_many(client, 5_000)
    most = 0
    while not all(outcome.done for outcome in outcomes):
        world.run(1)
        most = max(most, most_under_way(client))
    assert most == WINDOW < limits.REPLIES_PER_SESSION_MAX
    tokens = [outcome.lease.token for outcome in outcomes]
    assert tokens == sorted(tokens)


def test_a_renewal_goes_ahead_of_what_is_held_back() -> None:  # P4
    world = World()
    client = world.client()
    first = client.acquire("first", 3_000)
    world.finish(first)
    world.fate = lambda hop: () if hop.client == 1 else (1.0,)
    acquire_many(client, 3 * WINDOW)
    world.run(1_100)
    sent = [message for hop in world.hops if hop.up for message in hop.messages if isinstance(message, Request)]
    assert any(isinstance(request.operation, Renew) for request in sent)
    world.heal()
    world.run(2_500)
    assert client.holds(first.lease)


def test_what_is_held_back_times_out_and_can_be_given_up_without_having_been_asked() -> None:  # P9
    world = World()
    client = world.client()
    world.finish(client.acquire("first"))
    world.fate = lambda hop: ()
    outcomes = [client.acquire(f"name {number}", timeout_ms=400) for number in range(WINDOW + 2)]
    client.abandon(outcomes[-1])
    world.run(2_000)
    late = outcomes[-2].value
    assert isinstance(late, Unavailable | AcquireTimeout)
    assert not late.indefinite
    assert "too many requests are under way" in str(late)
    sent = [message for hop in world.hops if hop.up for message in hop.messages if isinstance(message, Request)]
    assert max(request.number for request in sent) <= WINDOW + 5
    world.heal()
    world.run(20_000)
    assert not world.claims(outcomes[-1].tag)


def test_an_answer_to_what_was_not_asked_yet_is_nobody_s() -> None:  # P11
    world = World()
    client = world.client()
    first = client.acquire("first", 3_000)
    world.finish(first)
    calls = client.protocol._calls
    answers: list[Any] = []
    client.protocol.call(Describe("default", ("first",)), answers.append, None)  # begun, and not sent
    (unsent,) = calls.under_way()
    for number in (unsent.number, 10**6):
        calls._answer(Answer(number, 5, NotHeld()))
    assert not answers
    world.run(1_500)
    assert [type(answer) for answer in answers] == [ClaimPage]
    assert client.holds(first.lease)


def test_nobody_overtakes_what_is_held_back() -> None:  # P7
    world = World()
    client = world.client()
    world.finish(client.acquire("first"))
    world.fate = lambda hop: ()
    waiting = acquire_many(client, WINDOW + 1)
    calls = client.protocol._calls
    assert calls.forget(calls.under_way()[0])  # there is room for one
    late = client.acquire("late")
    held_back, newcomer = waiting[-1].acquire, late.acquire
    assert held_back is not None
    assert held_back.call is not None
    assert newcomer is not None
    assert newcomer.call is not None
    assert (held_back.call.number > 0, newcomer.call.number) == (True, 0)


def test_what_is_held_back_survives_the_end_of_the_session() -> None:
    world = World()
    client = world.client(session_timeout_ms=900)
    world.finish(client.acquire("first"))
    world.fate = lambda hop: ()
    outcomes = [client.acquire(f"name {number}") for number in range(WINDOW + 50)]
    world.run(3_000)
    world.heal()
    world.finish(*outcomes, within_ms=20_000)
    assert len({outcome.lease.token for outcome in outcomes}) == WINDOW + 50
