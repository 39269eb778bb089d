"""The operator tools' packages are pinned by hash, and the pins are what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

FILES = ("tools.txt", "tools-build.txt")


def pins(name: str) -> dict[str, tuple[str, list[str]]]:
    """Return the version and the hashes of each package in a file of the tools' requirements."""
    return read_pins(ROOT / "shared/cli" / name)


def read_pins(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Return the version and the hashes of each package in a file of requirements."""
    text = path.read_text()
    joined = re.sub(r"\\\n", "", text)
    lines = [line.split() for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return {words[0].split("==")[0]: (words[0].split("==")[1], words[1:]) for words in lines}


def test_the_pins_are_what_the_project_asks_for() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["tools"]
    found = pins("tools.txt")
    for line in wanted:
        requirement = Requirement(line)
        version, _ = found[requirement.name]
        assert requirement.specifier.contains(version), line


@pytest.mark.parametrize("name", FILES)
def test_each_package_has_hashes_and_no_host(name: str) -> None:
    for package, (_, hashes) in pins(name).items():
        assert hashes, package
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), package
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted", (ROOT / "shared/cli" / name).read_text())
