"""Complaints that a lock dies with its process, or can be released only by the thread or object that took it (P6)."""

from concurrent.futures import ThreadPoolExecutor

import lessor
from lessor import Loss
from lessor.actors.embedded import Embedded

from .conftest import Make, Run

CRASHES = """
import os, sys, lessor
client = lessor.connect(sys.argv[1], sys.argv[2], session_timeout=600)
{acquire}
print(lease.token, {ticket}, flush=True)
os._exit(9)
"""


def test_etcd_s_mutex_cannot_be_resumed_after_a_restart(run: Run, client: lessor.Client) -> None:
    """etcd's Election can be resumed, its Mutex not: who restarts stands in line behind himself."""
    acquire = "lease = client.acquire('x', ttl=600, detached=True)"
    died = run(CRASHES.format(acquire=acquire, ticket="lease.ticket()"))
    assert died.returncode == 9
    token, ticket = died.stdout.split()
    lease = client.resume(ticket)
    assert (lease.token, lease.held) == (int(token), True)
    assert lease.release()


def test_consul_s_session_and_kazoo_s_lock_cannot_be_taken_up_again_after_a_restart(
    run: Run, node: Embedded, namespace: str
) -> None:
    """Consul is asked for it; kazoo's own prefix dies with the object, so that even a lasting node is nobody's."""
    acquire = "lease = client.acquire('x', ttl=None)"
    died = run(CRASHES.format(acquire=acquire, ticket="client.session_ticket()"))
    token, ticket = died.stdout.split()
    with lessor.connect(node.endpoints, namespace, session=ticket) as heir:
        [lease] = heir.recover()
        assert (lease.name, lease.token, lease.held) == ("x", int(token), True)
        assert lease.release()


def test_redis_py_s_lock_cannot_be_released_by_another_thread(client: lessor.Client) -> None:
    """redis-py keeps the token in the thread, so that another one has none, unless `thread_local=False`."""
    with ThreadPoolExecutor(1) as pool:
        lease = pool.submit(lambda: client.acquire("x", ttl=600)).result()
        assert lease.held
        assert lease.release()
        again = client.acquire("x", timeout=0)
        assert pool.submit(again.release).result()


def test_hazelcast_s_lock_is_bound_to_its_thread_and_cannot_be_handed_over(make: Make) -> None:
    """Hazelcast: by design. A ticket hands the same grant to another client, and the former owner is told."""
    owner, heir = make(), make()
    lease = owner.acquire("x", ttl=600)
    taken = heir.resume(lease.ticket())
    assert lease.lost.wait(60)
    assert (lease.loss, lease.release()) == (Loss.TAKEN_OVER, False), "it cannot end it any more"
    assert (taken.token, taken.held) == (lease.token, True)
    assert taken.release()
