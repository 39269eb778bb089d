"""The contents of a bundle, their origins and licences; and the pins of the tools that make it."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from artifacts.debian import LICENCES
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement

from tests.conftest import ROOT
from tests.packaging.bundles import archive
from tests.unit.test_tools_requirements import pins, read_pins

SHA256 = re.compile(r"[0-9a-f]{64}")


@pytest.fixture(params=["amd64", "arm64"], name="architecture")
def _architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(name="directory")
def _directory(architecture: str, request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue("artefacts" if architecture == "amd64" else "artefacts_of_arm64")
    return found


@pytest.fixture(name="text")
def _text(directory: Path, architecture: str) -> str:
    return archive(directory, architecture).with_suffix("").with_suffix(".cdx.json").read_text()


@pytest.fixture(name="components")
def _components(text: str) -> list[dict[str, Any]]:
    """Return the components that have files in the bundle, the suite first."""
    bom = json.loads(text)
    return [bom["metadata"]["component"], *(one for one in bom["components"] if "evidence" in one)]


def files_of(component: dict[str, Any]) -> list[str]:
    return [one["location"] for one in component["evidence"]["occurrences"]]


def test_the_list_of_components_is_as_its_schema_wants(text: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_each_file_comes_from_one_component(
    directory: Path, architecture: str, components: list[dict[str, Any]]
) -> None:
    with tarfile.open(archive(directory, architecture)) as tar:
        files = {entry.name.partition("/")[2] for entry in tar if not entry.isdir()}
    listed = Counter(name for component in components for name in files_of(component))
    assert set(listed) | {"sbom.cdx.json"} == files
    assert set(listed.values()) == {1}


def test_each_component_has_a_source_a_licence_and_its_text(
    directory: Path, architecture: str, components: list[dict[str, Any]]
) -> None:
    seen = set()
    for component in components[1:]:
        url = PackageURL.from_string(component["purl"])
        assert (url.name, url.version) == (component["name"], component["version"])
        assert SHA256.fullmatch(component["hashes"][0]["content"])
        assert component["licenses"]
        assert [name for name in files_of(component) if name.startswith("licences/")], component["name"]
        seen.add((url.type, url.name))
        if url.type == "deb":
            assert url.qualifiers["arch"] == architecture and url.qualifiers["distro"] == "debian-12"
    assert seen == {("deb", name) for name in LICENCES} | {("pypi", name) for name in pins("tools.txt")}
    assert components[0]["name"] == "pycni" and "LICENSE" in files_of(components[0])
    with tarfile.open(archive(directory, architecture)) as tar:
        empty = [entry.name for entry in tar if "/licences/" in entry.name and entry.isfile() and entry.size < 20]
    assert empty == []


def test_the_static_programs_name_the_sources_that_are_linked_in(text: str) -> None:
    """Their sources are owed, too, if a bundle is handed on."""
    bom = json.loads(text)
    names = {one["bom-ref"]: one["name"] for one in bom["components"]}
    linked = {
        names.get(one["ref"]): {names[other] for other in one.get("dependsOn", [])} for one in bom["dependencies"]
    }
    assert "glibc" in linked["bash-static"] and "glibc" in linked["busybox-static"]


def test_the_libraries_files_are_the_pinned_ones(directory: Path, architecture: str, tmp_path: Path) -> None:
    file = archive(directory, architecture)
    top = file.name.removesuffix(".tar.gz")
    subprocess.run(["tar", "-xzf", file, "-C", tmp_path, f"{top}/wheels"], check=True)
    wheels = tmp_path / top / "wheels"
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=wheels, check=True)
    lines = [line.split() for line in (wheels / "SHA256SUMS").read_text().splitlines()]
    hashes = {name: digest for digest, name in lines}
    assert {path.name for path in wheels.iterdir()} == {*hashes, "SHA256SUMS"}
    pinned = {digest.rpartition(":")[2] for _, digests in pins("tools.txt").values() for digest in digests}
    assert set(hashes.values()) <= pinned and len(hashes) == len(pins("tools.txt"))


def test_the_checksums_are_those_of_all_artefacts(directory: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=directory, check=True)
    listed = {line.split()[1] for line in (directory / "SHA256SUMS").read_text().splitlines()}
    assert {path.name for path in directory.iterdir()} == {*listed, "SHA256SUMS"}


def test_the_tools_of_the_build_are_pinned_by_hash() -> None:
    found = read_pins(ROOT / "packaging/requirements.txt")
    for line in (ROOT / "packaging/requirements.in").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            assert requirement.specifier.contains(found[requirement.name][0]), line
    for package, (_, hashes) in found.items():
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), package
    assert not re.search(
        r"://|--(extra-)?index|--find-links|--trusted", (ROOT / "packaging/requirements.txt").read_text()
    )
