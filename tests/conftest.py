"""What counts as deep, beside the tests that say it themselves: whole folders of real processes, and long variants."""

from collections.abc import Sequence

import pytest

DEEP = (
    "tests/bench/",
    "tests/system/",
    "tests/testing/",
    "tests/examples/",
    "tests/actors/test_endless_messages.py",
    "tests/actors/test_hostile_input.py",
    "tests/actors/test_peers.py",
    "tests/cli/test_bench.py",
    "tests/cli/test_demo.py",
    "tests/cli/test_local_cluster.py",
    "tests/cli/test_lock.py",
    "tests/cli/test_main.py",
    "tests/cli/test_serve.py",
    "tests/cli/test_watch.py",
    "tests/client/test_cancel.py",
    "tests/client/test_ending.py",
    "tests/client/test_keeper.py",
    "tests/client/test_protocol_faults.py",
    "tests/client/test_protocol_network.py",
    "tests/client/test_watches.py",
    "tests/compat/test_real_nodes.py",
    "tests/complaints/test_b_renewal.py",
    "tests/fencing/",
    "tests/sim/test_exhaustive.py",
    "tests/sim/test_shells.py",
    "tests/sim/test_world.py::test_a_failing_world_is_made_smaller",
    "tests/storage/test_directory.py::test_a_first_opening_that_was_killed_at_any_line",
    "tests/storage/test_lease_tables.py::test_churn",
)
"""By how a test's name begins. They run with `make deep`, so that `make test` stays short."""

WAYS = ("[restarted", "[new leader", "-restarted", "-new leader")
"""The same behaviours through restarts and elections; `make test` has them plain."""


def pytest_configure(config: pytest.Config) -> None:
    """Run a test that is named by its own name, deep or not: so does the line that repeats what failed."""
    given = config.invocation_params.args
    if any("::" in argument for argument in given) and not any(argument.startswith("-m") for argument in given):
        config.option.markexpr = ""


@pytest.hookimpl(tryfirst=True)  # before those are taken out that are not asked for
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark what is deep."""
    for item in items:
        way = item.nodeid.startswith("tests/compat/") and any(word in item.nodeid for word in WAYS)
        if way or item.nodeid.startswith(DEEP):
            item.add_marker(pytest.mark.deep)
