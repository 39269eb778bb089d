"""The image's entry program as a module. It is no package's: in the image it stands beside the suite."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from tests.conftest import ROOT


def _load() -> ModuleType:
    specification = importlib.util.spec_from_file_location("container", ROOT / "packaging/image/container.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


container = _load()
