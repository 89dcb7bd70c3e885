"""Every piece of Python in docs/recipes.md runs as it stands and says what the page lets expect."""

import re
import threading
from typing import Any

import pytest

import lessor
from lessor.client.recipes.sync_groups import Recipes
from lessor.core.limits import EVENTS_KEPT

from ...support.tidy import ROOT

PAGE = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)

SAID = """\
leading with token 1
the leader is at 10.0.0.1:81
now None
working on 4
reported and then SKIPPED
['10.0.0.1:80']
granted me
amended me
released me
"""


def test_the_pieces_of_the_page_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(BLOCKS) == 5
    with lessor.embedded() as node, lessor.connect(node.endpoints, holder="me") as client:
        names: dict[str, Any] = {"client": client, "lessor": lessor, "threading": threading}
        for block in BLOCKS:
            exec(block, names)
        assert [lease.name for lease in client.leases()] == ["nightly-report.started"]
    assert capsys.readouterr().out == SAID


def test_the_page_names_every_recipe_and_the_bound_that_it_states() -> None:
    offered = [name for name in vars(Recipes) if not name.startswith("_")]
    assert len(offered) > 5
    assert [name for name in offered if name not in PAGE] == []
    assert f"{EVENTS_KEPT:,} events" in PAGE
