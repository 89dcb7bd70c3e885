"""Complaints that a holder learns of its loss too late or never (P3, P8); each name says what a peer's client does."""

import subprocess
import threading

import pytest

import lessor
from lessor import LeaseLost, LeaseState, Loss
from lessor.cli import exit_codes
from lessor.core.commands import Release
from lessor.core.results import NotHeld

from ..cli.commands import finish, lessor_process
from ..support.fake_service import World
from ..support.waiting import until
from .worlds import TTL_MS, cut, held, moves, settled, standing, told_at


def test_consul_tells_the_holder_minutes_after_it_cannot_hold_the_lock_any_more() -> None:
    """Consul's api.Lock knows after two failed renewals, logs it, and closes its channel minutes later."""
    world = World()
    holder, other = world.client(), world.client()
    lease = held(holder)
    waiting = standing(other)
    cut(holder)
    world.finish(waiting)
    assert lease.loss is Loss.UNREACHABLE
    assert moves(holder) == [LeaseState.JEOPARDY, LeaseState.LOST]
    assert told_at(holder, LeaseState.LOST) < waiting.at < 1.1 * TTL_MS


def test_consul_kills_the_command_long_after_the_next_one_was_granted_the_lock() -> None:
    """`consul lock` kills its child 90 s after another node has the lock; `lessor lock` when its deadline nears."""

    def is_killed(ttl: str) -> bool:
        with lessor.embedded() as node:
            words = ("lock", "x", "--endpoints", node.endpoints, "--ttl", ttl, "--grace", "500ms", "--")
            process = lessor_process(*words, "sh", "-c", "echo go; exec sleep 80", stdout=subprocess.PIPE)
            assert process.stdout is not None
            begun = process.stdout.readline() == "go\n"
        done = finish(process, timeout=60)
        assert done.code == exit_codes.LEASE_LOST
        return begun

    assert any(is_killed(ttl) for ttl in ("2", "20")), "and had begun before, unless the machine stood still"


def test_etcd_has_no_way_to_know_that_a_mutex_is_not_held_any_more(client: lessor.Client) -> None:
    """etcd's Mutex says nothing; one must watch its session, and know that."""
    told: list[LeaseState] = []
    lease = client.acquire("x")
    lease.on_change(lambda _, state: told.append(state))
    lease.check()
    client.break_lease(lease.token, "by an operator")
    assert lease.lost.wait(60)
    until(lambda: told == [LeaseState.LOST], "the callback was called")
    assert (lease.held, lease.remaining(), lease.lost_reason) == (False, 0.0, "by an operator")
    with pytest.raises(LeaseLost, match="by an operator"):
        lease.check()


@pytest.mark.parametrize(("up", "down"), [(True, True), (True, False), (False, True)])
def test_etcd_has_two_holders_after_a_fault_of_the_network(*, up: bool, down: bool) -> None:
    """With etcd's mutex, the one that is cut off goes on as holder, while the other is granted the lock."""
    world = World()
    holder, other = world.client(), world.client()
    held(holder)
    waiting = standing(other)
    cut(holder, up=up, down=down)
    while world.now < 3 * TTL_MS:
        world.run(10)
        assert len(holder.believes()) + len(other.believes()) <= 1
    assert other.holds(waiting.lease)


def test_etcd_grants_a_lock_on_a_lease_that_had_expired_while_waiting() -> None:
    """etcd's Lock returned success though the waiter's lease was gone by then (Jepsen, 2020)."""
    world = World()
    first, second = world.client(), world.client()
    lease = held(first)
    waiting = second.acquire(ttl_ms=300)
    world.run(50)
    world.fate = lambda hop: (500.0,) if hop.client == 2 and not hop.up and world.now < 400 else (1.0,)
    first.release(lease)
    world.finish(waiting)
    assert second.holds(waiting.lease)
    grants = world.service.executed[waiting.tag]
    assert len(grants) == 2, "the grant that had ended on its way was given back, and the line joined again"


def test_curator_s_thread_goes_on_in_the_belief_that_it_holds_after_its_session_has_expired() -> None:
    """Curator, go-zookeeper and libkv: the session expires, the ephemeral node goes, the holder is not told."""
    world = World()
    holder, other = world.client(session_timeout_ms=3_000), world.client()
    lease = held(holder, ttl_ms=0)
    waiting = standing(other)
    cut(holder)
    world.finish(waiting)
    assert (lease.state, holder.believes()) == (LeaseState.LOST, [])
    assert told_at(holder, LeaseState.LOST) < waiting.at


