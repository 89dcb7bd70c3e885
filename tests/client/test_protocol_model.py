"""Transactions, late news of grants, observers and adoption in virtual time (P3, P6, P7, P8, P9)."""

from typing import Any

import pytest

from lessor.client.errors import LeaseLost, Unavailable
from lessor.client.protocol import LeaseRecord, LeaseState, Terms
from lessor.client.resuming import Resuming
from lessor.client.states import Loss
from lessor.client.ticket import Ticket
from lessor.core.commands import (
    FOREVER,
    Break,
    Claim,
    PutRegister,
    Release,
    TokenHeld,
    Transact,
    Unheld,
)
from lessor.core.requests import Busy
from lessor.core.resources import Mode, Resource
from lessor.core.results import FREE, Declined, Released, Transacted

from ..support.fake_service import FakeClient, Outcome, World


def acquired(client: FakeClient, name: str = "x", ttl_ms: int = 30_000, **options: Any) -> LeaseRecord:
    outcome = client.acquire(name, ttl_ms, **options)
    client.world.finish(outcome)
    return outcome.lease


def transact(client: FakeClient, *steps: Any, checks: tuple[Any, ...] = (), within_ms: int = 10_000) -> Outcome:
    operation = Transact(checks, steps)
    return client.begin(lambda done: client.protocol.transact(operation, done, client.now_ms + within_ms))


def observe(client: FakeClient, name: str = "x", timeout_ms: int = FOREVER) -> Outcome:
    claim = Claim("default", (Resource((name,), Mode.OBSERVE),), "observer", b"", 0, timeout_ms, detached=False)
    deadline = None if timeout_ms == FOREVER else client.now_ms + timeout_ms
    return client.begin(lambda done: client.protocol.acquire(claim, done, deadline))


def resume(client: FakeClient, lease: LeaseRecord) -> Outcome:
    place = (lease.namespace, lease.path, lease.token, lease.claim)
    ticket = Ticket(*place, lease.ttl_ms, lease.holder, lease.detached)
    return client.begin(lambda done: Resuming(client.protocol, ticket, Terms(), done, client.now_ms + 10_000))


def cut(world: World, client: FakeClient, *, up: bool = True, down: bool = True) -> None:
    world.fate = lambda hop: () if hop.client == client.number and (up if hop.up else down) else (1.0,)


# --- transactions ----------------------------------------------------------------------------------------------------


def test_a_lease_that_a_transaction_may_release_is_not_held_from_the_moment_of_asking() -> None:  # P3
    world = World()
    client = world.client()
    lease = acquired(client)
    done = transact(client, Release(lease.token))
    assert not client.believes()
    assert not lease.over
    world.finish(done)
    assert isinstance(done.value, Transacted)
    assert (lease.state, lease.reason) == (LeaseState.RELEASED, "released")
    assert not world.claims()


def test_a_lease_is_held_again_once_the_transaction_is_declined_and_is_renewed_on() -> None:
    world = World()
    client = world.client()
    lease = acquired(client, ttl_ms=3_000)
    done = transact(client, Release(lease.token), checks=(Unheld("default", ("x",)),))
    world.finish(done)
    assert done.value == Declined("check", 0, "it is held")
    assert client.believes() == [lease]
    world.run(10_000)
    assert client.believes() == [lease]


def test_a_lease_whose_transaction_certainly_never_left_is_held_again() -> None:
    world = World()
    client = world.client()
    lease = acquired(client)
    for node in (1, 2, 3):
        world.kill(node)
    done = transact(client, Release(lease.token), within_ms=300)
    world.finish(done)
    assert isinstance(done.value, Unavailable)
    assert not done.value.indefinite
    assert client.believes() == [lease]


@pytest.mark.parametrize("turned_away", [False, True])
def test_a_lease_whose_transaction_has_no_answer_of_the_log_is_given_back(*, turned_away: bool) -> None:  # P3, P9
    world = World()
    client = world.client()
    lease = acquired(client)
    if turned_away:
        world.service.reply = lambda node, request: Busy(request.number)
    else:
        cut(world, client, up=False)
    done = transact(client, Release(lease.token), within_ms=500)
    world.finish(done)
    assert isinstance(done.value, Unavailable)
    assert done.value.indefinite
    assert lease.state is LeaseState.RELEASED
    world.heal()
    world.run(5_000)
    assert not world.claims()


