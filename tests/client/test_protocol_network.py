"""Which node is asked, how often and in how many packets: redirects, silence, Busy, Rejected, broken connections."""

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lessor.client.calls import RETRY_MS_MAX, SILENCE_MS, UNREACHED_MS
from lessor.client.errors import BadRequest, Unavailable
from lessor.client.protocol import LeaseRecord
from lessor.core import limits
from lessor.core.commands import Claim, Describe
from lessor.core.requests import Answer, Busy, Redirect, Rejected, Request
from lessor.transport.packets import encode_packet

from ..support.fake_service import FakeClient, Hop, Outcome, World

READ = Describe("default", ("x",))


def warm(world: World, **options: Any) -> FakeClient:
    """A client with a session and a connection to the leader."""
    client = world.client(**options)
    world.finish(client.acquire("warm"))
    return client


def asked(world: World, since: float = 0.0) -> list[int]:
    """The nodes that were asked, in order."""
    return [hop.node for hop in world.hops if hop.up and hop.at >= since]


# --- redirects -------------------------------------------------------------------------------------------------------


def test_a_redirect_is_followed_at_once_and_the_leader_is_remembered() -> None:
    world = World(leader=3)
    client = world.client()
    taken = client.acquire()
    world.finish(taken, within_ms=12)
    world.finish(client.release(taken.lease))
    assert asked(world) == [1, 3, 3, 3]


def test_a_leader_that_is_not_among_the_endpoints_is_found_by_its_redirect() -> None:
    world = World(leader=3)
    client = world.client()
    del client.protocol.endpoints[1:]
    world.finish(client.acquire(), within_ms=12)
    assert client.protocol.target == world.service.endpoints[3]


def test_a_redirect_to_nobody_makes_the_client_ask_around_without_haste() -> None:
    world = World(leader=0)
    taken = world.client().acquire()
    world.run(1_000)
    nodes = asked(world)
    assert {1, 2, 3} == set(nodes)
    assert 1_000 / RETRY_MS_MAX / 1.3 <= len(nodes) <= 40
    world.elect(2)
    world.finish(taken, within_ms=2 * RETRY_MS_MAX)


@pytest.mark.parametrize("callers", [1, 2, 3, 4, 6])
def test_one_node_that_knows_no_leader_does_not_keep_the_client_from_the_others(callers: int) -> None:
    world = World(leader=2)
    world.believe(1, 0)
    client = world.client()
    client.protocol._calls._luck = lambda: 0.5  # they all try again in step
    reads = [client.call(READ) for _ in range(callers)]
    world.finish(*reads, within_ms=300)


def test_two_nodes_that_each_name_the_other_are_not_asked_in_a_tight_circle() -> None:
    world = World(2, leader=0)
    world.service.ballot = world.service.ballot._replace(counter=1)
    world.believe(1, 2)
    world.believe(2, 1)
    taken = world.client().acquire(timeout_ms=3_000)
    world.run(2_000)
    assert len(asked(world)) < 2_000 / RETRY_MS_MAX * 2
    world.elect(1)
    world.finish(taken, within_ms=200)
    assert isinstance(taken.value, LeaseRecord)


def test_a_hint_at_a_leader_that_just_died_is_not_believed() -> None:
    world = World()
    client = warm(world)
    world.kill(1)  # the others have not noticed yet
    taken = client.acquire()
    world.run(400)
    since = world.now
    assert not taken.done
    assert len(asked(world)) < 30
    world.elect(3, tell=False)  # the second has still not noticed
    world.finish(taken, within_ms=3 * RETRY_MS_MAX)
    assert set(asked(world, since)) <= {2, 3}


def test_a_hint_at_a_leader_that_is_silent_costs_no_more_than_one_silence() -> None:
    world = World()
    client = warm(world)
    world.silent.add(1)  # its host is gone, and the others have not noticed yet
    taken = client.acquire()
    world.run(SILENCE_MS + 20)
    assert set(asked(world)) == {1, 2}
    world.elect(2, tell=True)
    world.finish(taken, within_ms=2 * SILENCE_MS)


def test_a_late_word_of_a_node_that_was_left_does_not_lead_away_from_the_leader() -> None:
    world = World(leader=2)
    client = world.client()
    world.fate = lambda hop: (1_500.0,) if hop.node == 1 and not hop.up else (1.0,)
    world.believe(1, 3)
    taken = client.acquire()
    world.finish(taken)
    assert client.protocol.target == world.service.endpoints[2]
    world.run(3_000)
    assert client.protocol.target == world.service.endpoints[2]


