"""`lessor demo`: its detector of overlaps, which must be able to fail, and the demo itself."""

import io
import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from lessor.cli import exit_codes
from lessor.cli.demo.command import Summary
from lessor.cli.demo.ledger import Ledger, LedgerReader, Record, Verdict, judge
from lessor.cli.demo.story import Story

from ..support.waiting import until
from .commands import finish, lessor_process, of_this_machine

MS = 1_000_000


def records(*lines: tuple[object, ...]) -> list[Record]:
    """Records as (kind, token, milliseconds), or with a detail."""
    return [
        Record(str(kind), int(str(token)), "A", int(str(at)) * MS, *map(str, rest)) for kind, token, at, *rest in lines
    ]


GOOD = (("enter", 1, 0), ("leave", 1, 10), ("enter", 2, 20), ("leave", 2, 30), ("enter", 5, 40), ("leave", 5, 50))


# The detector.


def test_holds_one_after_the_other_are_fine() -> None:
    verdict = judge(records(*GOOD))
    assert (verdict.acquisitions, verdict.overlaps, verdict.tokens_increasing) == (3, 0, True)
    assert verdict.spans[2] == (20 * MS, 30 * MS, "A")


@pytest.mark.parametrize(
    ("lines", "overlaps"),
    [
        pytest.param((("enter", 1, 0), ("enter", 2, 5), ("leave", 1, 9), ("leave", 2, 9)), 1, id="by the order"),
        pytest.param((("enter", 1, 0), ("leave", 1, 10), ("enter", 2, 9), ("leave", 2, 20)), 1, id="by the times"),
        pytest.param((("enter", 1, 0), ("enter", 2, 5), ("leave", 2, 6)), 1, id="one that never leaves"),
        pytest.param((("enter", 1, 0), ("enter", 2, 5), ("enter", 3, 6)), 2, id="three at once"),
        pytest.param((*GOOD, ("overlap", 5, 50, "traces")), 1, id="as a client has noticed"),
        pytest.param((*GOOD, ("overlap", 5, 50), ("overlap", 5, 51)), 1, id="noticed twice is one"),
    ],
)
def test_each_kind_of_overlap_is_counted(lines: tuple[tuple[object, ...], ...], overlaps: int) -> None:
    assert judge(records(*lines)).overlaps == overlaps


@pytest.mark.parametrize(
    "lines",
    [
        (("enter", 2, 0), ("leave", 2, 1), ("enter", 1, 2), ("leave", 1, 3)),
        (("enter", 2, 0), ("leave", 2, 1), ("enter", 2, 2), ("leave", 2, 3)),
        (*GOOD, ("stale", 5, 50, "the file has seen token 7")),
    ],
)
def test_tokens_that_do_not_grow_are_noticed(lines: tuple[tuple[object, ...], ...]) -> None:
    assert not judge(records(*lines)).tokens_increasing


def test_the_hold_at_a_moment_is_found() -> None:
    verdict = judge(records(*GOOD))
    assert verdict.held_at(22 * MS, 24 * MS) == 2
    assert verdict.held_at(29 * MS, 31 * MS) == 0
    assert verdict.held_at(32 * MS, 33 * MS) == 0


def test_what_became_of_each_lease_is_kept() -> None:
    released = (("released", 1, 11, "held"), ("released", 2, 31, "not held"), ("lost", 5, 49, "it expired"))
    verdict = judge(records(*GOOD, *released, ("failed", 0, 60, "no answer")))
    assert verdict.released == {1: True, 2: False}
    assert verdict.lost == 1
    assert verdict.failures == ["A: no answer"]


def test_the_outage_is_the_longest_time_without_a_grant_from_the_kill_on() -> None:
    verdict = Verdict(entered_ns=[at * MS for at in (0, 500, 510, 520, 820, 830)])
    assert verdict.longest_gap_ns(525 * MS, 850 * MS) == 300 * MS, "the long one at the beginning was before the kill"
    assert verdict.longest_gap_ns(525 * MS, 2_830 * MS) == 2_000 * MS, "a service that did not come back"
    assert Verdict().longest_gap_ns(0, 10) == 0


