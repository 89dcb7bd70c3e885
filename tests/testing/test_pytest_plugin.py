"""The fixtures as a user has them: in a pytest of his own, which knows them since lessor is installed."""

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
        command = [sys.executable, "-m", "pytest", "-W", "error", "--strict-markers", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, "--basetemp", str(self.tests.parent / "base"), *options, "test_it.py"],
            cwd=self.tests,
            env={"TMPDIR": str(self.temporary), "PATH": "/usr/bin:/bin"},
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


def test_the_fixtures_give_clusters_and_fail_a_test_whose_node_failed_and_nothing_is_left(project: Project) -> None:
    counts, said = project.run(
        """
import pytest
from lessor.actors.acceptor import AcceptorShell

def test_one_node(lessor_node):
    assert lessor_node.nodes == [1]

@pytest.mark.lessor(nodes=2)
def test_two_nodes(lessor_cluster):
    assert lessor_cluster.nodes == [1, 2]
    1 / 0

@pytest.mark.lessor(0)
def test_no_nodes(lessor_cluster):
    pass

def test_of_a_node_that_fails(lessor_node, monkeypatch):
    def fail(*_): raise OSError("the disk is gone")
    monkeypatch.setattr(AcceptorShell, "commit", fail)
    with pytest.raises(Exception): lessor_node.client(request_timeout=0.2).try_acquire("job")
    with pytest.raises(Exception, match="has ended"): lessor_node._wait_for(lambda: False, "it", 10)
"""
    )
    assert counts == {"passed": 2, "failed": 1, "errors": 2}, said
    assert "ZeroDivisionError" in said
    assert "a cluster has 1 to 9 nodes, not 0" in said
    assert "node 1 has ended: its acceptor failed: the disk is gone" in said
    assert list(project.temporary.iterdir()) == []


def test_the_fixtures_say_what_to_install_if_the_server_is_missing(project: Project) -> None:
    counts, said = project.run(
        """
import sys
sys.modules["pykka"] = None

def test_it(lessor_cluster):
    pass
"""
    )
    assert counts == {"error": 1}, said
    assert 'lessor.testing runs nodes: pip install "lessor[testing]"' in said


def test_the_fixtures_are_known_with_their_marker_and_cost_those_nothing_who_do_not_use_them(project: Project) -> None:
    counts, said = project.run(
        """
import sys

def test_it():
    assert "lessor.testing.pytest_plugin" in sys.modules
    heavy = {"zmq", "cbor2", "pykka", "sqlite3", "sqlite_utils", "lessor.core.limits"}
    assert not heavy & set(sys.modules)
"""
    )
    assert counts == {"passed": 1}, said
    assert "lessor_cluster" in project.run("", "--fixtures")[1]
    assert "@pytest.mark.lessor(nodes=3, processes=False)" in project.run("", "--markers")[1]
