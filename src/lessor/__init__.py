"""lessor: a distributed lock and lease service that can be trusted with the answer.

>>> import lessor
>>> with lessor.embedded() as node, lessor.connect(node.endpoints) as client:
...     with client.lock("nightly-report", ttl=30) as lease:
...         print(lease.token, lease.held)
1 True
"""

TYPE_CHECKING = False  # as type checkers know it, without `typing` itself
if TYPE_CHECKING:
    from pathlib import Path

    from . import aio
    from .actors.embedded import Embedded
    from .client.asks import Events, Namespace, Register, Session, Transaction
    from .client.description import Description
    from .client.durations import Duration
    from .client.errors import (
        AcquireTimeout,
        BadRequest,
        ClientClosed,
        LeaseLost,
        LessorError,
        ServiceBusy,
        Unavailable,
    )
    from .client.holders import ClaimDenied
    from .client.lease import LeaseView
    from .client.recipes.rules import Leader, Member
    from .client.records import Waiting
    from .client.refusals import (
        CannotGrow,
        DeadlockDetected,
        LimitDiffers,
        NamespaceExists,
        NamespaceInUse,
        NoSuchNamespace,
        NoSuchSemaphore,
        NotCovered,
        NotHeldError,
        OutOfSequence,
        Refused,
        SemaphoreExists,
        SemaphoreInUse,
        SessionExpired,
        SessionStolen,
        TransactionDeclined,
        VersionConflict,
        WrongKey,
    )
    from .client.states import LeaseState, Loss
    from .client.sync import Client, Lease, Lock, connect
    from .client.wants import read, units, write
    from .client.watch import Missed
    from .core.errors import Corrupt, ForeignDatabase
    from .core.events import DATA_CHANGED, DELETED, OWNERS_CHANGED, Event
    from .core.resources import Mode, Resource
    from .storage.failures import StorageFailed
    from .transport.ports import AddressInUse

__version__ = "0.1.0"

__all__ = [
    "DATA_CHANGED",
    "DELETED",
    "OWNERS_CHANGED",
    "AcquireTimeout",
    "AddressInUse",
    "BadRequest",
    "CannotGrow",
    "ClaimDenied",
    "Client",
    "ClientClosed",
    "Corrupt",
    "DeadlockDetected",
    "Description",
    "Duration",
    "Event",
    "Events",
    "ForeignDatabase",
    "Leader",
    "Lease",
    "LeaseLost",
    "LeaseState",
    "LeaseView",
    "LessorError",
    "LimitDiffers",
    "Lock",
    "Loss",
    "Member",
    "Missed",
    "Mode",
    "Namespace",
    "NamespaceExists",
    "NamespaceInUse",
    "NoSuchNamespace",
    "NoSuchSemaphore",
    "NotCovered",
    "NotHeldError",
    "OutOfSequence",
    "Refused",
    "Register",
    "Resource",
    "SemaphoreExists",
    "SemaphoreInUse",
    "ServiceBusy",
    "Session",
    "SessionExpired",
    "SessionStolen",
    "StorageFailed",
    "Transaction",
    "TransactionDeclined",
    "Unavailable",
    "VersionConflict",
    "Waiting",
    "WrongKey",
    "aio",
    "connect",
    "embedded",
    "read",
    "units",
    "write",
]

_HOMES = {
    "client.asks": "Events Namespace Register Session Transaction",
    "client.description": "Description",
    "client.durations": "Duration",
    "client.errors": "AcquireTimeout BadRequest ClientClosed LeaseLost LessorError ServiceBusy Unavailable",
    "client.holders": "ClaimDenied",
    "client.lease": "LeaseView",
    "client.recipes.rules": "Leader Member",
    "client.records": "Waiting",
    "client.refusals": (
        "CannotGrow DeadlockDetected LimitDiffers NamespaceExists NamespaceInUse NoSuchNamespace "
        "NoSuchSemaphore NotCovered NotHeldError OutOfSequence Refused SemaphoreExists SemaphoreInUse "
        "SessionExpired SessionStolen TransactionDeclined VersionConflict WrongKey"
    ),
    "client.states": "LeaseState Loss",
    "client.wants": "read units write",
    "client.watch": "Missed",
    "client.sync": "Client Lease Lock connect",
    "core.errors": "Corrupt ForeignDatabase",
    "core.events": "DATA_CHANGED DELETED OWNERS_CHANGED Event",
    "core.resources": "Mode Resource",
    "storage.failures": "StorageFailed",
    "transport.ports": "AddressInUse",
}

if not TYPE_CHECKING:  # to a type checker, a module with this function would have every name there is

    def __getattr__(name: str) -> object:
        """Load a name when it is first used: the command must heed Ctrl-C long before all of it could be loaded."""
        from importlib import import_module  # noqa: PLC0415 - see above

        if name == "aio":
            return import_module(".aio", __name__)
        for home, names in _HOMES.items():
            if name in names.split():
                globals()[name] = found = getattr(import_module(f".{home}", __name__), name)
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """Return the names that are here, loaded or not."""
        return sorted({*globals(), *__all__})


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
