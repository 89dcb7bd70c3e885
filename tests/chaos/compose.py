"""A cluster under compose, as the chaos tests drive it: nodes and clients that can be killed and started again."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ..support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "lessor:chaos"  # not the name that compose.yaml gives by itself: a test replaces nobody's image


def compose_command() -> list[str]:
    """Find the command that runs compose, or skip the test, saying what this machine lacks."""
    if not shutil.which("docker"):
        pytest.skip("no `docker` command on this machine")
    if run(["docker", "info"], check=False).returncode != 0:
        pytest.skip("no Docker engine answers on this machine")
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and run([*command, "version"], check=False).returncode == 0:
            return command
    pytest.skip("neither `docker compose` nor `docker-compose` on this machine")


def run(command: list[str], *, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LESSOR_IMAGE": IMAGE}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done


class Cluster:
    """Three nodes in a compose project of their own, and one container in their network that runs `lessor` commands."""

    def __init__(self, project: str) -> None:
        self.project = project
        self.command = [*compose_command(), "--project-name", project]
        self.nodes = (1, 2, 3)
        self.clients: list[str] = []

    def silence_name_servers(self, container: str) -> None:
        """Have every lookup of a name that Docker does not know hang in this container: that of a dead node, say."""
        process = run(["docker", "inspect", "--format", "{{.State.Pid}}", container]).stdout.strip()
        rule = ["iptables", "-I", "OUTPUT", "-p", "udp", "--dport", "53", "!", "-d", "127.0.0.0/8", "-j", "DROP"]
        run(["nsenter", "--target", process, "--net", *rule])

    def compose(self, *arguments: str, timeout: float = 60, check: bool = True) -> str:
        return run([*self.command, *arguments], timeout=timeout, check=check).stdout

    def start(self) -> None:
        self.compose("build", timeout=400)
        self.compose("up", "-d", timeout=120)
        self.speaker = self.client("speaker", "--entrypoint", "sleep", "client", "infinity")

    def remove(self) -> None:
        """Leave nothing behind, and print the log, which pytest shows if the test has failed."""
        print(self.compose("logs", "--no-color", "--tail", "100", check=False))
        for name in self.clients:
            run(["docker", "rm", "--force", "--volumes", name], check=False)
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "2", timeout=120)

    def client(self, name: str, *arguments: str) -> str:
        """Start a container beside the nodes that goes on running, and return its name."""
        name = f"{self.project}-{name}"
        self.clients.append(name)
        self.compose("run", "--detach", "--no-deps", "--name", name, *arguments)
        return name

    def lessor(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run one `lessor` command to its end; what its exit code means is for the caller to say."""
        return run(["docker", "exec", self.speaker, "lessor", *arguments], check=False, timeout=timeout)

    def ask(self, *arguments: str) -> Any:
        """Run a `lessor` command that prints JSON, or return None if it printed none."""
        try:
            return json.loads(self.lessor(*arguments, "--json").stdout)
        except json.JSONDecodeError:
            return None

    def leader(self, *, other_than: int | None = None) -> int:
        """Wait until one node, and one that is not `other_than`, leads."""

        def found() -> int | None:
            nodes = (self.ask("status") or {}).get("nodes", [])
            leaders = [node["id"] for node in nodes if node["role"] == "leader" and node["id"] != other_than]
            return leaders[0] if len(leaders) == 1 else None

        return until(found, f"a leader other than {other_than}", timeout=60)

    def role(self, node: int) -> str | None:
        nodes = (self.ask("status") or {}).get("nodes", [])
        return next((found["role"] for found in nodes if found["id"] == node), None)

    def container(self, node: int) -> str:
        return self.compose("ps", "-q", f"node{node}").strip()

    def kill(self, node: int) -> None:
        run(["docker", "kill", self.container(node)])

    def restart(self, node: int) -> None:
        self.compose("start", f"node{node}")
