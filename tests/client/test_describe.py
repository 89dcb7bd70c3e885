"""Looking at queues that do not fit into one answer."""

import contextlib
import threading

import lessor

from ..support.waiting import until

DATA = bytes(60_000)


def wait_until_closed(client: lessor.Client) -> None:
    """Stand in the queue until the client is closed."""
    with contextlib.suppress(lessor.ClientClosed):
        client.acquire("x", data=DATA, timeout=60)


def test_a_queue_too_long_for_one_answer_is_described_whole() -> None:
    with lessor.embedded() as node, lessor.connect(node.endpoints) as client:
        held = client.acquire("x", data=DATA)
        other = client.acquire("y", data=DATA)
        for _ in range(12):
            threading.Thread(target=wait_until_closed, args=(client,), daemon=True).start()
        found = until(lambda: found if len(found := client.describe("x")) == 13 else None, "twelve wait")
        assert found[0].token == held.token
        assert [view.claim for view in found] == sorted(view.claim for view in found)
        assert {view.name for view in found} == {"x"}
        assert other.held
