"""A client that comes after a dead one takes its session over, in virtual time (P3, P6, P8)."""

from typing import Any

import pytest

from lessor.client.errors import BadRequest, ClientClosed, Unavailable
from lessor.client.heritage import SessionTicket, read_session
from lessor.client.protocol import LeaseRecord, LeaseState, Protocol
from lessor.client.refusals import OutOfSequence, SessionExpired, SessionStolen, WrongKey
from lessor.client.states import Loss
from lessor.core import limits
from lessor.core.commands import ATTACH_STEP, Claim, Describe
from lessor.core.requests import Busy

from ..support.fake_service import FakeClient, World


def acquired(client: FakeClient, name: str = "x", ttl_ms: int = 30_000, **options: Any) -> LeaseRecord:
    outcome = client.acquire(name, ttl_ms, **options)
    client.world.finish(outcome)
    return outcome.lease


def ticket_of(client: FakeClient) -> SessionTicket:
    told = client.begin(lambda done: client.protocol.session_ticket(done, client.now_ms + 10_000))
    client.world.finish(told)
    assert isinstance(told.value, SessionTicket)
    return read_session(str(told.value))


def heir_to(world: World, ticket: SessionTicket) -> FakeClient:
    client = world.client()
    keys = iter(bytes([client.number, number] * 8) for number in range(1, 99))
    endpoints = list(world.service.endpoints.values())
    client.protocol = Protocol(endpoints, lambda: next(keys), ticket.timeout_ms, "", lambda: 0.5, "default", ticket)
    client.protocol.now_ms = client.now_ms
    return client


def recover(client: FakeClient) -> Any:
    told = client.begin(lambda done: client.protocol.recover(done, client.now_ms + 10_000))
    client.world.finish(told)
    return told.value


def test_the_heir_has_what_the_dead_held_and_renews_it() -> None:
    world = World()
    dead = world.client()
    session_bound, with_ttl = acquired(dead, "a", 0), acquired(dead, "b", 3_000)
    ticket = ticket_of(dead)
    dead.die()
    heir = heir_to(world, ticket)
    found = recover(heir)
    assert [(lease.path, lease.token) for lease in found] == [(("a",), session_bound.token), (("b",), with_ttl.token)]
    assert [lease.data for lease in found] == [session_bound.data, with_ttl.data]
    assert recover(heir) == [], "each only once"
    world.run(30_000)
    assert heir.believes() == found
    world.finish(heir.release(found[0]), heir.release(found[1]))
    assert not world.claims()


def operations(world: World, client: FakeClient) -> list[str]:
    return [
        type(message.operation).__name__
        for hop in world.hops
        if hop.up and hop.client == client.number
        for message in hop.messages
    ]


@pytest.mark.parametrize("how", ["timed out", "interrupted before the answer", "interrupted after it"])
def test_what_nobody_took_is_left_for_the_next_one_who_asks(how: str) -> None:
    world = World()
    dead = world.client()
    acquired(dead)
    ticket = ticket_of(dead)
    dead.die()
    heir = heir_to(world, ticket)
    protocol = heir.protocol
    told = heir.begin(lambda done: protocol.session_ticket(done, heir.now_ms + 10_000))
    world.finish(told)
    if how == "timed out":
        world.fate = lambda hop: ()
        told = heir.begin(lambda done: protocol.recover(done, heir.now_ms + 500))
        world.finish(told)
        assert isinstance(told.value, Unavailable)
        world.heal()
    else:
        begun = []
        told = heir.begin(lambda done: begun.append(protocol.recover(done, heir.now_ms + 10_000)))
        if how == "interrupted after it":
            world.finish(told)
        protocol.abandon_recovery(begun[0])
        world.finish(told)
    assert [lease.path for lease in recover(heir)] == [("x",)]


