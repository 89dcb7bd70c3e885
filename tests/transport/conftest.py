"""Fixtures of the transport tests: a ZeroMQ context, and an endpoint that nobody uses."""

from collections.abc import Iterator

import pytest

from lessor.transport.sockets import Context

from ..support.sockets import HOST, a_context, free_port


@pytest.fixture
def context() -> Iterator[Context]:
    with a_context() as context:
        yield context


@pytest.fixture
def endpoint() -> str:
    return f"tcp://{HOST}:{free_port()}"
