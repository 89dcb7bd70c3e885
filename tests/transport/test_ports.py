"""Finding free ports: apart from each other, never one that is taken, out of the kernel's way, and quickly."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from lessor.core import limits
from lessor.transport import ports
from lessor.transport.ports import AddressInUse, ReservedPorts, free_base_port, outgoing_ports

HOST = "127.0.0.1"


def test_ports_are_apart_and_out_of_the_way_of_outgoing_connections() -> None:
    with closing(ReservedPorts(5)) as reserved:
        bases = reserved.bases
    assert all(later - earlier >= limits.PORTS_PER_NODE for earlier, later in pairwise(bases))
    low, high = outgoing_ports()
    assert not [base for base in bases if low <= base + limits.PORTS_PER_NODE - 1 and base <= high]


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The only base that may be offered here, and nowhere else: reservations here have names of their own."""
    with closing(ReservedPorts(1)) as reserved:
        [base] = reserved.bases
        monkeypatch.setattr(ports, "RESERVATION", f"\0test-{os.getpid()}-{{}}")
        monkeypatch.setattr(ports, "LOWEST_PORT", base)
        monkeypatch.setattr(ports, "PORT_MAX", base + limits.PORTS_PER_NODE + 1)
        yield base


def test_a_base_is_not_offered_while_one_of_its_ports_is_taken(base: int) -> None:
    assert free_base_port() == base
    for place in range(limits.PORTS_PER_NODE):
        with socket.create_server((HOST, base + place)), pytest.raises(AddressInUse, match="1 times 5 free ports"):
            free_base_port()
    with pytest.raises(AddressInUse):
        ReservedPorts(2)


RESERVE = r"""
import sys
from lessor.transport import ports
ports.RESERVATION, ports.LOWEST_PORT, ports.PORT_MAX = "\0" + sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
held = ports.ReservedPorts(1)
print(*held.bases, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere chance alone must do")
def test_what_one_process_has_reserved_no_other_is_offered_until_it_has_ended(base: int) -> None:
    """Two nodes were offered the same ports, and the second one to start found them taken."""
    words = [ports.RESERVATION.removeprefix("\0"), str(ports.LOWEST_PORT), str(ports.PORT_MAX)]
    command = [sys.executable, "-c", RESERVE, *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert int(other.stdout.readline()) == base
        with pytest.raises(AddressInUse):
            free_base_port()
        other.stdin.close()
    assert free_base_port() == base
    with closing(ReservedPorts(1)), pytest.raises(AddressInUse):
        free_base_port()
    assert free_base_port() == base


def test_the_kernels_range_is_read_once_and_only_the_ports_offered_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start of a local cluster was half a second slower when each candidate was looked up by itself."""
    reads: list[Path] = []
    tried: list[int] = []
    read, is_free = Path.read_text, ports._is_free

    def reading(path: Path, encoding: str | None = None) -> str:
        reads.append(path)
        return read(path, encoding)

    def trying(host: str, port: int) -> bool:
        tried.append(port)
        return is_free(host, port)

    monkeypatch.setattr(Path, "read_text", reading)
    monkeypatch.setattr(ports, "_is_free", trying)
    ReservedPorts(3).close()
    assert reads == [ports.PORT_RANGE]
    assert len(tried) < 20 * limits.PORTS_PER_NODE


def test_where_the_kernel_takes_every_port_or_does_not_say_there_are_ports_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = tmp_path / "range"
    monkeypatch.setattr(ports, "PORT_RANGE", said)
    assert outgoing_ports() == ports.PORT_RANGE_ELSEWHERE
    said.write_text("1024\t65535\n")
    with closing(ReservedPorts(2)) as reserved:
        assert len(reserved.bases) == 2
