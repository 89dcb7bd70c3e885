"""The lease tables' contract: what was saved is loaded, byte for byte, and an operator can read it (P1, P5, P10)."""

import dataclasses
import json
import random
import sqlite3
from collections import Counter

import pytest

from lessor.core.ballot import Ballot
from lessor.core.commands import Claim, Command, OpenSession, Release
from lessor.core.encoding import encode
from lessor.core.entries import Batch, Entry, Lead
from lessor.core.errors import Corrupt, InvariantBroken
from lessor.core.lease_state import LeaseState
from lessor.core.records import RECORD_KINDS, StateHeader
from lessor.core.resources import Resource
from lessor.core.results import ClaimStatus
from lessor.storage import lease_tables
from lessor.storage.directory import DataDirectory

from ..support.lease_tales import Tale
from .histories import LeaseHistory


def load(directory: DataDirectory) -> LeaseState:
    with directory.open_lease_tables() as tables:
        return tables.load()


def replay(state: LeaseState, entries: list[Entry]) -> bytes:
    for entry in entries:
        state.apply(state.applied_upto + 1, entry)
    return state.snapshot()


# --- P1: the same bytes ----------------------------------------------------------------------------------------------


def test_new_lease_tables_hold_the_empty_state(directory: DataDirectory) -> None:
    assert load(directory).snapshot() == LeaseState().snapshot()


def test_a_state_saved_at_any_moment_is_loaded_byte_for_byte(directory: DataDirectory, chance: random.Random) -> None:
    """P1, P5: with it come the clock, the last token and all answers kept for retries."""
    history = LeaseHistory(chance)
    for _ in range(8):
        with directory.open_lease_tables() as tables:
            history.state = tables.load()
            for _ in range(chance.randint(1, 6)):
                history.apply_some(chance.randint(0, 120))
                tables.save(history.state)
                assert not history.state.claims.changed
                assert not history.state.sessions_open.changed
                assert load(directory).snapshot() == history.state.snapshot()
        assert load(directory).snapshot() == history.state.snapshot()


def test_a_loaded_state_goes_on_as_the_saved_one_would_have(directory: DataDirectory, chance: random.Random) -> None:
    """P1: what is not in the tables (queues, deadlines) is derived from what is."""
    for _ in range(5):
        history = LeaseHistory(chance)
        history.apply_some(chance.randint(50, 300))
        with directory.open_lease_tables() as tables:
            tables.replace(history.state)
            restarted = tables.load()
        assert not restarted.claims.changed
        assert not restarted.sessions_open.changed
        later = history.apply_some(300)
        assert replay(restarted, later) == history.state.snapshot()


def test_every_kind_of_record_is_saved_and_loaded_byte_for_byte(directory: DataDirectory) -> None:
    """P1: over histories in which everything happens that can, saved now and then."""
    kinds: Counter[str] = Counter()
    with directory.open_lease_tables() as tables:
        for seed in range(40):
            entries = Tale(seed).whole(60)
            state = LeaseState()
            tables.replace(state)
            for entry in entries:
                state.apply(state.applied_upto + 1, entry)
                if state.applied_upto % 5 == 0:
                    tables.save(state)
            tables.save(state)
            kinds.update(name for name, part in state.tables.items() if len(part))
            loaded = tables.load()
            assert loaded.snapshot() == state.snapshot(), f"seed {seed}"
    assert set(kinds) == set(RECORD_KINDS), "each kind of record was there"


def test_a_restart_replays_what_came_after_the_last_save(directory: DataDirectory, chance: random.Random) -> None:
    with directory.open_lease_tables() as tables:
        history = LeaseHistory(chance, tables.load())
        history.apply_some(200)
        tables.save(history.state)
        unsaved = history.apply_some(150)
    state = load(directory)
    assert state.applied_upto == 200
    assert replay(state, unsaved) == history.state.snapshot()


def test_a_replaced_state_is_loaded_byte_for_byte_and_saved_on(directory: DataDirectory, chance: random.Random) -> None:
    """P1: after a snapshot nothing is left of the state before it."""
    for _ in range(4):
        stale, fresh = LeaseHistory(chance), LeaseHistory(chance)
        fresh.apply_some(chance.randint(1, 400))
        with directory.open_lease_tables() as tables:
            stale.apply_some(150)
            tables.replace(stale.state)
            fresh.state = LeaseState.restore(fresh.state.snapshot())
            tables.replace(fresh.state)
            assert load(directory).snapshot() == fresh.state.snapshot()
            fresh.apply_some(100)
            tables.save(fresh.state)
        assert load(directory).snapshot() == fresh.state.snapshot()