def test_while_laid_down_a_lease_is_lost_at_its_deadline() -> None:  # P8
    world = World()
    client = world.client()
    lease = acquired(client, ttl_ms=1_000)
    until = client.protocol.safe_until_ms(lease)
    cut(world, client)
    done = transact(client, Release(lease.token), within_ms=8_000)
    world.run(2_000)
    assert not done.done
    assert lease.state is LeaseState.LOST
    assert [at for at, changed in client.changes if changed is lease] == [until]


def test_while_laid_down_a_lease_hears_that_it_was_broken() -> None:  # P8
    world = World()
    client, operator = world.client(), world.client()
    lease = acquired(client)
    acquired(operator, "y")
    world.service.reply = lambda node, request: (
        Busy(request.number) if isinstance(request.operation, Transact) else None
    )
    done = transact(client, Release(lease.token))
    world.finish(operator.call(Break(lease.token, "it hangs")))
    world.run(10)
    assert (lease.loss, lease.reason) == (Loss.BROKEN, "it hangs")
    world.heal()
    world.finish(done)
    assert isinstance(done.value, Declined)
    assert not client.believes()


def test_a_lease_is_lost_if_its_transaction_finds_that_it_is_not_held() -> None:  # P3
    world = World()
    client, operator = world.client(), world.client()
    lease = acquired(client)
    acquired(operator, "y")
    world.fate = lambda hop: () if hop.client == client.number and not hop.up and "Notice" in str(hop) else (1.0,)
    world.broken.add(lease.token)
    world.finish(operator.call(Break(lease.token, "its push is lost")))
    done = transact(client, PutRegister("default", ("x",), lease.token, 0, b""), Release(lease.token))
    world.finish(done)
    check = transact(client, Release(lease.token), checks=(TokenHeld(lease.token),))
    world.finish(check)
    assert isinstance(check.value, Declined)
    assert lease.state is LeaseState.LOST


def test_a_renewal_that_finds_the_lease_released_by_the_transaction_is_no_loss() -> None:
    world = World()
    client = world.client()
    lease = acquired(client, ttl_ms=3_000)
    world.fate = lambda hop: () if not hop.up and "Transacted" in str(hop) else (1.0,)
    renewed = client.renew(lease)
    done = transact(client, Release(lease.token))
    world.finish(renewed)
    late = client.renew(lease)  # as one that was sent while the transaction was on its way
    world.finish(late)
    assert not lease.over
    world.heal()
    world.finish(done)
    assert lease.state is LeaseState.RELEASED


def test_of_two_transactions_that_may_release_a_lease_both_must_be_over_before_it_is_held_again() -> None:  # P3
    world = World()
    client = world.client()
    lease = acquired(client)
    declined = transact(client, Release(lease.token), checks=(Unheld("default", ("x",)),))
    world.service.held_up = True
    other = transact(client, Release(lease.token))
    world.service.held_up = False
    world.until(lambda: declined.done)
    assert not client.believes() or other.done
    world.finish(other)
    assert not client.believes()
    assert not world.claims()


def test_a_lease_without_a_ttl_that_is_laid_down_is_lost_with_its_session() -> None:  # P3, P8
    world = World()
    client = world.client(session_timeout_ms=1_000)
    lease = acquired(client, ttl_ms=0)
    cut(world, client)
    transact(client, Release(lease.token), checks=(Unheld("default", ("x",)),), within_ms=9_000)
    world.run(3_000)
    world.heal()
    world.run(3_000)
    assert lease.over
    assert not client.believes()


def test_a_client_that_is_closed_while_a_transaction_is_declined_holds_nothing() -> None:  # P3
    world = World()
    client = world.client()
    lease = acquired(client)
    declined = transact(client, Release(lease.token), checks=(Unheld("default", ("x",)),))
    closed = client.close()
    assert not client.believes()
    world.finish(declined, closed)
    assert not client.believes()
    assert lease.state is LeaseState.RELEASED


