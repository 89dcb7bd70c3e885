"""Every test of compatibility runs calm, with a restart of all nodes after each command, and with a new leader."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lessor.storage.directory import DataDirectory

from ..storage.histories import ALICE
from .service import WAYS, Service, User


@pytest.fixture(autouse=True, params=WAYS)
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    if request.param != "restarted":
        service = Service(request.param)
        yield service
    else:
        with DataDirectory(tmp_path / "data", ALICE) as directory, directory.open_lease_tables() as tables:
            service = Service(request.param, tables)
            yield service
    service.check()


@pytest.fixture
def anna(service: Service) -> User:
    return service.user("anna")


@pytest.fixture
def ben(service: Service) -> User:
    return service.user("ben")


@pytest.fixture
def carl(service: Service) -> User:
    return service.user("carl")
