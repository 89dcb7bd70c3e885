"""Whatever is answered about the longest names can be read again: by a client, from a snapshot and from the disk."""

from typing import Any

import pytest

from lessor.core import limits
from lessor.core.checks import check
from lessor.core.commands import (
    Claim,
    CreateNamespace,
    CreateSemaphore,
    DeleteSemaphore,
    DropNamespace,
    HeldBy,
    NamespaceConfig,
    PutRegister,
    Transact,
    UpdateSemaphore,
)
from lessor.core.encoding import decode, encode
from lessor.core.errors import BadRequest
from lessor.core.lease_state import LeaseState
from lessor.core.resources import Mode, Resource
from lessor.core.results import Declined, Failed, shortened

from ..support.leases import Leases

SEGMENT = "ß" * (limits.NAME_BYTES_MAX // 2)
LONG = (SEGMENT,) * (limits.PATH_BYTES_MAX // limits.NAME_BYTES_MAX - 1)
SPACE = "ä" * (limits.NAMESPACE_BYTES_MAX // 2)
HOLDER = "\\" * limits.HOLDER_BYTES_MAX

REFUSED: dict[str, Any] = {
    "a semaphore that is not there is updated": UpdateSemaphore("default", LONG, b""),
    "a semaphore that is not there is deleted": DeleteSemaphore("default", LONG, force=False),
    "a semaphore that is there is made": CreateSemaphore("default", ("s", *LONG), 2, b""),
    "a semaphore that is in use is deleted": DeleteSemaphore("default", ("s", *LONG), force=False),
    "a name that is held is made a semaphore": CreateSemaphore("default", ("h", *LONG), 2, b""),
    "a register that the grant does not cover is written": PutRegister("default", LONG, 1, 0, b""),
    "a namespace that was not made is dropped": DropNamespace(SPACE, force=False),
    "a check of a transaction does not hold": Transact((HeldBy("default", LONG, HOLDER),), ()),
    "a step of a transaction cannot be carried out": Transact((), (UpdateSemaphore("default", LONG, b""),)),
}


def held(*resources: Resource) -> Claim:
    return Claim("default", resources, HOLDER, b"", 60_000, 0, detached=False)


@pytest.mark.parametrize("operation", REFUSED.values(), ids=REFUSED)
def test_p11_what_is_refused_about_the_longest_names_can_be_read_again(operation: Any) -> None:
    leases = Leases()
    anna = leases.session(timeout_ms=600_000)
    leases.ask(anna, held(Resource(("h", *LONG))))
    leases.ask(anna, CreateSemaphore("default", ("s", *LONG), 2, b""))
    leases.ask(anna, held(Resource(("s", *LONG), Mode.COUNT, 1)))
    check(operation)
    answer = leases.ask(anna, operation)
    assert isinstance(answer, Failed | Declined)
    assert decode(encode(answer)) == answer
    # the answer is kept for a retry, and so it is in whatever the state is written down as
    snapshot = leases.state.snapshot()
    assert LeaseState.restore(snapshot).snapshot() == snapshot


def test_p11_a_namespace_of_the_longest_name_that_exists_is_refused_in_words_that_can_be_read() -> None:
    leases = Leases()
    anna = leases.session()
    leases.ask(anna, CreateNamespace(SPACE, NamespaceConfig()))
    answer = leases.ask(anna, CreateNamespace(SPACE, NamespaceConfig()))
    assert isinstance(answer, Failed)
    assert decode(encode(answer)) == answer


def test_a_text_is_cut_between_characters_and_only_if_it_must_be() -> None:
    for extra in range(4):
        fits = "a" * (limits.DETAIL_BYTES_MAX - 4 * extra) + "🙂" * extra
        assert shortened(fits) == fits
        cut = shortened("a" * extra + "🙂" * limits.DETAIL_BYTES_MAX)
        assert limits.DETAIL_BYTES_MAX - 4 < len(cut.encode()) <= limits.DETAIL_BYTES_MAX
        assert cut.endswith("🙂…")


def test_p10_a_transaction_that_no_entry_of_the_log_has_room_for_is_refused() -> None:
    def puts(count: int, size: int) -> Transact:
        return Transact((), tuple(PutRegister("default", (str(at),), 1, 0, bytes(size)) for at in range(count)))

    room = limits.TRANSACTION_BYTES_MAX - len(encode(puts(4, 0))) - 4 * 4
    check(puts(4, room // 4))
    with pytest.raises(BadRequest, match=f"a transaction has at most {limits.TRANSACTION_BYTES_MAX} bytes, not"):
        check(puts(4, room // 4 + 10))
