"""Every message goes over the wire and back; any bytes at all give a value or `Malformed` (P11); codes never change."""

import dataclasses
import time
import tracemalloc
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from lessor.core import limits
from lessor.core.ballot import Ballot
from lessor.core.commands import Claim, Command
from lessor.core.encoding import INT_MAX, MaxBytes, decode, dumps, encode, from_list, loads, to_list, wire
from lessor.core.entries import Batch, NoOp
from lessor.core.errors import Malformed
from lessor.core.messages import Accept, Prepare
from lessor.core.requests import Answer, Busy
from lessor.core.resources import Resource
from lessor.core.results import Cancelled, ClaimPhase, ClaimStatus

from ..support.wire_values import (
    CLASSES,
    FALSE,
    INFINITY,
    NAN,
    NULL,
    ONE_FLOAT,
    TRUE,
    UNDEFINED,
    an_instance,
    array,
    at_its_bound,
    bignum,
    fits,
    head,
    mapping,
    number,
    octets,
    shapes,
    tag,
    text,
)

PINNED = """
 1 Prepare ballot from_slot
 2 Vote slot ballot entry
 3 Promise ballot node from_slot votes next_page truncated_upto
 4 Accept ballot slot entry chosen_upto
 5 Accepted ballot node slot
 6 Refuse ballot node promised
 7 PreVote ballot node
 8 PreVoteAnswer ballot node granted highest
 9 Heartbeat ballot chosen_upto
10 HeartbeatAnswer ballot node applied_upto
11 Fetch node from_slot
12 Fetched node votes truncated_upto
13 FetchSnapshot node slot offset
14 SnapshotChunk node slot offset total data
15 Stranger node incarnation
30 Batch term elapsed_ms commands
31 Lead ballot
32 NoOp
40 OpenSession key timeout_ms description namespace
41 CloseSession
42 Ping claims
43 Resource path mode count limit
44 Claim namespace resources holder data ttl_ms wait_ms detached max_hold_ms chain
45 Cancel claim
46 Renew token ttl_ms
47 Release token
48 Describe namespace path
49 ListClaims namespace after limit
50 Command tag session number acked_below operation strict proof
51 AttachSession session key attach timeout_ms description new_key
52 KeepAlive pings
53 Amend claim count to_read wait_ms new_data data
54 Break token reason
55 Adopt token
56 CreateSemaphore namespace path limit data
57 UpdateSemaphore namespace path data
58 DeleteSemaphore namespace path force
59 Pin namespace path entity
60 SessionOpened session expires_at_ms attach claims upto
61 SessionClosed released
62 ClaimStatus claim phase token expires_at_ms waiters_ahead ttl_ms hold_until_ms why
63 Pong expires_at_ms claims
64 Denied holder token expires_at_ms why
65 Cancelled was
66 Renewed expires_at_ms
67 NotHeld
68 Released
69 Failed code detail
70 ClaimInfo claim namespace path phase holder session token ttl_ms since_ms expires_at_ms detached data resources \
hold_until_ms
71 ClaimPage claims waiting upto revision about
90 Event revision slot clock_ms kind namespace path claim token session holder expires_at_ms others why
110 Request session number acked_below operation proof
111 Answer number clock_ms result
112 Redirect number leader endpoint indefinite
113 Busy number
114 Rejected number reason
115 Notice session clock_ms status
116 StatusRequest number
117 Counter name value
118 StatusAnswer number node cluster version role ballot leader leader_endpoint chosen_upto applied_upto clock_ms \
sessions held waiting revision counters namespaces semaphores pins registers lapsed
119 SessionStolen session attach
120 StateHeader applied_upto clock_ms base_ms term last_token last_claim last_session revision last_item
121 KeptReply number result
122 SessionRecord session key timeout_ms description expires_at_ms acked_below refused_below replies namespace attach
123 ClaimRecord claim namespace resources holder data session detached ttl_ms since_ms token ends_at_ms max_hold_ms \
hold_until_ms chain watermark
124 LapsedRecord number claim namespace resources holder token since_ms ended_at_ms closed_until_ms why
125 SemaphoreRecord number namespace path limit data
126 PinRecord number namespace path entities
127 RegisterRecord number namespace path version token data
128 NamespaceRecord number name config
131 Lapsed claim holder token since_ms ended_at_ms closed_until_ms why
132 About limit ephemeral units data version pins lapsed
133 KeptAlive expires_at_ms
134 Done changed
135 ChainLink holder namespace path token
136 DeadlockDetected circle left_out
137 Register version token data
138 VersionDiffers version
139 Valid claim
140 NamespaceInfo number name created config claims sessions
141 SessionInfo number namespace description timeout_ms expires_at_ms attach held waiting
142 SemaphoreInfo number namespace path limit units waiting data
143 PinInfo number namespace path entities
144 RegisterInfo number namespace path version token
145 RecordPage records upto
146 EventPage events upto missed_upto
147 Transacted results
148 Declined part index reason
150 Unpin namespace path entity
151 NamespaceConfig default_ttl_ms ttl_max_ms session_grace_ms lock_delay_ms claims_max
152 CreateNamespace name config
153 AlterNamespace name config
154 DropNamespace name force
155 PutRegister namespace path token version data
156 EraseRegister namespace path token version
157 HeldBy namespace path holder
158 TokenHeld token
159 Unheld namespace path
160 RegisterIs namespace path version
161 Transact checks steps
162 Validate token
163 GetRegister namespace path
164 DescribeNamespace name
165 ListRecords kind namespace after limit
166 ReadEvents namespace path below after limit
167 EndSession session
"""
"""What is on disks and wires: a line may be added, but a code once released is never given another meaning."""