def test_the_answer_that_attaches_the_session_tells_of_its_claims_so_none_are_asked_for() -> None:
    world = World()
    dead = world.client()
    acquired(dead)
    ticket = ticket_of(dead)
    dead.die()
    heir = heir_to(world, ticket)
    assert len(recover(heir)) == 1
    assert operations(world, heir)[:2] == ["AttachSession", "Ping"]


@pytest.mark.parametrize("page", [1, 2, 3, 4])
def test_what_did_not_fit_into_that_answer_is_asked_for(page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LIST_PAGE_MAX", page)
    world = World()
    dead, other = world.client(), world.client()
    for name in "abc":
        acquired(dead, name)
        acquired(other, f"of another {name}")
    ticket = ticket_of(dead)
    dead.die()
    heir = heir_to(world, ticket)
    assert [lease.path for lease in recover(heir)] == [("a",), ("b",), ("c",)]
    assert ("ListClaims" in operations(world, heir)) == (page < 3)


def test_what_waits_for_nobody_any_more_is_withdrawn() -> None:
    world = World()
    other, dead = world.client(), world.client()
    acquired(other)
    dead.acquire()
    ticket = ticket_of(dead)
    dead.die()
    assert len(world.claims()) == 2
    heir = heir_to(world, ticket)
    assert recover(heir) == []
    world.run(100)
    assert len(world.claims()) == 1


def test_its_requests_are_told_from_those_of_the_dead_by_their_numbers() -> None:  # P6
    world = World()
    dead = world.client()
    held = acquired(dead)
    ticket = ticket_of(dead)
    heir = heir_to(world, ticket)
    recover(heir)
    new = acquired(heir, "new")
    assert new.token > held.token, "no answer that was kept for the dead"
    numbers = [message.number for hop in world.hops if hop.up and hop.client == 2 for message in hop.messages]
    assert numbers[-1] > ATTACH_STEP


def test_the_old_client_is_told_that_its_session_was_stolen_and_holds_nothing_any_more() -> None:  # P8
    world = World()
    old = world.client()
    leases = [acquired(old, "a", 0), acquired(old, "b")]
    heir = heir_to(world, ticket_of(old))
    assert len(recover(heir)) == 2
    world.run(5)  # the push
    assert [(lease.state, lease.loss) for lease in leases] == [(LeaseState.LOST, Loss.STOLEN)] * 2
    later = old.acquire("c")
    assert isinstance(later.value, ClientClosed)
    assert "taken over" in str(later.value)
    assert len(heir.believes()) == 2


def test_without_the_push_its_next_request_tells_it() -> None:
    world = World()
    old = world.client()
    lease = acquired(old, "a", 0)
    heir = heir_to(world, ticket_of(old))
    world.fate = lambda hop: () if "SessionStolen" in str(hop) else (1.0,)
    recover(heir)
    asked = old.acquire("c")
    world.finish(asked)
    assert isinstance(asked.value, SessionStolen)
    assert asked.value.indefinite
    assert lease.loss is Loss.STOLEN


def test_an_old_client_that_is_cut_off_believes_no_longer_than_its_session_was_to_live() -> None:  # P3, P8
    world = World()
    old = world.client(session_timeout_ms=2_000)
    lease = acquired(old, "a", 0)
    ticket = ticket_of(old)
    world.fate = lambda hop: () if hop.client == old.number else (1.0,)
    until = old.protocol.safe_until_ms(lease)
    heir = heir_to(world, ticket)
    (found,) = recover(heir)
    world.run(4_000)
    assert lease.over
    assert old.changes[0][0] <= until
    world.heal()
    world.run(4_000)
    assert heir.believes() == [found], "the late words of the old one change nothing"


def test_of_two_clients_with_one_ticket_the_second_is_refused_and_the_first_goes_on() -> None:  # P3, P6
    world = World()
    dead = world.client()
    acquired(dead)
    ticket = ticket_of(dead)
    dead.die()
    one, two = heir_to(world, ticket), heir_to(world, ticket)
    assert len(recover(one)) == 1
    assert isinstance(recover(two), OutOfSequence)
    assert len(one.believes()) == 1
    assert not two.believes()


def test_an_attachment_that_was_made_before_is_refused_though_the_key_is_right() -> None:  # P3
    world = World()
    dead = world.client()
    acquired(dead)
    first = heir_to(world, ticket_of(dead))
    recover(first)
    now = ticket_of(first)
    again = SessionTicket(now.session, now.key, now.attach - 1, now.namespace, now.timeout_ms)
    assert isinstance(recover(heir_to(world, again)), OutOfSequence)
    assert len(first.believes()) == 1


def test_the_ticket_is_another_one_after_each_attachment() -> None:
    world = World()
    client = world.client()
    lease = acquired(client)
    for attach in (1, 2, 3):
        ticket = ticket_of(client)
        client.die()
        client = heir_to(world, ticket)
        (found,) = recover(client)
        assert found.token == lease.token
        fresh = ticket_of(client)
        assert (fresh.session, fresh.attach) == (ticket.session, attach)
        assert fresh.key != ticket.key


def test_whoever_has_another_key_is_refused() -> None:
    world = World()
    old = world.client()
    acquired(old)
    ticket = ticket_of(old)
    wrong = SessionTicket(ticket.session, b"?" * 16, ticket.attach, ticket.namespace, ticket.timeout_ms)
    thief = heir_to(world, wrong)
    assert isinstance(recover(thief), WrongKey)
    assert isinstance(recover(thief), WrongKey), "each call says so"
    assert len(old.believes()) == 1


def test_a_session_that_has_ended_is_told_so_and_no_other_is_opened() -> None:
    world = World()
    dead = world.client(session_timeout_ms=1_000)
    acquired(dead, ttl_ms=0)
    ticket = ticket_of(dead)
    dead.die()
    world.run(3_000)
    heir = heir_to(world, ticket)
    assert isinstance(recover(heir), SessionExpired)
    assert not recover(heir).indefinite
    asked = heir.acquire()
    world.finish(asked)
    assert isinstance(asked.value, SessionExpired)
    assert not world.claims()
    world.finish(heir.close())


@pytest.mark.parametrize("lost", range(8))
def test_any_answer_on_the_way_may_be_lost(lost: int) -> None:  # P6
    world = World()
    dead = world.client()
    lease = acquired(dead, ttl_ms=0)
    ticket = ticket_of(dead)
    dead.die()
    heir = heir_to(world, ticket)
    seen: list[int] = []

    def fate(hop: Any) -> tuple[float, ...]:
        if hop.client != heir.number:
            return (1.0,)
        seen.append(hop.index)
        return () if len(seen) == lost + 1 else (1.0,)

    world.fate = fate
    (found,) = recover(heir)
    assert found.token == lease.token
    assert heir.believes() == [found]
    assert ticket_of(heir).attach == 1


def test_a_service_that_is_busy_is_asked_again() -> None:
    world = World()
    dead = world.client()
    acquired(dead)
    ticket = ticket_of(dead)
    dead.die()
    world.service.reply = lambda node, request: Busy(request.number)
    heir = heir_to(world, ticket)
    told = heir.begin(lambda done: heir.protocol.recover(done, heir.now_ms + 10_000))
    world.run(500)
    world.heal()
    world.finish(told)
    assert len(told.value) == 1


def test_after_the_session_has_ended_at_last_the_heir_opens_one_of_its_own() -> None:
    world = World()
    dead = world.client(session_timeout_ms=1_000)
    acquired(dead)
    ticket = ticket_of(dead)
    dead.die()
    heir = heir_to(world, ticket)
    recover(heir)
    world.fate = lambda hop: ()
    world.run(3_000)
    world.heal()
    acquired(heir, "new")
    assert heir.protocol.session_number == ticket.session + 1
    assert ticket_of(heir).attach == 0


def heir_with_a_session_of_its_own(world: World) -> FakeClient:
    """A client whose attached session has ended, so that it has opened one that was never attached."""
    dead = world.client(session_timeout_ms=1_000)
    acquired(dead)
    ticket = ticket_of(dead)
    dead.die()
    heir = heir_to(world, ticket)
    recover(heir)
    world.fate = lambda hop: ()
    world.run(3_000)
    world.heal()
    acquired(heir, "new", 0)
    return heir


@pytest.mark.parametrize("lost", ["nothing", "SessionStolen"])
def test_an_heir_is_robbed_like_anybody_of_the_session_that_it_opened_at_last(lost: str) -> None:  # P6, P8
    world = World()
    heir = heir_with_a_session_of_its_own(world)
    (held,) = [lease for lease in heir.believes() if lease.path == ("new",)]
    thief = heir_to(world, ticket_of(heir))
    world.fate = lambda hop: () if lost in str(hop.messages) else (1.0,)
    assert ("new",) in [lease.path for lease in recover(thief)]
    world.run(5)
    asked = heir.acquire("later")
    world.finish(asked)
    assert isinstance(asked.value, ClientClosed | SessionStolen)
    assert "taken over" in str(asked.value)
    assert held.loss is Loss.STOLEN


def test_what_is_still_asked_from_the_time_of_another_session_hides_no_answer_of_the_new_one() -> None:  # P6
    world = World()
    dead = world.client(session_timeout_ms=1_000)
    acquired(dead)
    ticket = ticket_of(dead)
    dead.die()
    heir = heir_to(world, ticket)
    recover(heir)
    world.fate = lambda hop: ()
    looked = heir.call(Describe("default", ("x",)), within_ms=60_000)
    world.run(3_000)
    world.fate = lambda hop: () if hop.up and "Describe" in str(hop.messages) else (1.0,)
    acquired(heir, "new")
    acquired(heir, "newer")
    asked = [
        (message.number, message.acked_below)
        for hop in world.hops
        if hop.up and hop.client == heir.number
        for message in hop.messages
        if isinstance(message.operation, Claim) and message.operation.resources[0].path == ("newer",)
    ]
    assert all(0 < acked_below <= number < ATTACH_STEP for number, acked_below in asked)
    world.heal()
    world.finish(looked)


@pytest.mark.parametrize("close_after_ms", [0, 1, 2, 3, 4, 6])
def test_an_heir_that_is_closed_at_once_ends_the_session_or_leaves_it(close_after_ms: float) -> None:
    world = World()
    dead = world.client(session_timeout_ms=1_000)
    acquired(dead, ttl_ms=0)
    ticket = ticket_of(dead)
    dead.die()
    heir = heir_to(world, ticket)
    told = heir.begin(lambda done: heir.protocol.recover(done, heir.now_ms + 10_000))
    world.run(close_after_ms)
    closed = heir.close()
    world.finish(closed, told)
    assert not heir.believes()
    world.run(3_000)
    assert not world.claims()


# --- the text --------------------------------------------------------------------------------------------------------


def test_a_ticket_is_read_as_it_was_written_and_damage_is_found() -> None:  # P11
    ticket = SessionTicket(7, bytes(range(16)), 3, "näme", 10_000)
    text = str(ticket)
    assert read_session(text) == ticket
    for at in range(len(text) - 1):
        with pytest.raises(BadRequest):
            read_session(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", None, 7, "A" * 5000),
        str(SessionTicket(0, b"k" * 16, 0, "default", 1000)),
        str(SessionTicket(1, b"k" * 16, limits.ATTACHES_MAX, "default", 1000)),
        str(SessionTicket(1, b"k" * 16, -1, "default", 1000)),
    ],
)
def test_what_is_no_ticket_of_a_session_is_refused(text: Any) -> None:
    with pytest.raises(BadRequest, match="ticket"):
        read_session(text)
