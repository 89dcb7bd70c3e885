"""Known bugs of those who read packets, each put in for the time of a test: hostile worlds must show every one."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

from lessor.actors import links
from lessor.core.encoding import loads
from lessor.core.errors import Malformed
from lessor.transport import packets

from .checkers.p11_hostile_input import HostileInput
from .mutants import _mutant, _replacing


@_mutant("a packet of another version is read all the same", HostileInput, 100)
def _foreign_version_read() -> Iterator[None]:
    def parts(frame: bytes, count: int) -> list[Any]:
        found = loads(frame)
        if type(found) is not list or len(found) != count:
            raise Malformed("no packet")
        return found

    with mock.patch.object(packets, "_parts", parts):
        yield


@_mutant("bytes that are no packet end the role that reads them", HostileInput, 60)
def _bad_bytes_end_the_node() -> Iterator[None]:
    def make(original: Any) -> Any:
        def read(data: bytes) -> Any:
            try:
                return original(data)
            except Malformed as error:
                raise RuntimeError from error

        return read

    with _replacing(packets, "loads", make):
        yield


@_mutant("who speaks is not compared with who is spoken of", HostileInput, 200)
def _author_not_checked() -> Iterator[None]:
    class Anybody:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    with mock.patch.object(links, "_author", return_value=Anybody()):
        yield
