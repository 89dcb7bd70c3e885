"""What of the command line needs the server, which the base install does not have."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

PACKAGES: Final = frozenset({"pykka", "sqlite_utils"})


class ServerMissing(Exception):
    """The server was asked for and is not installed."""


@contextmanager
def needs_server(what: str) -> Iterator[None]:
    """Wrap the import of the server: that it is not installed is told in words.

    Raises:
        ServerMissing: a package of the extra `lessor[server]` is not there.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in PACKAGES:
            raise
        raise ServerMissing(
            f'{what} needs the server, and {error.name} is not installed; run: pip install "lessor[server]"'
        ) from None


def require_server(what: str) -> None:
    """Fail now, and not later in another process, if the server is not installed.

    Raises:
        ServerMissing: a package of the extra `lessor[server]` is not there.
    """
    with needs_server(what):
        from ..actors import node  # noqa: F401 - to see that it can be
