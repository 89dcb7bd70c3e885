"""The errors that users of the client meet; each says whether the thing may still have happened (P9)."""

from ..core.errors import BadRequest, LessorError
from .states import Loss

__all__ = [
    "AcquireTimeout",
    "BadRequest",
    "ClientClosed",
    "LeaseLost",
    "LessorError",
    "ServiceBusy",
    "Unavailable",
]


class AcquireTimeout(LessorError, TimeoutError):
    """The lease was not granted in time.

    Definite (`indefinite` False): the claim was withdrawn, it is certainly not held. Indefinite: the service could not
    be reached to withdraw it; the client goes on withdrawing it in the background, and it ends by itself at the latest
    when the wait and then the ttl run out.
    """

    def __init__(self, text: str, *, indefinite: bool = False) -> None:
        """Say whether the claim is certainly gone."""
        super().__init__(text)
        self.indefinite = indefinite


class Unavailable(LessorError, ConnectionError):
    """No answer in time. Indefinite: the request has left, so it may have had its effect, or may yet."""

    def __init__(self, text: str, *, indefinite: bool) -> None:
        """Say whether the request may have taken effect."""
        super().__init__(text)
        self.indefinite = indefinite


class ServiceBusy(LessorError):
    """A limit of the service's state is reached; nothing was changed."""


class LeaseLost(LessorError):
    """The lease is not held any more; the text gives the reason, and `loss` its kind (None: it was released)."""

    def __init__(self, text: str, loss: Loss | None = None) -> None:
        """Say which loss it was."""
        super().__init__(text)
        self.loss = loss


class ClientClosed(LessorError):
    """The client was closed. `indefinite` says if what it was doing may have taken effect, or may yet."""

    def __init__(self, text: str, *, indefinite: bool = False) -> None:
        """Say whether anything may have come of it."""
        super().__init__(text)
        self.indefinite = indefinite