def test_a_transaction_whose_answer_is_lost_with_the_session_is_not_asked_again() -> None:  # P6, P9
    world = World()
    client = world.client(session_timeout_ms=1_000)
    lease = acquired(client, ttl_ms=60_000)
    cut(world, client, up=False)
    done = transact(client, PutRegister("default", ("x",), lease.token, 0, b"once"), within_ms=9_000)
    world.until(lambda: world.service.state.sessions == 0 or done.done)
    cut(world, client)
    world.run(2_000)
    world.heal()
    world.finish(done)
    assert isinstance(done.value, Unavailable)
    assert done.value.indefinite, "it was carried out, and a second one would have been declined"


def test_a_grant_given_back_by_its_token_is_not_held_by_its_lease_any_more() -> None:  # P3
    world = World()
    client = world.client()
    lease = acquired(client)
    done = client.begin(lambda told: client.protocol.release_token(lease.token, told, None))
    assert not client.believes()
    world.finish(done)
    assert done.value == Released()
    assert lease.state is LeaseState.RELEASED


# --- late news of a grant --------------------------------------------------------------------------------------------


def outage(world: World, ms: float) -> None:
    """Two of three nodes crash, and come back: nobody leads, and the lease clock stands still."""
    world.kill(1)
    world.kill(2)
    world.depose()
    world.run(ms)
    world.restart(1)
    world.restart(2)
    world.elect(1)


def test_the_first_in_line_keeps_its_place_over_an_outage_longer_than_the_ttl() -> None:  # P7
    world = World()
    holder, first, second = world.client(), world.client(), world.client()
    lease = acquired(holder, ttl_ms=2_000, auto_renew=False)
    one = first.acquire(ttl_ms=2_000, auto_renew=False)
    world.run(100)
    two = second.acquire(ttl_ms=2_000, auto_renew=False)
    world.run(500)
    outage(world, 3_000)
    world.finish(one)
    assert one.lease.token == lease.token + 1, "no grant was given back"
    assert first.believes() == [one.lease]
    assert not two.done


@pytest.mark.parametrize("ms", [2_500, 3_000, 5_000])
def test_an_acquire_that_was_asked_in_an_outage_gets_its_grant(ms: float) -> None:  # P7
    world = World()
    client = world.client()
    acquired(client, "warm")
    world.run(100)
    world.depose()
    asked = client.acquire(ttl_ms=2_000, auto_renew=False)
    world.run(ms)
    world.elect(2)
    world.finish(asked)
    assert world.service.kinds.count("granted") == 2, "the first grant was of use"


def late_push(world: World, ttl_ms: int = 2_000, **options: Any) -> tuple[FakeClient, Outcome]:
    """Have a client hear of a grant by a push that its anchor makes look too late, with no answer after that."""
    holder, client = world.client(), world.client()
    lease = acquired(holder, ttl_ms=60_000)
    asked = client.acquire(ttl_ms=ttl_ms, auto_renew=False, **options)
    world.run(100)
    world.stand_still(4_000)
    cut(world, client, up=True, down=False)  # pushes come, questions do not arrive
    world.run(4_100)
    assert client.protocol.session is not None
    holder.release(lease)
    world.run(50)
    return client, asked


def test_an_acquire_that_times_out_while_it_asks_about_late_news_leaves_nothing_behind() -> None:  # P9
    world = World()
    _, asked = late_push(world, timeout_ms=5_000)
    assert not asked.done
    world.finish(asked)
    world.heal()
    world.run(5_000)
    assert not world.claims(asked.tag)
    assert not world.leftovers()


def test_an_acquire_that_is_abandoned_while_it_asks_about_late_news_leaves_nothing_behind() -> None:
    world = World()
    client, asked = late_push(world)
    client.abandon(asked)
    world.heal()
    world.run(5_000)
    assert not world.leftovers()
    assert not client.believes()


