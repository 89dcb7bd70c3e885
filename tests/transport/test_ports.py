"""Finding free ports: apart from each other, never one that is taken, out of the kernel's way, and quickly."""

import socket
from itertools import pairwise
from pathlib import Path

import pytest

from lessor.core import limits
from lessor.transport import ports
from lessor.transport.ports import AddressInUse, free_base_port, free_base_ports, outgoing_ports

HOST = "127.0.0.1"


def test_ports_are_apart_and_out_of_the_way_of_outgoing_connections() -> None:
    bases = free_base_ports(5)
    assert all(later - earlier >= limits.PORTS_PER_NODE for earlier, later in pairwise(bases))
    low, high = outgoing_ports()
    assert not [base for base in bases if low <= base + limits.PORTS_PER_NODE - 1 and base <= high]


def test_a_base_is_not_offered_while_one_of_its_ports_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    base = free_base_port()
    monkeypatch.setattr(ports, "LOWEST_PORT", base)
    monkeypatch.setattr(ports, "PORT_MAX", base + limits.PORTS_PER_NODE + 1)
    assert free_base_ports(1) == [base]
    for place in range(limits.PORTS_PER_NODE):
        with socket.create_server((HOST, base + place)), pytest.raises(AddressInUse, match="1 times 5 free ports"):
            free_base_ports(1)
    with pytest.raises(AddressInUse):
        free_base_ports(2)


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
    free_base_ports(3)
    assert reads == [ports.PORT_RANGE]
    assert len(tried) < 20 * limits.PORTS_PER_NODE


def test_where_the_kernel_takes_every_port_or_does_not_say_there_are_ports_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = tmp_path / "range"
    monkeypatch.setattr(ports, "PORT_RANGE", said)
    assert outgoing_ports() == ports.PORT_RANGE_ELSEWHERE
    said.write_text("1024\t65535\n")
    assert len(free_base_ports(2)) == 2
