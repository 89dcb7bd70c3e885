"""What holds for all tests of the client: nobody is hurried while it gives back what it holds."""

from collections.abc import Iterator

import pytest

from ..support.patience import unhurried_ends


@pytest.fixture(autouse=True)
def unhurried() -> Iterator[None]:
    with unhurried_ends():
        yield
