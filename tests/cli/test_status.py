"""`lessor status` against a service in this process, and against nobody."""

import pytest

import lessor
from lessor.cli import exit_codes

from ..support.waiting import until
from .commands import Run

KEYS = set(
    "id endpoint error cluster role ballot leader leader_endpoint chosen applied clock_ms held waiting sessions "
    "revision version counters namespaces semaphores pins registers lapsed".split()
)
NOBODY = "tcp://127.0.0.1:9"


@pytest.fixture
def run(run: Run) -> Run:
    """Run `lessor status` and wait for its answers as long as need be: who cannot be reached is known at once."""
    return lambda *words: run(*words, "--request-timeout", "60")


def test_a_healthy_node_is_told_with_everything_it_knows(service: str, run: Run) -> None:
    done = run("status", "--json", "--endpoints", service)
    assert done.code == 0
    (node,) = done.json["nodes"]
    assert set(node) == KEYS
    assert (node["id"], node["role"], node["leader"], node["error"]) == (1, "leader", 1, None)
    assert (node["endpoint"], node["leader_endpoint"]) == (service, service)
    assert node["ballot"].endswith(".1")
    assert node["applied"] <= node["chosen"]
    assert isinstance(node["counters"], dict)


def test_the_table_has_a_line_for_each_endpoint(service: str, run: Run) -> None:
    done = run("status", "--endpoints", f"{service},{NOBODY}")
    header, answers, silent, kept = done.out.splitlines()
    assert header.split()[:5] == ["NODE", "ENDPOINT", "ROLE", "BALLOT", "LEADER"]
    assert answers.split()[:3] == ["1", service, "leader"]
    assert silent.split()[:2] == ["?", NOBODY]
    assert "cannot be reached" in silent
    assert kept.startswith("kept beside them: ")


def test_what_is_kept_beside_leases_is_counted(service: str, client: lessor.Client, run: Run) -> None:
    client.create_namespace("counted")
    client.create_semaphore("seats", 2)
    client.pin("x", "me")
    lease = client.acquire("x")
    lease.write(b"state")
    client.break_lease(lease.token, "for the count")

    def counts() -> bool:  # a node tells of itself what it was some moments ago
        (node,) = run("status", "--json", "--endpoints", service).json["nodes"]
        return [node[name] for name in ("namespaces", "semaphores", "pins", "registers", "lapsed")] == [1] * 5

    until(counts, "each was counted")
    assert "1 namespace, 1 semaphore, 1 pin, 1 register; 1 lease lapsed" in run("status", "--endpoints", service).out


def test_how_full_the_state_is_can_be_seen(service: str, client: lessor.Client, run: Run) -> None:
    lease = client.acquire("x")
    lease.write(b"z" * 60_000)

    def told() -> bool:
        (node,) = run("status", "--json", "--endpoints", service).json["nodes"]
        return bool(60_000 < node["counters"]["state_bytes"] < 70_000)

    until(told, "the bytes were counted")


def test_a_node_that_does_not_answer_has_the_same_keys(run: Run) -> None:
    (node,) = run("status", "--json", "--endpoints", NOBODY).json["nodes"]
    assert set(node) == KEYS
    assert node["endpoint"] == NOBODY
    assert node["error"]
    assert all(value is None for key, value in node.items() if key not in ("endpoint", "error"))


def test_without_a_majority_of_answers_the_exit_code_says_no(service: str, run: Run) -> None:
    """A node that answers for itself is no proof that the service works."""
    assert run("status", "--endpoints", f"{service},{NOBODY}").code == exit_codes.FAILED
    done = run("status", "--endpoints", f"{service},{NOBODY},tcp://127.0.0.1:19")
    assert done.code == exit_codes.FAILED
    assert "only 1 of 3" in done.err
    done = run("status", "--endpoints", NOBODY)
    assert done.code == exit_codes.FAILED
    assert "no node answers" in done.err


def test_the_counters_are_shown_when_asked_for(service: str, run: Run) -> None:
    done = run("status", "--counters", "--endpoints", service)
    assert "COUNTER" in done.out
    assert "journal_commits" in done.out