def test_curator_acquires_by_the_node_of_its_own_dying_session() -> None:
    """CURATOR-604: the reconnected client takes the node of its last session, about to be deleted, for its lock."""
    world = World()
    client = world.client(session_timeout_ms=3_000)
    lease = held(client, ttl_ms=0)
    world.depose()  # the lease clock stands still: to the service, the old session holds it on
    world.run(5_000)
    assert lease.state is LeaseState.LOST
    assert world.claims()
    world.elect(2)
    again = held(client, ttl_ms=0)
    assert again.token > lease.token
    world.run(10_000)
    assert [claim.token for claim in world.claims()] == [again.token]
    assert client.holds(again)


def test_kazoo_says_nothing_of_a_lock_and_leaves_the_listener_to_be_wired_by_its_users(client: lessor.Client) -> None:
    """kazoo tells of the connection, for all locks alike; users ask how to wire that. Here each lease tells."""
    told: list[str] = []
    done = threading.Event()

    def lost(lease: lessor.Lease) -> None:
        told.append(lease.name)
        done.set()

    one = client.acquire("one", on_lost=lost)
    with client.lock("two", on_lost=lost) as two:
        client.break_lease(one.token, "for a test")
        assert done.wait(60)
        assert (told, two.held) == (["one"], True)


def test_tooz_s_heart_tries_for_ever_and_only_logs_while_acquired_stays_true() -> None:
    """tooz: a failed heartbeat is a warning in the log, and `acquired` stays True."""
    world = World()
    client = world.client()
    lease = held(client)
    cut(client)
    world.run(10 * TTL_MS)
    assert (lease.state, lease.loss, client.believes()) == (LeaseState.LOST, Loss.UNREACHABLE, [])
    assert moves(client).count(LeaseState.LOST) == 1


def test_tooz_ignores_the_answer_that_a_lease_is_gone_and_says_that_it_was_renewed() -> None:
    """tooz's etcd3gw lock ignores `refresh() == -1` and answers True; seen in the field in delfin."""
    world = World()
    client, other = world.client(), world.client()
    lease = held(client)
    world.broken.add(lease.token)
    cut(client)
    world.finish(other.call(Release(lease.token)))
    world.heal()
    renewed = client.renew(lease)
    world.finish(renewed)
    assert renewed.value == NotHeld()
    assert (lease.state, lease.loss, client.believes()) == (LeaseState.LOST, Loss.ENDED, [])


def test_kazoo_s_is_acquired_stays_true_after_the_session_has_expired() -> None:
    """kazoo sets `is_acquired` when it acquires, and looks at it no more."""
    world = World()
    client = world.client()
    lease = held(client, ttl_ms=0)
    world.broken.add(lease.token)
    state = world.service.state
    state._end_session(state.sessions_open[lease.session], "session_expired")
    world.run(20_000)
    assert (lease.state, lease.loss, client.believes()) == (LeaseState.LOST, Loss.SESSION_ENDED, [])


def test_etcd_counts_the_deadline_from_the_receipt_of_the_answer() -> None:
    """etcd's Go client: `ka.deadline = time.Now() + TTL` when the answer comes, which is too late by its way."""
    world = World()
    client = world.client()
    held(client, "warm")
    world.fate = lambda hop: (1.0,) if hop.up else (2_000.0,)
    sent_ms = client.now_ms
    taken = client.acquire("x", TTL_MS, auto_renew=False)
    world.finish(taken)
    assert client.now_ms >= sent_ms + 2_000
    assert client.protocol.safe_until_ms(taken.lease) <= sent_ms + TTL_MS
    world.run(TTL_MS)
    assert told_at(client, LeaseState.LOST) + client.offset_ms <= sent_ms + TTL_MS


def test_dynamodb_s_client_cannot_tell_an_outage_from_a_lost_lock() -> None:
    """amazon-dynamodb-lock-client: one error for both. Here the loss has its kind, and an outage is not yet one."""
    world = World()
    away, robbed, other = world.client(), world.client(), world.client()
    outage, lost = held(away, "a"), held(robbed, "b")
    cut(away)
    world.broken.add(lost.token)
    world.finish(other.call(Release(lost.token)))
    world.run(TTL_MS * 3 // 4)
    assert (outage.state, lost.state) == (LeaseState.JEOPARDY, LeaseState.LOST)
    world.run(TTL_MS)
    assert (outage.loss, lost.loss) == (Loss.UNREACHABLE, Loss.ENDED)
    assert settled(world)