def test_the_slot_of_the_last_snapshot_is_remembered(directory: DataDirectory, chance: random.Random) -> None:
    """The journal must forget what it holds below it; see `Journal.reconcile`."""
    with directory.open_lease_tables() as tables:
        history = LeaseHistory(chance, tables.load())
        history.apply_some(10)
        tables.save(history.state)
        assert tables.snapshot_upto == 0
        history.state = LeaseState.restore(history.state.snapshot())
        tables.replace(history.state)
        assert tables.snapshot_upto == 10
        history.apply_some(10)
        tables.save(history.state)
    with directory.open_lease_tables() as tables:
        assert tables.snapshot_upto == 10
        assert tables.load().applied_upto == 20


def test_a_save_writes_only_what_changed(directory: DataDirectory, chance: random.Random) -> None:
    with directory.open_lease_tables() as tables:
        history = LeaseHistory(chance, tables.load())
        history.apply_some(400)
        tables.save(history.state)
        history.apply_one()
        changed = sum(len(table.changed) for table in history.state.tables.values())
        before = tables._database.connection.total_changes
        tables.save(history.state)
        assert tables._database.connection.total_changes - before <= changed + 1


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        (StateHeader, lease_tables._HEADER),
        *((kind, lease_tables._COLUMNS[name]) for name, kind in RECORD_KINDS.items()),
    ],
)
def test_every_field_of_a_record_has_its_column(record: type, columns: dict[str, type]) -> None:
    """A field that the core gains must not be lost by a restart."""
    fields = [field.name for field in dataclasses.fields(record)]
    if record is StateHeader:
        fields[fields.index("term") : fields.index("term") + 1] = ["term_counter", "term_node"]
        columns = {name: kind for name, kind in columns.items() if name in fields}
    assert fields == list(columns)


def test_a_state_that_did_not_come_from_these_tables_is_not_saved_into_them(
    directory: DataDirectory, chance: random.Random
) -> None:
    """As a snapshot that was restored and not yet written down, when a node that fails saves what it can."""
    with directory.open_lease_tables() as tables:
        history = LeaseHistory(chance, tables.load())
        history.apply_some(50)
        tables.save(history.state)
        other = LeaseHistory(chance)
        other.apply_some(90)
        with pytest.raises(InvariantBroken, match=r"a state that is not the one in .*leases\.db"):
            tables.save(LeaseState.restore(other.state.snapshot()))
        history.apply_some(1)
        tables.save(history.state)
    assert load(directory).snapshot() == history.state.snapshot()


# --- for people ------------------------------------------------------------------------------------------------------


def test_an_operator_can_read_who_holds_what_while_the_node_runs(directory: DataDirectory) -> None:
    claim = Claim("default", (Resource(("nightly-report",)),), "alice", b"\x01", 9_000, 0, detached=False)
    opening = Command(1, 0, 0, 0, OpenSession(bytes(16), 60_000, "cron"))
    with directory.open_lease_tables() as tables:
        state = tables.load()
        state.apply(1, Lead(Ballot(1, 2)))
        state.apply(2, Batch(Ballot(1, 2), 500, (encode(opening), encode(Command(2, 1, 1, 0, claim)))))
        tables.save(state)
        shell = sqlite3.connect(f"file:{directory.path / 'leases.db'}?mode=ro", uri=True)
        name = "json_extract(resources, '$[0][0][0]')"
        asked = f"SELECT namespace, {name}, holder, token, ttl_ms, ends_at_ms, data FROM claims"
        assert shell.execute(asked).fetchall() == [("default", "nightly-report", "alice", 1, 9_000, 9_500, b"\x01")]
        assert shell.execute("SELECT session, description FROM sessions").fetchall() == [(1, "cron")]
        assert shell.execute("SELECT applied_upto, clock_ms, last_token FROM header").fetchall() == [(2, 500, 1)]
        shell.close()


