"""lessor: a distributed lock and lease service that can be trusted with the answer.

>>> import lessor
>>> with lessor.embedded() as node, lessor.connect(node.endpoints) as client:
...     with client.lock("nightly-report", ttl=30) as lease:
...         print(lease.token, lease.held)
1 True
"""

from typing import TYPE_CHECKING

from .client.errors import (
    AcquireTimeout,
    BadRequest,
    ClientClosed,
    LeaseLost,
    LessorError,
    ServiceBusy,
    Unavailable,
)
from .client.lease import LeaseView
from .client.sync import Client, Lease, Lock, connect

if TYPE_CHECKING:
    from pathlib import Path

    from .actors.embedded import Embedded

__version__ = "0.1.0"

__all__ = [
    "AcquireTimeout",
    "BadRequest",
    "Client",
    "ClientClosed",
    "Lease",
    "LeaseLost",
    "LeaseView",
    "LessorError",
    "Lock",
    "ServiceBusy",
    "Unavailable",
    "connect",
    "embedded",
]


def embedded(data: "str | Path | None" = None, port: int | None = None) -> "Embedded":
    """Start a one-node service in this process; needs the extra `lessor[server]`.

    Args:
        data: the directory that keeps its state over restarts; None for a temporary one.
        port: its base port on the loopback interface; None for a free one.
    """
    try:
        from .actors.embedded import Embedded  # noqa: PLC0415 - the base install has no pykka
    except ImportError as error:
        raise ImportError(f'an embedded node needs the server: pip install "lessor[server]" ({error})') from error
    return Embedded(data, port)
