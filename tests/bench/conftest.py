"""The programs under bench/, imported as they import each other."""

import importlib
from collections.abc import Callable
from types import ModuleType

import pytest

from ..support.tidy import ROOT

Program = Callable[[str], ModuleType]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Program:
    """Imports a program by its name."""
    monkeypatch.syspath_prepend(ROOT / "bench")
    return importlib.import_module