@pytest.mark.parametrize("timeout_ms", [0, 4_000])
def test_a_grant_told_by_an_answer_that_looks_late_leaves_nothing_behind_if_nobody_waits(timeout_ms: int) -> None:
    world = World()
    client = world.client()
    acquired(client, "warm")
    world.run(100)
    world.depose()
    asked = client.acquire(ttl_ms=2_000, auto_renew=False, timeout_ms=timeout_ms)
    world.run(3_000)
    world.elect(2)
    world.until(lambda: world.claims(asked.tag))
    world.stand_still(60_000)  # it does not end by itself
    world.until(lambda: asked.acquire is not None and (asked.acquire.token or asked.done))
    assert not asked.done
    cut(world, client)
    world.finish(asked)
    assert asked.value.indefinite
    world.heal()
    world.run(1_000)
    assert not world.claims(asked.tag)


def test_news_that_is_late_by_the_lease_clock_too_is_given_back_and_asked_for_again() -> None:
    world = World()
    client = world.client()
    acquired(client, "warm")
    world.fate = lambda hop: (1.0,) if hop.up else (400.0,)
    asked = client.acquire(ttl_ms=100, auto_renew=False)
    world.run(3_000)
    assert not asked.done
    assert client.packets < 60, "it does not ask in a tight circle"
    world.heal()
    world.finish(asked)
    assert asked.lease in client.believes()


# --- observers -------------------------------------------------------------------------------------------------------


def test_an_observer_learns_that_the_name_is_free() -> None:
    world = World()
    holder, client = world.client(), world.client()
    lease = acquired(holder)
    asked = observe(client)
    world.run(1_000)
    assert not asked.done
    world.finish(holder.release(lease), asked)
    assert asked.value.why == FREE


def test_an_observer_whose_push_is_lost_learns_it_though_somebody_else_has_it_by_then() -> None:  # no lost wake-up
    world = World()
    holder, next_one, client = world.client(), world.client(), world.client()
    lease = acquired(holder)
    next_one.acquire()
    asked = observe(client)
    world.run(100)
    world.fate = lambda hop: () if hop.client == client.number and not hop.up else (1.0,)
    holder.release(lease)
    world.run(200)
    world.heal()
    world.finish(asked, within_ms=5_000)
    assert asked.value.why == FREE
    assert next_one.believes()


def test_an_observer_goes_on_over_a_change_of_leader_and_over_the_end_of_its_session() -> None:
    world = World()
    holder, client = world.client(), world.client(session_timeout_ms=1_000)
    lease = acquired(holder)
    asked = observe(client)
    world.run(100)
    world.elect(2)
    world.run(500)
    cut(world, client)
    world.run(3_000)
    world.heal()
    world.run(1_000)
    assert not asked.done
    world.finish(holder.release(lease), asked)
    assert asked.value.why == FREE


@pytest.mark.parametrize("abandon", [True, False])
def test_an_observer_that_waits_no_longer_leaves_nothing_behind(*, abandon: bool) -> None:
    world = World()
    holder, client = world.client(), world.client()
    acquired(holder)
    asked = observe(client, timeout_ms=FOREVER if abandon else 500)
    if abandon:
        world.run(0.5)  # before its number is known
        client.protocol.abandon(next(iter(client.protocol._acquires.values())))
    world.run(2_000)
    assert len(world.claims()) == 1
    assert not client.protocol._acquires
    assert asked.done != abandon


# --- adoption --------------------------------------------------------------------------------------------------------


def test_whoever_resumes_a_lease_holds_it_and_its_former_owner_is_told() -> None:
    world = World()
    owner, heir = world.client(), world.client()
    lease = acquired(owner, ttl_ms=3_000)
    taken = resume(heir, lease)
    world.finish(taken)
    world.run(5)
    assert (lease.state, lease.loss) == (LeaseState.LOST, Loss.TAKEN_OVER)
    assert heir.believes() == [taken.lease]
    assert taken.lease.session == heir.protocol.session_number
    world.run(20_000)
    assert heir.believes() == [taken.lease], "its renewals keep it"
    world.finish(heir.release(taken.lease))
    assert not world.claims()


