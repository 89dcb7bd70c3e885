"""The fixtures as a user has them: in a pytest of his own, which knows them since lessor is installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs" / "testing.md"


class Project:
    """The tests of a user, in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.tests = directory / "tests"
        self.temporary = directory / "temporary"
        for made in (self.tests, self.temporary):
            made.mkdir()

    def run(self, source: str, *options: str) -> tuple[dict[str, int], str]:
        """Run a file of tests; return how many passed, failed and so on, and what pytest said."""
        (self.tests / "test_it.py").write_text(source, encoding="utf-8")
        without = [part for name in ("cacheprovider", "xdist", "hypothesispytest") for part in ("-p", f"no:{name}")]
        command = [sys.executable, "-m", "pytest", "-W", "error", "--strict-markers", *without]
        done = subprocess.run(
            [*command, "--basetemp", str(self.tests.parent / "base"), *options, "test_it.py"],
            cwd=self.tests,
            env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
            | {"TMPDIR": str(self.temporary)},
            capture_output=True,
            text=True,
            check=False,
        )
        counts = re.findall(r"(\d+) (passed|failed|errors?)", done.stdout.splitlines()[-1])
        return {name: int(count) for count, name in counts}, done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_example_of_the_documentation_passes_as_it_stands(project: Project) -> None:
    [example] = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    counts, said = project.run(example)
    assert counts == {"passed": example.count("def test_")}, said
    assert list(project.temporary.iterdir()) == []


def test_the_fixtures_cost_nothing_until_they_are_used_and_leave_nothing_however_a_test_ends(project: Project) -> None:
    counts, said = project.run(
        """
import sys
import pytest

def test_that_uses_none(pytestconfig):
    heavy = {"zmq", "cbor2", "pykka", "sqlite3", "sqlite_utils", "lessor.core.limits", "lessor.testing.cluster"}
    assert not heavy & set(sys.modules)
    assert any(line.startswith("lessor(nodes=3, processes=False): ") for line in pytestconfig.getini("markers"))

def test_without_the_server(request, monkeypatch):
    monkeypatch.setitem(sys.modules, "pykka", None)
    request.getfixturevalue("lessor_node")

def test_of_one_node(lessor_node):
    assert lessor_node.nodes == [1]

@pytest.mark.lessor(nodes=2)
def test_of_two_nodes_that_fails(lessor_cluster):
    assert lessor_cluster.nodes == [1, 2]
    1 / 0

@pytest.mark.lessor(0)
def test_of_no_nodes(lessor_cluster):
    pass

def test_of_a_node_that_fails(lessor_node, monkeypatch):
    from lessor.actors.acceptor import AcceptorShell
    def fail(*_): raise OSError("the disk is gone")
    monkeypatch.setattr(AcceptorShell, "commit", fail)
    client = lessor_node.client(request_timeout=0.2)
    def ask():
        with pytest.raises(ConnectionError):
            client.try_acquire("job")
    with pytest.raises(Exception, match="has ended"):
        lessor_node._wait_for(ask, "it", 60)
"""
    )
    assert counts == {"passed": 3, "failed": 2, "errors": 2}, said
    assert 'ImportError: lessor.testing runs nodes: pip install "lessor[testing]"' in said
    assert "ZeroDivisionError" in said
    assert "a cluster has 1 to 9 nodes, not 0" in said
    assert "node 1 has ended: its acceptor failed: the disk is gone" in said
    assert list(project.temporary.iterdir()) == []