@pytest.mark.parametrize("lost", [1, 2], ids=["one", "two"])
def test_a_node_that_cannot_be_reached_and_says_nothing_is_soon_left(lost: int) -> None:
    """Its first packet, or the lookup of its name, waits for an answer that never comes: nobody says what is wrong."""
    world = World(leader=3)
    world.silent.update(range(1, lost + 1))
    taken = world.client().acquire()
    world.finish(taken, within_ms=lost * (UNREACHED_MS + 2 * RETRY_MS_MAX))


def test_a_deposed_leader_that_does_not_know_it_yet_is_left_once_it_is_silent() -> None:
    world = World()
    client = warm(world)
    world.elect(2, tell=False)
    taken = client.acquire()
    world.finish(taken, within_ms=2 * SILENCE_MS + 50)
    assert asked(world)[-1] == 2
    assert len(world.service.executed[taken.tag]) == 1


# --- silence and broken connections ----------------------------------------------------------------------------------


def test_silence_makes_the_client_ask_one_node_after_the_other() -> None:
    world = World()
    client = warm(world)
    since = world.now
    world.fate = lambda hop: ()
    client.call(READ)
    world.run(5 * SILENCE_MS)
    changes = [
        node for node, before in zip(asked(world, since), [0, *asked(world, since)], strict=False) if node != before
    ]
    assert changes[:5] == [1, 2, 3, 1, 2]


def test_an_idle_client_is_not_driven_away_by_silence() -> None:
    world = World()
    client = warm(world, session_timeout_ms=20 * SILENCE_MS)
    world.run(6 * SILENCE_MS)
    assert client.protocol.target == world.service.endpoints[1]


