"""`lessor bench`: what it prints, for its own cluster and for a service that is there."""

import pytest

from lessor.cli.bench import Run as BenchRun
from lessor.cli.bench import _mean_batch, _quantile_ms

from .commands import Run, run_process


def test_quantiles_are_those_of_the_samples() -> None:
    samples = list(range(1000, 101_000, 1000))  # 1 ms to 100 ms
    assert _quantile_ms(samples, 0.5) == 51
    assert _quantile_ms(samples, 0.99) == 100
    assert _quantile_ms([], 0.5) == 0


def test_the_mean_batch_is_that_of_the_run() -> None:
    before = {"batches": 10, "batched_commands": 100}
    assert _mean_batch(before, {"batches": 20, "batched_commands": 150}) == 5
    assert _mean_batch(before, before) is None
    assert _mean_batch({}, {}) is None


@pytest.mark.system
def test_it_measures_a_cluster_of_its_own() -> None:
    done = run_process("bench", "--nodes", "1", "--workers", "1,3", "--processes", "2", "--seconds", "0.5", "--json")
    assert done.code == 0, done.err
    assert (done.json["nodes"], done.json["seconds"]) == (1, 0.5)
    assert done.json["filesystem"]
    one, three = done.json["runs"]
    assert set(one) == set(BenchRun.__dataclass_fields__)
    assert (one["workers"], three["workers"]) == (1, 3)
    assert set(one["cpu"]) == {"node1", "client1"}
    assert set(three["cpu"]) == {"node1", "client1", "client2"}
    for run in (one, three):
        assert run["pairs_per_s"] > 0
        assert 0 < run["acquire_p50_ms"] <= run["acquire_p99_ms"]
        assert (run["errors"], run["leader"]) == (0, 1)


@pytest.mark.system
def test_it_measures_a_service_that_is_there(service: str, run: Run) -> None:
    done = run("bench", "--endpoints", service, "--workers", "2", "--seconds", "300ms")
    assert done.code == 0, done.err
    first, header, line = done.out.splitlines()
    assert service in first
    assert header.split()[:2] == ["WORKERS", "PAIRS/S"]
    assert line.split()[0] == "2"
