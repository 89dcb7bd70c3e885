"""The rule of all guards, and the gate in memory: no token passes after a newer one (what P5 is for)."""

import pickle
import random
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from lessor.core.errors import BadRequest
from lessor.fencing import GuardBusy, StaleToken, TokenGate, resource_of
from lessor.fencing.gate import NAME_BYTES_MAX, TOKEN_MAX


def test_an_older_token_is_refused_and_told_both_tokens() -> None:
    """P5: the later grant has the larger token."""
    gate = TokenGate()
    gate.admit("job", 7)
    with pytest.raises(StaleToken, match="token 6 for 'job' is stale: 7 has been seen") as refused:
        gate.admit("job", 6)
    assert (refused.value.name, refused.value.token, refused.value.newest) == ("job", 6, 7)
    assert not refused.value.indefinite  # P9: it certainly was not written
    assert gate.newest("job") == 7


def test_the_same_token_passes_again_and_again() -> None:
    gate = TokenGate()
    for token in (3, 3, 3, 4, 4):
        gate.admit("job", token)
    assert gate.newest("job") == 4


def test_each_name_has_its_own_newest_token() -> None:
    gate = TokenGate()
    gate.admit("a", 9)
    gate.admit("b", 2)
    assert (gate.newest("a"), gate.newest("b"), gate.newest("c")) == (9, 2, 0)


def test_a_full_gate_takes_no_new_name_and_forgets_no_old_one() -> None:
    """P10: it is bounded; and a name forgotten would let its old tokens pass."""
    gate = TokenGate(names_max=2)
    gate.admit("a", 1)
    gate.admit("b", 2)
    with pytest.raises(GuardBusy):
        gate.admit("c", 3)
    gate.admit("a", 4)
    with pytest.raises(StaleToken):
        gate.admit("a", 3)


@pytest.mark.parametrize("token", [0, -1, TOKEN_MAX + 1, True, 1.0, "7", None])
def test_what_cannot_be_a_token_is_refused(token: Any) -> None:
    with pytest.raises(BadRequest):
        TokenGate().admit("job", token)


@pytest.mark.parametrize("name", ["", "x" * (NAME_BYTES_MAX + 1), b"job", None])
def test_what_cannot_be_a_name_is_refused(name: Any) -> None:
    with pytest.raises(BadRequest):
        TokenGate().admit(name, 1)


def test_the_refusal_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(StaleToken("job", 6, 7)))
    assert (error.name, error.token, error.newest) == ("job", 6, 7)
    assert str(error) == str(StaleToken("job", 6, 7))


def test_no_two_names_have_one_resource() -> None:
    """But a path shares it with the name that reads alike, as a lease's own `name` does."""
    leases = [("a", "b/c"), ("a/b", "c"), ("a%2Fb", "c"), ("a", "b%2Fc")]
    names = {resource_of(SimpleNamespace(namespace=namespace, name=name, token=1)) for namespace, name in leases}
    assert len(names) == len(leases)


def test_nobody_gets_between_the_look_and_the_entry() -> None:
    """The older token is stopped where it has looked and not yet entered; the newer one must wait for it."""
    gate = TokenGate()
    newer = threading.Thread(target=gate.admit, args=("job", 8))

    class Name(str):
        """A name that is hashed once for the look and again for the entry."""

        __slots__ = ()
        hashed = 0

        def __hash__(self) -> int:
            Name.hashed += 1
            if Name.hashed == 2:
                newer.start()
                newer.join(0.2)  # with the lock it cannot end before this does
            return hash(str(self))

    gate.admit(Name("job"), 7)
    newer.join()
    assert Name.hashed >= 2
    assert gate.newest("job") == 8


def test_many_threads_with_mixed_tokens_end_with_the_highest(chance: random.Random) -> None:
    """What was admitted never falls, whatever the order of the threads."""
    gate = TokenGate()
    tokens = [chance.randint(1, 1_000_000) for _ in range(4_000)]
    fallen: list[tuple[int, int]] = []

    def admit(mine: list[int]) -> None:
        for token in mine:
            try:
                gate.admit("job", token)
            except StaleToken as error:
                if error.newest <= token:
                    fallen.append((token, error.newest))
            else:
                if (newest := gate.newest("job")) < token:
                    fallen.append((token, newest))

    threads = [threading.Thread(target=admit, args=(tokens[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fallen == []
    assert gate.newest("job") == max(tokens)