def contend(directory: Path, lock: AbstractContextManager[object], work: Callable[[], object]) -> Verdict:
    """Four threads in the ledger, under this lock, and what each does there."""
    tokens = iter(range(1, 1_000_000))
    draw = threading.Lock()
    barrier = threading.Barrier(4)

    def run(client: str) -> None:
        ledger = Ledger(directory, client)
        barrier.wait()
        for _ in range(100):
            with lock:
                with draw:
                    token = next(tokens)
                ledger.enter(token)
                work()
                ledger.leave(token)
        ledger.close()

    threads = [threading.Thread(target=run, args=(client,)) for client in "ABCD"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = LedgerReader(directory)
    reader.read()
    return judge(reader.records)


def test_the_detector_finds_overlaps_where_there_is_no_lock(tmp_path: Path) -> None:
    """The mutant: without it a detector that never fires would look just as good."""
    verdict = contend(tmp_path, nullcontext(), threading.Barrier(4).wait)  # each time all four are there at once
    assert verdict.acquisitions == 400
    assert verdict.overlaps > 0


def test_the_detector_is_silent_where_there_is_one(tmp_path: Path) -> None:
    verdict = contend(tmp_path, threading.Lock(), os.sched_yield)
    assert (verdict.acquisitions, verdict.overlaps, verdict.tokens_increasing) == (400, 0, True)


def test_a_client_notices_another_one_by_its_traces(tmp_path: Path) -> None:
    one, other = Ledger(tmp_path, "A"), Ledger(tmp_path, "B")
    one.enter(1)
    other.enter(2)
    one.leave(1)
    other.leave(2)
    reader = LedgerReader(tmp_path)
    found = [(record.client, record.detail) for record in reader.read() if record.kind == "overlap"]
    assert found == [
        ("B", "somebody else's marker is there"),
        ("A", "token 2 was written meanwhile"),
        ("B", "somebody else has removed the marker"),
    ]
    assert reader.read() == []
    one.close()
    other.close()


def test_a_reader_takes_no_half_of_a_line(tmp_path: Path) -> None:
    reader = LedgerReader(tmp_path)
    assert reader.read() == []
    (tmp_path / "ledger").write_text("enter 1 A 5\nleave 1 A")
    assert [record.kind for record in reader.read()] == ["enter"]
    (tmp_path / "ledger").write_text("enter 1 A 5\nleave 1 A 9 some words\n")
    assert reader.read() == [Record("leave", 1, "A", 9, "some words")]


@pytest.mark.parametrize(
    ("summary", "kept"),
    [
        (Summary(10, 0, tokens_increasing=True, lease_survived=True, outage_ms=9_999), True),
        (Summary(0, 0, tokens_increasing=True, lease_survived=True, outage_ms=0), False),
        (Summary(10, 1, tokens_increasing=True, lease_survived=True, outage_ms=0), False),
        (Summary(10, 0, tokens_increasing=False, lease_survived=True, outage_ms=0), False),
        (Summary(10, 0, tokens_increasing=True, lease_survived=False, outage_ms=0), False),
    ],
)
def test_any_broken_promise_fails_the_demo(summary: Summary, *, kept: bool) -> None:
    assert summary.kept is kept


def test_a_story_is_plain_where_nobody_watches() -> None:
    stream = io.StringIO()
    story = Story(stream)
    story.live("alive", [1, 2])
    story.say("turn", "of the story")
    assert stream.getvalue() == "  turn       of the story\n"
    silent = io.StringIO()
    Story(silent, silent=True).say("turn", "of the story")
    assert silent.getvalue() == ""


def test_only_nothing_looks_like_nothing() -> None:
    story = Story(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert story.bars([0, 1, 50, 100]) == " ▁▄█"
    assert story.bars([0, 0]) == "  "
    assert Story(io.TextIOWrapper(io.BytesIO(), encoding="ascii")).bars([0, 1, 100]) == " .@"


# The demo.


@pytest.mark.system
def test_the_demo_keeps_every_promise_and_leaves_nothing_behind(tmp_path: Path) -> None:
    process = lessor_process("demo", "--seconds", "8", "--json", env=os.environ | {"TMPDIR": str(tmp_path)})
    done = finish(process)
    assert done.code == 0, done
    assert set(done.json) == {"acquisitions", "overlaps", "tokens_increasing", "lease_survived", "outage_ms"}
    assert done.json["acquisitions"] > 0
    assert (done.json["overlaps"], done.json["tokens_increasing"], done.json["lease_survived"]) == (0, True, True)
    assert done.json["outage_ms"] > 0
    assert done.err == ""
    assert list(tmp_path.iterdir()) == []
    assert of_this_machine(str(tmp_path)) == []


@pytest.mark.deep
@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_demo_ends_all_of_it(number: signal.Signals, tmp_path: Path) -> None:
    process = lessor_process("demo", "--seconds", "40", env=os.environ | {"TMPDIR": str(tmp_path)})
    assert process.stdout is not None
    while "contend" not in process.stdout.readline():
        pass
    assert len(of_this_machine(str(tmp_path))) >= 3, "the nodes are running"
    process.send_signal(number)
    code = finish(process).code
    until(lambda: not of_this_machine(str(tmp_path)), "every process has ended")
    if number == signal.SIGKILL:
        return  # nobody is left to clean up
    assert code == exit_codes.SIGNALLED + number
    assert list(tmp_path.iterdir()) == []


@pytest.mark.system
def test_ctrl_c_as_soon_as_its_directory_is_there_leaves_nothing(tmp_path: Path) -> None:
    process = lessor_process("demo", env=os.environ | {"TMPDIR": str(tmp_path)})
    until(lambda: list(tmp_path.iterdir()), "the directory is there", every=0)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == exit_codes.INTERRUPTED
    assert done.err == "lessor demo: interrupted; every process has ended\n"
    assert list(tmp_path.iterdir()) == []