EACH = pytest.mark.parametrize("cls", CLASSES.values(), ids=lambda cls: cls.__name__)


# --- our own messages ------------------------------------------------------------------------------------------------


def test_no_code_has_changed_its_meaning() -> None:
    known = [" ".join([str(code), cls.__name__, *shapes(cls)]) for code, cls in CLASSES.items()]
    assert known == [line.strip() for line in PINNED.strip().splitlines()]


def test_the_bytes_of_known_messages_have_not_changed() -> None:
    claim = Claim("default", (Resource(("nightly",)),), "host", b"\x01", 30_000, INT_MAX, detached=False)
    known = {
        Accept(Ballot(3, 1), 300, b"\xff", 299): "850482030119012c41ff19012b",
        Batch(Ballot(3, 1), 1500, (b"a", b"")): "84181e8203011905dc82416140",
        Command(7, 2, 9, 8, claim): "88183207020908"
        "8a182c6764656661756c748185182b81676e696768746c7900000064686f737441011975301b7ffffffffffffffff40000f400",
        Answer(9, 1200, ClaimStatus(1, 2, 5, 31_200, 0)): "84186f091904b089183e0102051979e000000060",
        NoOp(): "811820",
    }
    for message, data in known.items():
        assert encode(message).hex() == data
        assert decode(bytes.fromhex(data)) == message


@EACH
def test_a_message_comes_back_as_it_was_and_always_as_the_same_bytes(cls: type) -> None:
    for seed in range(150):
        value = an_instance(Random(seed), cls)
        data = encode(value)
        assert decode(data) == value, f"seed {seed}"
        assert encode(value) == encode(decode(data)) == encode(an_instance(Random(seed), cls)) == data, f"seed {seed}"
        assert to_list(value) == loads(data), f"seed {seed}"


def test_a_member_of_an_enumeration_travels_as_its_number() -> None:  # P1: restored and original give the same bytes
    assert encode(Cancelled(ClaimPhase.HELD)) == encode(Cancelled(2))
    assert type(decode(encode(Cancelled(ClaimPhase.HELD))).was) is int


def test_a_code_is_given_only_once() -> None:
    @dataclasses.dataclass(frozen=True)
    class Another:
        number: int

    with pytest.raises(TypeError, match="113 is taken by Busy"):
        wire(113)(Another)


@pytest.mark.parametrize("hint", [float, dict[str, int], object, None])
def test_a_field_of_another_kind_is_refused_when_its_class_is_registered(hint: Any) -> None:
    cls = dataclasses.make_dataclass("Odd", [("field", hint)])
    with pytest.raises(TypeError, match="no wire form"):
        wire(99_999)(cls)


# --- each field of each message --------------------------------------------------------------------------------------

WRONG: list[Any] = [
    None,
    True,
    False,
    -1,
    INT_MAX + 1,
    2**64,
    -(2**64),
    1.0,
    float("nan"),
    "1",
    "x" * 3_000_000,
    b"1",
    [],
    [1],
]
WRONG += [[[]], ["1"], [None], [1, 2], [1, -1], [1, 2, 3], {}, {1: 2}, [113, 1], [113, -1], [32], [99_999], [[113, 1]]]


