"""`lessor bench`: what it prints, for its own cluster and for a service that is there."""

from pathlib import Path

import pytest

import lessor
from lessor.cli import exit_codes
from lessor.cli.bench import Run as BenchRun
from lessor.cli.bench import _mean_batch, _quantile_ms

from ..support.waiting import until
from .commands import Done, Run, run_process


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
    def measured() -> Done | None:
        options = ("--workers", "1,3", "--processes", "2", "--seconds", "0.5", "--json")
        done = run_process("bench", "--nodes", "1", *options)
        assert done.code == 0, done.err
        # half a second is short for a machine that stands still
        return done if all(run["pairs_per_s"] for run in done.json["runs"]) else None

    done = until(measured, "something to be done")
    assert (done.json["endpoints"], done.json["nodes"], done.json["seconds"]) == (None, 1, 0.5)
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
    assert first.startswith(f"measuring the service at {service}; ")
    assert header.split()[:2] == ["WORKERS", "PAIRS/S"]
    assert line.split()[0] == "2"


@pytest.mark.system
def test_a_service_of_the_environment_is_not_measured(service: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever works on a live service and types `lessor bench` must not load it by that."""
    monkeypatch.setenv("LESSOR_ENDPOINTS", service)
    with lessor.connect(service) as client:
        before = client.acquire("x", ttl=5).token
        done = run("bench", "--nodes", "1", "--workers", "1", "--seconds", "300ms")
        assert done.code == 0, done.err
        assert client.acquire("y", ttl=5).token == before + 1, "nobody else was granted anything there"
    first = done.out.splitlines()[0]
    assert first.startswith("measuring a cluster of its own, 1 node(s) on this machine, data on ")
    assert f"not the service of LESSOR_ENDPOINTS (for that, give --endpoints {service})" in first


def test_a_service_that_is_away_is_told_before_it_is_measured(run: Run) -> None:
    done = run("bench", "--endpoints", "tcp://127.0.0.1:9")
    assert (done.code, done.out) == (exit_codes.UNAVAILABLE, "")
    assert "no node answers at tcp://127.0.0.1:9" in done.err


@pytest.mark.parametrize("by_flag", [True, False])
def test_a_directory_that_cannot_be_used_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, by_flag: bool
) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    for path, words in ((tmp_path / "absent", "is not there; make it first"), (plain, "is no directory")):
        monkeypatch.setenv("LESSOR_DIRECTORY", "" if by_flag else str(path))
        done = run("bench", *(("--directory", str(path)) if by_flag else ()))
        assert (done.code, done.out) == (exit_codes.USAGE, "")
        assert f"'{path}' {words}" in done.err
        assert ("--directory" if by_flag else "LESSOR_DIRECTORY") in done.err.splitlines()[0]
