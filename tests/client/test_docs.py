"""Every piece of Python in docs/leases.md runs as it stands, and its tables name every state and loss."""

import re

import lessor

from ..support.tidy import ROOT

PAGE = (ROOT / "docs/leases.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_pieces_of_the_page_run() -> None:
    assert len(BLOCKS) == 2
    with lessor.embedded() as node, lessor.connect(node.endpoints) as client:
        for block in BLOCKS:
            exec(block, {"client": client})
        assert client.leases() == []


def test_every_state_and_every_loss_is_explained() -> None:
    for word in [*lessor.LeaseState, *lessor.Loss]:
        assert f"| `{word.name}` |" in PAGE
