"""The rule that all guards share, a token below the newest is refused, and the gate that keeps it in memory."""

import threading
from typing import Any, Final, Protocol
from urllib.parse import quote

from ..core import limits
from ..core.errors import BadRequest, LessorError

TOKEN_MAX: Final = 2**63 - 1  # what a column of SQLite and PostgreSQL holds, and the service's own bound
NAME_BYTES_MAX: Final = 3 * limits.NAMESPACE_BYTES_MAX + 1 + limits.NAME_BYTES_MAX  # what resource_of may return


class StaleToken(LessorError):
    """A newer token has been seen, so whoever presents this one holds the lease no longer; nothing was written."""

    def __init__(self, name: str, token: int, newest: int) -> None:
        """Keep the name, the token that was presented and the newest that was seen."""
        super().__init__(name, token, newest)  # as they are, so that the error can be pickled
        self.name = name
        self.token = token
        self.newest = newest

    def __str__(self) -> str:
        """Say what was presented and what had been seen."""
        return f"token {self.token} for {self.name!r} is stale: {self.newest} has been seen"


class GuardBusy(LessorError):
    """The guard could not look in time, or may not take another name; nothing was admitted or written."""


class HasToken(Protocol):
    """What a lease shows of itself."""

    @property
    def namespace(self) -> str:
        """The namespace that the name is in."""

    @property
    def name(self) -> str:
        """The name of what is held."""

    @property
    def token(self) -> int:
        """The fencing token."""


class Gate(Protocol):
    """Remembers the newest token of each name."""

    def admit(self, name: str, token: int) -> None:
        """Let the token pass and remember it, or raise StaleToken if a newer one has been seen."""


class TokenGate:
    """The newest token of each name, in memory: for a resource that lives and dies with this process. Thread-safe."""

    def __init__(self, names_max: int = limits.FENCED_NAMES_MAX) -> None:
        """Start with no token seen, and take at most so many names."""
        self._names_max = names_max
        self._lock = threading.Lock()
        self._newest: dict[str, int] = {}

    def admit(self, name: str, token: int) -> None:
        """Let the token pass and remember it.

        Raises:
            StaleToken: a newer one has been seen.
            GuardBusy: it is a new name, and there are too many. None is ever forgotten to make room: an old token of
                that name would then pass.
            BadRequest: the name or the token cannot be one.
        """
        check(name, token)
        with self._lock:
            if is_newer(name, token, self._newest.get(name, 0)):
                if name not in self._newest and len(self._newest) >= self._names_max:
                    raise GuardBusy(f"this gate remembers {self._names_max} names, and takes no more")
                self._newest[name] = token

    def newest(self, name: str) -> int:
        """Return the newest token seen, 0 if there was none."""
        with self._lock:
            return self._newest.get(name, 0)


def is_newer(name: str, token: int, newest: int) -> bool:
    """Return whether the token must be remembered; raise StaleToken if it is older than the newest.

    An equal token passes: one holder writes many times under one grant.
    """
    if token < newest:
        raise StaleToken(name, token, newest)
    return token > newest


def check(name: Any, token: Any) -> None:
    """Refuse what cannot be a name or a token; BadRequest says why."""
    if not isinstance(name, str) or not 1 <= len(name.encode("utf-8", "surrogatepass")) <= NAME_BYTES_MAX:
        raise BadRequest(f"a name is text of 1 to {NAME_BYTES_MAX} bytes")
    if not isinstance(token, int) or isinstance(token, bool) or not 1 <= token <= TOKEN_MAX:
        raise BadRequest(f"a token is a whole number from 1 to {TOKEN_MAX}, not {token!r}")


def resource_of(lease: HasToken) -> str:
    """Return one name for the namespace and the name of a lease, for a guard to keep its newest token by.

    A path shares it with the plain name that reads alike: ("users", "42") and "users/42". Then the older grant of the
    two is refused though both hold; nobody who was overtaken passes.

    >>> from types import SimpleNamespace
    >>> resource_of(SimpleNamespace(namespace="default", name="reports/nightly", token=7))
    'default/reports/nightly'
    """
    return f"{quote(lease.namespace, safe='')}/{lease.name}"
