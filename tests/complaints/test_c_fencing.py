"""Complaints that there is no fencing token, that tokens have no order, or that nothing checks them (P5)."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from http import HTTPStatus
from typing import Any

import pytest

import lessor
from lessor.fencing import FencingMiddleware, SqlGuard, StaleToken, TokenGate, resource_of, token_headers

from .conftest import Make


def overtaken(make: Make) -> tuple[lessor.Lease, lessor.Lease]:
    """A holder whose lease was broken, and the one that came after it."""
    one, other = make(), make()
    first = one.acquire("job")
    other.break_lease(first.token, "for a test")
    return first, other.acquire("job", timeout=60)


def test_dynamodb_s_record_version_is_a_random_number_that_fences_nothing(make: Make) -> None:
    """amazon-dynamodb-lock-client: a UUID for each version, "clients can't implement a fence"."""
    one, other = make(), make()
    tokens = []
    for client in (one, other) * 10:
        with client.lock("x") as lease:
            tokens.append(lease.token)
    assert all(type(token) is int for token in tokens)
    assert tokens == sorted(set(tokens))


def test_redisson_sherlock_redislock_live_mutex_and_atomix_hand_out_no_token(client: lessor.Client) -> None:
    """Each was asked for one. Here every way to hold has one, and those of different names compare."""
    tokens = [client.acquire("x").token]
    tried = client.try_acquire("y")
    assert tried is not None
    tokens.append(tried.token)
    with client.read_lock("shelf") as reading, client.lock_all(["a", "b"]) as both:
        tokens += [reading.token, both.token]
    with client.semaphore("seats", limit=4) as seat:
        tokens.append(seat.token)
    tokens.append(client.resume(client.acquire("z", detached=True).ticket()).token)
    assert tokens == sorted(set(tokens))


def test_jraft_s_users_ask_what_a_fencing_token_is_for(make: Make) -> None:
    """sofa-jraft: "how do I use getFencingToken?" Here the resource's half is shipped: a guard for a database."""
    first, second = overtaken(make)
    guard = SqlGuard.sqlite()
    with closing(sqlite3.connect(":memory:")) as connection:
        guard.create_table(connection)
        connection.execute("CREATE TABLE log (token INTEGER)")

        def log(lease: lessor.Lease) -> None:
            with guard.transaction(connection, "job", lease.token) as cursor:
                cursor.execute("INSERT INTO log VALUES (?)", [lease.token])

        log(second)
        with pytest.raises(StaleToken, match=f"token {first.token} .* {second.token} has been seen"):
            log(first)
        assert connection.execute("SELECT token FROM log").fetchall() == [(second.token,)]


def test_shedlock_gave_up_since_the_service_behind_the_lock_has_to_check(make: Make) -> None:
    """ShedLock: "not possible in the generic implementation". Here it is a middleware around that service."""
    first, second = overtaken(make)
    asked: list[str] = []

    def service(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        asked.append(environ["HTTP_X_LESSOR_TOKEN"])
        start_response("200 OK", [])
        return [b""]

    guarded = FencingMiddleware(service, TokenGate())
    told: list[int] = []

    def answer(lease: lessor.Lease) -> None:
        [(_, value)] = token_headers(lease).items()
        request = {"REQUEST_METHOD": "PUT", "PATH_INFO": "/job", "HTTP_X_LESSOR_TOKEN": value}
        list(guarded(request, lambda status, *_: told.append(int(status.split()[0]))))

    answer(second)
    answer(first)
    assert told == [HTTPStatus.OK, HTTPStatus.PRECONDITION_FAILED]
    assert len(asked) == 1, "the service was not even asked"


def test_etcd_s_example_compares_leases_for_inequality_and_not_in_their_order(make: Make) -> None:
    """etcd's contrib/lock: whoever differs is refused, or let in; which is older, its numbers do not say."""
    first, second = overtaken(make)
    gate = TokenGate()
    name = resource_of(first)
    gate.admit(name, first.token)
    gate.admit(name, second.token)
    with pytest.raises(StaleToken):
        gate.admit(name, first.token)
    gate.admit(name, second.token)
