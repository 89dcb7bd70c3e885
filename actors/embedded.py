"""An embedded service: one node in this process, the same code as a node of a cluster."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Self

from ..core.errors import BadRequest
from ..transport.ports import AddressInUse, free_base_port
from .node import Node, NodeConfig

TRIES = 20


class Embedded:
    """A one-node service in this process; stops, and removes a temporary directory, at the end of `with`."""

    def __init__(self, data: str | Path | None = None, port: int | None = None) -> None:
        """Start the service.

        Args:
            data: the directory that keeps its state; None for a temporary one.
            port: its base port on the loopback interface; None for a free one.

        Raises:
            AddressInUse: the port, or one of the four above it, is taken; or none was given, and none are free.
            StorageFailed: the directory cannot be made, read or written.
            ForeignDatabase, Corrupt: the directory is not usable.
            BadRequest: it is no path, or the port is none.
        """
        given = None if data is None else _checked(data)
        self._temporary = tempfile.mkdtemp(prefix="lessor-") if given is None else None
        self._node = self._start(given or Path(str(self._temporary)), port)

    def _start(self, directory: Path, port: int | None) -> Node:
        for attempt in range(TRIES):
            try:
                base = port if port is not None else free_base_port()
                return Node(NodeConfig(1, {1: f"tcp://127.0.0.1:{base}"}, directory)).start()
            except AddressInUse:
                # somebody took the free port between the look and the bind
                if port is not None or attempt == TRIES - 1:
                    self._remove()
                    raise
            except BaseException:
                self._remove()
                raise
        raise AssertionError("the last try returns or raises")

    def __repr__(self) -> str:
        """Show where to connect."""
        return f"<Embedded {self.endpoints}>"

    @property
    def endpoints(self) -> str:
        """Where to connect: `lessor.connect(node.endpoints)`."""
        return self._node.endpoints

    @property
    def failure(self) -> tuple[str, BaseException] | None:
        """The role that failed, and its error; None while all is well."""
        return self._node.failure

    def stop(self) -> None:
        """Stop the service. May be called twice."""
        self._node.stop()
        self._remove()

    def _remove(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def __enter__(self) -> Self:
        """Return the service itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the service."""
        self.stop()


def _checked(data: Any) -> Path:
    """Return the path of a directory; an empty text is what a variable may hold by mistake, and not this directory."""
    try:
        path = os.fspath(data)
        if isinstance(path, str) and path and b"\0" not in os.fsencode(path):
            return Path(path)
    except (TypeError, UnicodeEncodeError):
        pass
    raise BadRequest(f"the directory of a node is a path, not {data!r:.80}")