def test_a_name_in_any_script_is_kept_as_it_is(directory: DataDirectory, chance: random.Random) -> None:
    names = ["日本", 'a"b\\c', "🔒", "x'y", "\x00\n"]
    resources = [(Resource((name,)),) for name in names]
    commands = [Command(0, 0, 0, 0, OpenSession(bytes(16), 60_000, "".join(names)))]
    commands += [
        Command(0, 1, number, 0, Claim(name, wanted, name, b"", 0, 0, detached=False))
        for number, (name, wanted) in enumerate(zip(names, resources, strict=True), start=1)
    ]
    with directory.open_lease_tables() as tables:
        state = tables.load()
        state.apply(1, Lead(Ballot(1, 1)))
        state.apply(2, Batch(Ballot(1, 1), 0, tuple(map(encode, commands))))
        tables.save(state)
        column = [row[0] for row in tables._database.connection.execute("SELECT resources FROM claims")]
        assert [json.loads(text) for text in column] == [[[[name], 0, 0, 0]] for name in names]
    loaded = load(directory)
    assert [claim.resources for claim in loaded.claims.records()] == resources
    assert loaded.snapshot() == state.snapshot()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE claims SET holder = 'mallory'",
        "UPDATE claims SET resources = '[[\"y\"]]'",
        "UPDATE sessions SET expires_at_ms = expires_at_ms + 1",
        "UPDATE header SET last_token = 0",
        "DELETE FROM claims",
        "DELETE FROM header",
        (
            "INSERT INTO claims SELECT 9, namespace, resources, holder, data, session, detached, ttl_ms, since_ms, "
            "token, ends_at_ms, max_hold_ms, hold_until_ms, chain, watermark, checksum FROM claims"
        ),
    ],
)
def test_a_state_that_was_changed_by_hand_stops_the_node(directory: DataDirectory, change: str) -> None:
    """P1: what is held is decided by the log alone, so an edited row is corruption, and an operator uses `break`."""
    test_an_operator_can_read_who_holds_what_while_the_node_runs(directory)
    shell = sqlite3.connect(directory.path / "leases.db")
    with shell:
        assert shell.execute(change).rowcount == 1
    shell.close()
    with pytest.raises(Corrupt, match=r"leases\.db is damaged.* leave node 1 out"):
        load(directory)


# --- P10: bounded ----------------------------------------------------------------------------------------------------


def test_churn_leaves_nothing_behind(directory: DataDirectory) -> None:
    """P10: twenty thousand names come and go, and neither a row nor a growing file tells of them."""
    sizes, log_sizes = [], []
    with directory.open_lease_tables() as tables:
        state = tables.load()
        tables._database.connection.execute("PRAGMA synchronous = OFF")  # for the speed of this test alone
        state.apply(1, Lead(Ballot(1, 1)))
        state.apply(2, batch(Command(0, 0, 0, 0, OpenSession(bytes(16), 60_000, ""))))
        for start in range(1, 40_001, 400):
            claims = [Command(0, 1, start + more, start, claim_of(f"name-{start + more}")) for more in range(200)]
            acquired = state.apply(state.applied_upto + 1, batch(*claims))
            tokens = [result.token for _, result in acquired.answers if isinstance(result, ClaimStatus)]
            tables.save(state)
            assert tables._database.connection.execute("SELECT count(*) FROM claims").fetchone() == (200,)
            releases = [Command(0, 1, start + 200 + more, start, Release(token)) for more, token in enumerate(tokens)]
            state.apply(state.applied_upto + 1, batch(*releases))
            tables.save(state)
            sizes.append((directory.path / "leases.db").stat().st_size)
            log_sizes.append((directory.path / "leases.db-wal").stat().st_size)
        assert state.header.last_token == 20_000
        execute = tables._database.connection.execute
        assert execute("SELECT count(*) FROM claims").fetchone() == (0,)
    assert sizes[-1] == sizes[50], "the file still grows"
    assert max(sizes) < 4_000_000
    assert max(log_sizes) < 10_000_000
    assert load(directory).snapshot() == state.snapshot()


def batch(*commands: Command) -> Batch:
    return Batch(Ballot(1, 1), 0, tuple(map(encode, commands)))


def claim_of(name: str) -> Claim:
    return Claim("default", (Resource((name,)),), "alice", b"", 30_000, 0, detached=False)
