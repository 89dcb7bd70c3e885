"""The flag `--rewrite` of the scenarios."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write into the scenarios what their commands print now")


@pytest.fixture
def rewrite(request: pytest.FixtureRequest) -> bool:
    # without a path on the command line this folder is read after the options, and nobody can have given this one
    return bool(request.config.getoption("--rewrite", default=False))