@EACH
def test_a_field_of_a_wrong_type_sign_or_size_is_refused(cls: type) -> None:
    good = to_list(an_instance(Random(1), cls))
    for position, (name, of) in enumerate(shapes(cls).items(), start=1):
        for value in WRONG:
            if fits(value, of):
                continue
            with pytest.raises(Malformed, match=cls.__name__):
                pytest.fail(f"{name} holds {from_list([*good[:position], value, *good[position + 1 :]])}")


@EACH
def test_a_field_may_reach_its_bound_and_not_pass_it(cls: type) -> None:
    good = to_list(an_instance(Random(1), cls))
    for position, (name, of) in enumerate(shapes(cls).items(), start=1):
        if of.kind not in (str, bytes, tuple):
            continue
        largest = at_its_bound(of)
        assert from_list([*good[:position], largest, *good[position + 1 :]])
        for larger in [largest + largest[:1], largest * 2]:
            with pytest.raises(Malformed, match=f"more than {of.bound}"):
                pytest.fail(f"{name} holds {from_list([*good[:position], larger, *good[position + 1 :]])}")


def test_the_bound_of_a_text_counts_its_bytes_and_not_its_letters() -> None:
    bound = limits.NAME_BYTES_MAX
    assert from_list([43, ["é" * (bound // 2)], 0, 0, 0])
    for name in ("é" * (bound // 2) + "x", "€" * (bound // 3 + 1), "😀" * bound):
        with pytest.raises(Malformed, match="more than 1024 bytes"):
            from_list([43, [name], 0, 0, 0])


@EACH
def test_a_field_too_many_or_too_few_is_refused(cls: type) -> None:
    good = to_list(an_instance(Random(1), cls))
    for items in ([*good, 0], [*good, None], good[:-1], good[:1] * 2, [*good, *good[1:]]):
        if len(items) != len(good):
            with pytest.raises(Malformed):
                from_list(items)


@pytest.mark.parametrize("items", [[], None, 113, "113", (113, 1), {113: 1}, [None], [True, 1], [113.0, 1], ["113", 1]])
def test_what_is_no_list_with_a_known_code_is_refused(items: Any) -> None:
    with pytest.raises(Malformed):
        from_list(items)


@pytest.mark.parametrize("code", [code for code in range(-2, 300) if code not in CLASSES] + [10**9, INT_MAX, 2**64])
def test_an_unknown_code_is_refused(code: int) -> None:
    with pytest.raises(Malformed, match="unknown kind"):
        from_list([code])


# --- any bytes at all ------------------------------------------------------------------------------------------------


def check_total(data: bytes) -> bool:
    """Assert that bytes give Malformed, or a value that is itself a message; say which it was."""
    try:
        value = decode(data)
    except Malformed:
        return False
    except BaseException as error:  # noqa: BLE001 - a panic in the decoder is told with its bytes too
        pytest.fail(f"decode(bytes.fromhex({data[:400].hex()!r})) raised {error!r}")
    assert type(value) in CLASSES.values(), data.hex()
    assert decode(encode(value)) == value, data.hex()
    return True


def random_bytes(chance: Random) -> bytes:
    return chance.randbytes(chance.choice((0, 1, 2, 5, 9, 20, 60)))


def random_tokens(chance: Random) -> bytes:
    """Well-formed items of all kinds, one after the other: more of these get past the first byte."""
    return b"".join(
        head(chance.randrange(8), chance.choice((0, 1, 2, 3, 5, 28, 29, 30, 113, 255, 258, 2**16, 2**32, 2**63)))
        if chance.random() < 0.7
        else chance.choice(
            (NAN, NULL, TRUE, FALSE, UNDEFINED, ONE_FLOAT, b"a", b"\x9f", b"\xff", b"\x5f", b"\xc2\x41\x09")
        )
        for _ in range(chance.randrange(1, 12))
    )


def random_messages(seed: int) -> list[bytes]:
    """Small valid messages of every class."""
    return [encode(an_instance(Random(seed), cls)) for cls in CLASSES.values()]


MESSAGES = [data for seed in range(8) for data in random_messages(seed) if len(data) < 1000]


def mutated(chance: Random) -> bytes:
    data = bytearray(chance.choice(MESSAGES))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0:
                del data[at:]
            case 1 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 2 if at < len(data):
                data[at] = chance.choice(
                    (0, 0x1B, 0x5B, 0x7B, 0x80, 0x9B, 0x9F, 0xBB, 0xC2, 0xD8, 0xF6, 0xF9, 0xFB, 0xFF)
                )
            case 3:
                data[at:at] = chance.randbytes(chance.randrange(1, 4))
            case 4:
                data[at : at + chance.randrange(1, 9)] = b""
            case _:
                other = chance.choice(MESSAGES)
                data[at : at + 1] = other[chance.randrange(len(other)) :][:20]
    return bytes(data)


@pytest.mark.parametrize(
    ("make", "count", "values_at_least"),
    [(random_bytes, 30_000, 0), (random_tokens, 30_000, 0), (mutated, 40_000, 500)],
)
def test_any_bytes_give_a_message_or_malformed(
    make: Callable[[Random], bytes], count: int, values_at_least: int
) -> None:  # P11
    values = sum(check_total(make(Random(seed))) for seed in range(count))
    assert values >= values_at_least, "some of it should still be a message"


def test_a_message_cut_short_anywhere_is_malformed() -> None:
    for data in random_messages(1):
        for length in range(min(len(data), 300)):
            with pytest.raises(Malformed):
                decode(data[:length])


DEEP = 100_000
HOSTILE = {
    "nothing": b"",
    "deep lists": b"\x81" * DEEP,
    "deep maps": b"\xa1\x01" * DEEP,
    "deep map keys": b"\xa1" * DEEP,
    "deep tags": b"\xc6" * DEEP,
    "deep shared values": b"\xd8\x1c" * DEEP,
    "deep lists inside a field": array(number(113), b"\x81" * DEEP),
    "a list that is as deep as can be": b"\x81" * limits.CBOR_DEPTH_MAX + b"\x00",
    "an indefinite list": b"\x9f\x18\x71\x01\xff",
    "indefinite bytes": array(number(113), b"\x5f\x41\x01\xff"),
    "indefinite text": array(number(113), b"\x7f\x61a\xff"),
    "an indefinite map": b"\xbf\x01\x02\xff",
    "a break": b"\xff",
    "reserved lengths": b"\x1c\x1d\x1e",
    "not a number": array(number(113), NAN),
    "infinity": array(number(113), INFINITY),
    "a whole float": array(number(113), ONE_FLOAT),
    "a negative number": array(number(113), head(1, 0)),
    "the lowest number": array(number(113), head(1, 2**64 - 1)),
    "a number of 64 bits": array(number(113), number(2**64 - 1)),
    "true for 1": array(number(113), TRUE),
    "null": array(number(113), NULL),
    "undefined": array(number(113), UNDEFINED),
    "a simple value": array(number(113), b"\xf8\xff"),
    "a short code in a long form of a float": array(b"\xfb\x40\x5c\x40\0\0\0\0\0", number(1)),
    "text that is no UTF-8": array(number(43), array(b"\x62\xc3\x28")),
    "text with half a surrogate pair": array(number(43), array(b"\x63\xed\xa0\x80")),
    "bytes for text": array(number(43), array(octets(b"x"))),
    "a map for a list": mapping(number(0), number(113), number(1), number(1)),
    "a map with a map as key": mapping(mapping(number(1), number(2)), number(1)),
    "a list that holds itself": tag(28, array(number(110), *[number(0)] * 3, tag(29, number(0)))),
    "a list that is its own code": tag(28, array(tag(29, number(0)))),
    "a command that holds itself": tag(28, array(number(50), *[number(0)] * 4, tag(29, number(0)))),
    "a reference to nothing": tag(29, number(7)),
    "a string reference to nothing": tag(25, number(7)),
    "a date that is none": tag(0, text("yesterday")),
    "a date after all time": tag(1, number(2**64 - 1)),
    "a fraction of nothing": tag(30, array(number(1), number(0))),
    "a decimal with a huge exponent": tag(4, array(number(2**63), number(1))),
    "a pattern that is none": tag(35, text("(")),
    "an address that is none": tag(260, octets(b"x")),
    "a tag that nobody knows": tag(2**64 - 1, array(number(113), number(1))),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_are_malformed(data: bytes) -> None:  # P11
    with pytest.raises(Malformed):
        decode(data)
    with pytest.raises(Malformed):
        decode(array(number(111), number(1), number(1), data))


TAGS = (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43_000, 55_799, 9999)
"""Every tag that cbor2 has a decoder for, and one that it has none for."""


@pytest.mark.parametrize("of", TAGS)
@pytest.mark.parametrize("item", [number(5), octets(b"\x05"), text("5"), array(), array(number(1), number(5))])
def test_a_tag_has_no_place_in_a_message(of: int, item: bytes) -> None:  # P11: behind each waits a decoder of its own
    for data in (tag(of, item), array(number(113), tag(of, item)), tag(of, array(number(113), number(5)))):
        with pytest.raises(Malformed):
            pytest.fail(f"{data.hex()} is {decode(data)}")


def seconds_for(data: bytes) -> float:
    """How many seconds of work hostile bytes make."""
    began = time.process_time()
    with pytest.raises(Malformed):
        decode(data)
    return time.process_time() - began


def memory_for(data: bytes) -> int:
    """How many bytes of memory hostile bytes take at their worst."""
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            decode(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("major", [2, 3, 4, 5])
@pytest.mark.parametrize("claimed", [2**20, 2**31 - 1, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("wrap", [b"", b"\x82\x18\x71", b"\x82\x18\x6f" * 5, b"\xc2"])
def test_a_huge_claimed_length_takes_neither_memory_nor_time(major: int, claimed: int, wrap: bytes) -> None:  # P11
    data = wrap + head(major, claimed) + b"x" * 100
    assert seconds_for(data) < 0.5
    assert memory_for(data) < 2_000_000


PRIME = 2**61 - 1  # all of its multiples have the same hash


def keys(count: int) -> Iterator[bytes]:
    """Numbers that all fall into one place of a hash table."""
    return (bignum(step * PRIME) if step > 7 else number(step * PRIME) for step in range(1, count + 1))


def lists_of_one_hash(count: int) -> Iterator[bytes]:
    """Pairs of numbers that have the same hash as tuples, which is what lists become as keys of a map."""
    one, two, five, word = 11400714785074694791, 14029467366897019727, 2870177450012600261, 2**64
    found, first = 0, 0
    while found < count:
        first += 1
        lane = (five + first * two) % word
        lane = (lane << 31 | lane >> 33) % word * one % word
        second = (-lane) * pow(two, -1, word) % word  # makes the sum 0 after its second step, whatever the first was
        if second < PRIME:
            found += 1
            yield array(number(first), number(second))


def laughs() -> bytes:
    """A session whose 64 answers are all one answer of 500 claims which are all one claim: 1.8 kB for 32,000 claims."""
    path = array(*[text("a")] * 32)
    claim = array(number(70), *[number(1), text("n"), path, number(1), text("h")], *[number(1)] * 5, FALSE, octets(b""))
    page = array(number(71), array(tag(28, claim), *[tag(29, number(1))] * 499), number(0), FALSE)
    reply = array(number(121), number(1), page)
    replies = array(tag(28, reply), *[tag(29, number(0))] * 63)
    return array(number(122), number(1), octets(b"k" * 16), number(1), text(""), number(1), number(1), replies)


COSTLY = {
    "a decimal of a huge number": lambda: tag(4, array(number(0), bignum(1 << 800_000))),
    "a float of a huge number": lambda: tag(5, array(number(0), bignum(1 << 800_000))),
    "a map of keys of one hash": lambda: mapping(*(part for key in keys(12_000) for part in (key, number(0)))),
    "a map of lists of one hash": lambda: mapping(*(part for key in lists_of_one_hash(8000) for part in (key, FALSE))),
    "a set of members of one hash": lambda: tag(258, array(*keys(12_000))),
    "a pattern of many choices": lambda: tag(35, text("a|" * 100_000)),
    "one answer a thousand times": laughs,
}


@pytest.mark.parametrize("make", COSTLY.values(), ids=COSTLY.keys())
def test_a_small_packet_cannot_make_much_work(make: Callable[[], bytes]) -> None:  # P11: 2 MB of it would take minutes
    assert seconds_for(make()) < 0.5


def test_values_next_to_each_other_in_a_packet_are_not_mixed_up() -> None:
    prepare, busy = Prepare(Ballot(1, 2), 3), Busy(4)
    packed = loads(dumps([to_list(prepare), to_list(busy)]))
    assert [from_list(items) for items in packed] == [prepare, busy]


def test_a_bound_is_part_of_an_annotation_and_compares_by_value() -> None:
    assert MaxBytes(3) == MaxBytes(3) != MaxBytes(4)