def test_one_answer_that_is_lost_is_asked_for_again_though_the_node_is_heard_all_the_time() -> None:
    world = World()
    client = warm(world)
    lost: list[Hop] = []

    def fate(hop: Hop) -> Sequence[float]:
        if hop.up or lost:
            return (1.0,)
        lost.append(hop)
        return ()

    world.fate = fate
    taken = client.acquire()
    for _ in range(2 * SILENCE_MS // 50):
        world.run(50)
        client.call(READ)
    assert taken.done
    assert set(asked(world)) == {1}


def test_a_broken_connection_is_noticed_at_once() -> None:
    world = World()
    client = warm(world)
    world.elect(2)
    world.kill(1)
    world.finish(client.call(READ), within_ms=2 * RETRY_MS_MAX)


def test_what_could_not_be_sent_goes_out_as_soon_as_the_connection_stands() -> None:
    world = World(1)
    world.finish(world.client().call(READ), within_ms=3)


def test_a_restarted_single_node_is_found_as_soon_as_it_can_be_reached() -> None:
    world = World(1)
    client = warm(world)
    world.kill(1)
    taken = client.acquire()
    world.run(3_000)
    world.restart(1)
    world.elect(1)
    world.finish(taken, within_ms=150)


# --- refusals --------------------------------------------------------------------------------------------------------


def test_a_busy_service_is_asked_again_ever_more_slowly_and_keeps_the_request() -> None:  # P10
    world = World()
    client = warm(world)
    since = world.now
    world.service.reply = lambda node, request: Busy(request.number)
    taken = client.acquire()
    world.run(1_000)
    times = [hop.at for hop in world.hops if hop.up and hop.at >= since]
    gaps = [late - early for early, late in itertools.pairwise(times)]
    assert gaps[0] <= 20
    assert min(gaps[4:]) >= RETRY_MS_MAX * 0.75
    assert len({message.number for hop in world.hops if hop.up and hop.at >= since for message in hop.messages}) == 1
    assert set(asked(world)) == {1}, "busy is no reason to ask another"
    world.heal()
    world.finish(taken, within_ms=2 * RETRY_MS_MAX)
    assert len(world.service.executed[taken.tag]) == 1


def test_a_rejected_request_is_a_bad_request_with_the_reason_of_the_service() -> None:
    world = World()
    client = warm(world)
    world.service.reply = lambda node, request: Rejected(request.number, "no such thing")
    taken, read = client.acquire(), client.call(READ)
    world.finish(taken, read)
    for outcome in (taken, read):
        assert isinstance(outcome.value, BadRequest)
        assert str(outcome.value) == "no such thing"


def test_a_session_that_is_rejected_fails_those_who_waited_for_it() -> None:
    world = World()
    world.service.reply = lambda node, request: Rejected(request.number, "no sessions today")
    client = world.client()
    outcomes = [client.acquire(), client.acquire("y", timeout_ms=0)]
    world.finish(*outcomes)
    assert [str(outcome.value) for outcome in outcomes] == ["no sessions today"] * 2
    world.heal()
    world.finish(client.acquire())


@pytest.mark.parametrize("sent_before", [False, True])
def test_a_service_that_understands_nothing_ends_the_client(*, sent_before: bool) -> None:  # P9
    world = World()
    client = warm(world)
    if sent_before:
        world.fate = lambda hop: ()
    taken = client.acquire()
    world.run(SILENCE_MS + 1 if sent_before else 0.5)
    client.protocol.receive(
        world.service.endpoints[1], encode_packet([Rejected(0, "version 9 is spoken here")]), client.now_ms
    )
    assert isinstance(taken.value, Unavailable)
    assert "version 9" in str(taken.value)
    assert taken.value.indefinite is sent_before
    assert client.protocol.closed
    world.gone.clear()  # what is under way may still arrive: the client is gone, and its session ends by itself
    client.die()


@pytest.mark.parametrize("seed", range(4))
def test_bytes_that_are_no_packet_and_answers_to_nobody_change_nothing(seed: int) -> None:  # P11
    rng = random.Random(seed)
    world = World()
    client = warm(world)
    waiting = client.acquire("warm")
    world.run(10)
    endpoint = world.service.endpoints[1]
    for _ in range(200):
        frame = rng.choice(
            [
                rng.randbytes(rng.randrange(40)),
                encode_packet([Answer(rng.randrange(5, 99), rng.randrange(10**12), _released())]),
                encode_packet([Redirect(rng.randrange(5, 99), 2, "tcp://elsewhere:1", indefinite=False)]),
                encode_packet([Busy(rng.randrange(5, 99)), Rejected(rng.randrange(5, 99), "no"), READ]),
                encode_packet([Request(0, 0, 0, READ)]),
            ]
        )
        client.protocol.receive(endpoint, frame, client.now_ms)
        client.turn()
    world.run(5_000)
    assert not waiting.done
    assert len(client.believes()) == 1
    assert client.protocol.endpoints == list(world.service.endpoints.values())


def _released() -> Any:
    world = World(1)
    client = warm(world)
    released = client.release(client.believes()[0])
    world.finish(released)
    return released.value


# --- packets ---------------------------------------------------------------------------------------------------------


def together(client: FakeClient, ask: Callable[[], Sequence[Outcome]]) -> Sequence[Outcome]:
    """Let many callers ask before the client's thread gets its turn."""
    client.turn, turn = lambda *, force=False: None, client.turn  # type: ignore[method-assign]
    outcomes = ask()
    client.turn = turn  # type: ignore[method-assign]
    client.turn()
    return outcomes


def test_requests_of_many_callers_travel_in_one_packet() -> None:
    world = World()
    client = warm(world)
    before = client.packets
    taken = together(client, lambda: [client.acquire(f"name {number}") for number in range(200)])
    world.finish(*taken)
    assert client.packets - before == 1
    assert sorted(outcome.lease.token for outcome in taken) == list(range(2, 202))


def test_no_packet_is_larger_than_the_service_takes_whatever_data_the_callers_keep() -> None:
    world = World()
    client = warm(world)
    taken = together(
        client, lambda: [client.acquire(f"{number:01024}", size=limits.DATA_BYTES_MAX) for number in range(100)]
    )
    world.finish(*taken, within_ms=100)
    assert all(isinstance(outcome.value, LeaseRecord) for outcome in taken)
    assert max(len(hop.frame) for hop in world.hops if hop.up) <= limits.PACKET_BYTES_MAX
    assert max(len(hop.messages) for hop in world.hops) <= limits.PACKET_MESSAGES_MAX


def test_a_client_with_more_waiting_claims_than_a_ping_holds_asks_for_all_of_them_in_turns() -> None:
    world = World()
    holder, client = warm(world), world.client(session_timeout_ms=3_000)
    waiting = together(client, lambda: [client.acquire("warm") for _ in range(2 * limits.CLAIMS_PER_PING_MAX + 7)])
    world.run(100)
    world.fate = lambda hop: (1.0,) if hop.up or hop.client == 1 else ()
    holder.release(holder.believes()[0])
    world.run(20)
    world.heal()
    world.finish(waiting[0], within_ms=3_500)
    for outcome in waiting[:5]:
        world.finish(outcome)
        client.release(outcome.lease)
    world.run(6_000)
    pings = [message.operation.claims for hop in world.hops if hop.up for message in hop.messages if _is_ping(message)]
    assert set().union(*pings) >= {claim.claim for claim in world.claims()}
    assert max(len(claims) for claims in pings) == limits.CLAIMS_PER_PING_MAX


def _is_ping(message: Any) -> bool:
    return hasattr(message.operation, "claims")


# --- when to wake ----------------------------------------------------------------------------------------------------


def a_life(seed: int, every_ms: float) -> tuple[list[Any], list[Any]]:
    """A stormy life, decided by a seed; the client is woken when it asks for it, or else every so many milliseconds."""
    rng = random.Random(seed)
    world = World()
    weathers = [random.Random(f"{seed} {number}") for number in range(2 * 4)]
    clients = [world.client(session_timeout_ms=rng.choice([600, 3_000])) for _ in range(3)]
    for client in clients:
        client.tick_every_ms = every_ms
        client.turn()

    def fate(hop: Hop) -> Sequence[float]:
        weather = weathers[2 * hop.client + hop.up]
        draw = weather.random()
        return () if draw < 0.1 else (float(weather.randrange(1, 900)),) if draw < 0.2 else (1.0,)

    world.fate = fate
    outcomes: list[Outcome] = []
    for _ in range(40):
        world.run(rng.choice([1, 7, 60, 400]))
        client = rng.choice(clients)
        match rng.randrange(8):
            case 0 | 1 | 2:
                outcomes.append(client.acquire(rng.choice("xy"), rng.choice([0, 150, 2_000]), rng.choice([0, 90, 900])))
            case 3:
                outcomes.append(client.acquire(rng.choice("xy"), 2_000, auto_renew=False))
            case 4 if client.believes():
                outcomes.append(client.release(client.believes()[0], within_ms=700))
            case 5 if client.believes():
                outcomes.append(client.renew(client.believes()[0], within_ms=700))
            case 6:
                world.elect(rng.randrange(1, 4), tell=rng.random() < 0.7)
            case _:
                client.lose_connection(rng.randrange(1, 4))
    world.heal()
    world.run(5_000)
    told = [(outcome.tag, outcome.at, str(outcome.value)) for outcome in outcomes if not _is_lease(outcome)]
    leases = [(outcome.at, outcome.lease.token, outcome.lease.state) for outcome in outcomes if _is_lease(outcome)]
    lost = [(at, lease.token, lease.reason) for client in clients for at, lease in client.changes]
    return [told, leases, lost], [(hop.at, hop.client, hop.node, hop.frame) for hop in world.hops]


def _is_lease(outcome: Outcome) -> bool:
    return isinstance(outcome.value, LeaseRecord)


@pytest.mark.parametrize("seed", range(3))
def test_waking_only_when_asked_for_gives_the_same_life_as_waking_every_millisecond(seed: int) -> None:
    outcomes, packets = a_life(seed, 0)
    outcomes_every_ms, packets_every_ms = a_life(seed, 1)
    assert outcomes == outcomes_every_ms
    assert packets == packets_every_ms


@pytest.mark.parametrize("after_ms", range(SILENCE_MS - 60, SILENCE_MS + 20, 10))
def test_a_client_never_spins_when_a_connection_breaks_around_the_end_of_patience(after_ms: int) -> None:
    world = World()  # which fails when a client takes turn after turn in one moment
    client = warm(world)
    client.call(READ)
    world.run(3)
    world.fate = lambda hop: ()
    client.call(READ)
    world.run(after_ms)
    client.lose_connection(1)
    world.run(2 * SILENCE_MS)


def test_a_client_with_nothing_to_do_is_not_woken() -> None:
    world = World()
    client = world.client()
    assert client.protocol.wake_at_ms() is None
    world.finish(client.call(READ))
    world.run(20_000)
    assert client.protocol.wake_at_ms() is None
    held = client.acquire(ttl_ms=0)
    world.finish(held)
    world.run(100)
    turns = 0
    while world.now < 60_000:
        world.run(1)
        turns += client._turns[0] == world.now
    assert turns <= 60, "pings and their answers"


def test_a_claim_is_sent_as_the_caller_made_it() -> None:
    world = World()
    client = warm(world)
    client.acquire("a name", 1_234, 5_678, detached=True)
    world.run(0)
    claim = world.hops[-1].messages[-1].operation
    assert isinstance(claim, Claim)
    assert (claim.resources[0].path, claim.ttl_ms, claim.wait_ms, claim.detached) == (("a name",), 1_234, 5_678, True)
