"""No node stops by itself while its disk is well: its assertions hold, whatever the network and the clients do."""

from lessor.core.effects import Role

from ..node import Node
from .base import Checker


class Stops(Checker):
    """Beside P1 to P11: an assertion of the product that fails is a bug, although the node stops rather than guess."""

    promise = "stops"

    def role_failed(self, node: Node, role: Role, error: Exception) -> None:
        """Fail with the error."""
        what = f"the {role.name.lower()} of node {node.number} raised {type(error).__name__}: {error}"
        raise self.fail(what) from error
