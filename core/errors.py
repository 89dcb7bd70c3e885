"""The typed errors of lessor, each either definite (it certainly did not happen) or indefinite (it may have) (P9)."""

from typing import Any


class LessorError(Exception):
    """Base of all errors of lessor.

    `indefinite` is True when the request may still have taken effect or may yet take effect; False when it certainly
    did not. (The distinction is Jepsen's.)
    """

    indefinite: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Be copied and pickled as it is, whatever it was made of: errors cross processes, as those of a pool do."""
        return _again, (type(self), self.args), self.__dict__


class BadRequest(LessorError, ValueError):
    """The request itself is wrong (a name, a size, a duration); nothing was changed. The text names the limit."""


class Malformed(LessorError):
    """Bytes from a socket or a file are not a message of this version of the protocol (P11)."""


class Corrupt(LessorError):
    """A file of this node holds what it cannot hold. The node stops; the text names the file and the remedy."""


class ForeignDatabase(LessorError):
    """A data directory belongs to another node or another cluster, or its journal was lost."""


class InvariantBroken(LessorError):
    """An assertion of the protocol failed; the node stops rather than guess."""


def _again(kind: type[LessorError], args: tuple[Any, ...]) -> LessorError:
    """Return an error of this kind and text, not made anew: its arguments may have been others."""
    error = kind.__new__(kind)
    error.args = args
    return error
