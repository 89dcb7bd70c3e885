"""`lessor bench`."""

from .options import Commands, Parser


def register(commands: "Commands[Parser]") -> None:
    """Add."""
