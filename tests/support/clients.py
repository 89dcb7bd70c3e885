"""Clients of one node for one test, closed at its end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lessor
from lessor.actors.embedded import Embedded


@contextmanager
def clients(node: Embedded, namespace: str) -> Iterator[Callable[..., lessor.Client]]:
    """Makes clients in a namespace."""
    made: list[lessor.Client] = []

    def connect(**options: Any) -> lessor.Client:
        made.append(lessor.connect(node.endpoints, namespace, **options))
        return made[-1]

    yield connect
    for client in made:
        client.close()
