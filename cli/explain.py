"""How an error is told: in words, with whether it may have had an effect (P9), and with what to do about it."""

from typing import Final

from ..client.errors import Unavailable
from ..client.refusals import (
    LimitDiffers,
    NamespaceExists,
    NoSuchNamespace,
    NoSuchSemaphore,
    NotCovered,
    SemaphoreExists,
)

REMEDIES: Final[dict[type[Exception], str]] = {
    NoSuchNamespace: "`lessor namespaces` lists them, `lessor namespace create` makes one",
    NoSuchSemaphore: "`lessor semaphores` lists them, `lessor semaphore create` makes one",
    NamespaceExists: "`lessor namespace alter` changes its settings",
    SemaphoreExists: "its limit stays as it is; `lessor semaphore update` changes its data",
    LimitDiffers: "one that was created is asked for without a limit",
    NotCovered: "the lease that covers a register is on its name, or on a path above it, to write",
}
"""What to do, by what was refused."""


def explain(error: Exception) -> str:
    """Return an error in words."""
    text = str(error)
    if isinstance(error, Unavailable):
        text = f"the service is unavailable: {text}"
    if getattr(error, "indefinite", False):
        text += "; the request may have taken effect all the same"
    remedy = REMEDIES.get(type(error))
    return f"{text}; {remedy}" if remedy else text