def test_a_former_owner_that_was_cut_off_does_not_end_what_was_taken_over() -> None:  # P6
    world = World()
    owner, heir = world.client(), world.client()
    lease = acquired(owner, ttl_ms=3_000)
    cut(world, owner)
    taken = resume(heir, lease)
    world.finish(taken)
    world.run(8_000)
    assert lease.state is LeaseState.LOST, "no later than its deadline"
    owner.release(lease)
    world.heal()
    world.run(20_000)
    assert heir.believes() == [taken.lease]


def test_a_former_owner_that_the_push_did_not_reach_learns_it_on_its_next_connection() -> None:
    world = World()
    owner, heir = world.client(), world.client()
    lease = acquired(owner, ttl_ms=0)
    cut(world, owner, up=False)
    taken = resume(heir, lease)
    world.finish(taken)
    world.heal()
    owner.lose_connection(1)
    world.run(1_000)
    assert lease.state is LeaseState.LOST
    assert heir.believes() == [taken.lease]


def test_a_former_owner_learns_it_by_its_pings_at_the_latest() -> None:  # P8
    world = World()
    owner, heir = world.client(), world.client()
    lease = acquired(owner, ttl_ms=0)
    world.run(5_000)  # beyond the first ping on its connection, which asks for everything
    world.fate = lambda hop: () if hop.client == owner.number and "taken over" in str(hop) else (1.0,)
    world.finish(resume(heir, lease))
    world.run(40_000)
    assert lease.loss is Loss.ENDED, "by the word of the service"


def test_a_former_owner_whose_session_has_ended_learns_it_too() -> None:  # P8: there is nobody to push to
    world = World()
    owner, heir = world.client(session_timeout_ms=1_000), world.client()
    lease = acquired(owner, ttl_ms=60_000)
    cut(world, owner)
    world.run(3_000)
    world.heal()
    world.run(2_000)
    assert lease.state is LeaseState.HELD
    taken = resume(heir, lease)
    world.finish(taken)
    world.run(15_000)
    assert lease.loss is Loss.TAKEN_OVER
    assert heir.believes() == [taken.lease]


def test_a_lease_without_a_ttl_lives_with_the_session_of_whoever_took_it_over() -> None:
    world = World()
    owner, heir = world.client(), world.client(session_timeout_ms=1_000)
    lease = acquired(owner, ttl_ms=0)
    taken = resume(heir, lease)
    world.finish(taken)
    world.finish(owner.close())
    world.run(5_000)
    assert heir.believes() == [taken.lease]
    heir.die()
    world.run(2_000)
    assert not world.claims()


def test_what_is_not_held_any_more_cannot_be_resumed() -> None:
    world = World()
    owner, heir = world.client(), world.client()
    lease = acquired(owner)
    world.finish(owner.release(lease))
    taken = resume(heir, lease)
    world.finish(taken)
    assert isinstance(taken.value, LeaseLost)


def test_a_client_that_resumes_its_own_lease_has_it_once() -> None:  # P3
    world = World()
    client = world.client()
    lease = acquired(client)
    taken = resume(client, lease)
    world.finish(taken)
    assert lease.loss is Loss.TAKEN_OVER
    world.finish(client.release(taken.lease))
    assert not client.believes()
    assert not world.claims()


@pytest.mark.parametrize("ms", [0.5, 1.5, 2.5, 3.5, 4.5])
def test_a_call_that_is_interrupted_gives_back_what_it_took_over_or_took_nothing(ms: float) -> None:
    world = World()
    owner, heir = world.client(), world.client()
    acquired(heir, "warm")
    lease = acquired(owner)
    begun: list[Resuming] = []
    ticket = Ticket("default", ("x",), lease.token, lease.claim, 30_000, "", detached=False)
    told: list[Any] = []
    heir.protocol.now_ms = heir.now_ms
    begun.append(Resuming(heir.protocol, ticket, Terms(), told.append, heir.now_ms + 10_000))
    heir.turn()
    world.run(ms)
    heir.protocol.now_ms = heir.now_ms
    begun[0].abandon()
    heir.turn()
    world.run(1_000)
    assert len(heir.believes()) == 1
    assert bool(owner.believes()) == (len(world.claims()) == 2)
