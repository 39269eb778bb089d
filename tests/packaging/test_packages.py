"""The packages as files: names, versions and their order, and what belongs into each."""

from __future__ import annotations

import gzip
import io
import itertools
import re
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest
from artifacts.context import BuildError
from artifacts.managers import MANAGERS

from tests.conftest import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
ORDER = ["0.1.0", "0.2.0.dev0", "0.2.0.dev1", "0.2.0rc1", "0.2.0", "0.2.1.dev0", "0.10.0"]
BIN = {"deb": "/usr/lib/cni", "rpm": "/usr/libexec/cni", "apk": "/usr/libexec/cni"}
FILES = {
    "/etc/cni/pycni-agent.json", "/usr/bin/cnitool", "/usr/lib/pycni/setup", "/usr/lib/pycni/source/install.sh",
    "/usr/lib/pycni/source/shared/launcher-x86_64", "/usr/share/bash-completion/completions/cnitool",
    "/usr/share/man/man1/cnitool.1.gz",
}  # fmt: skip
UNITS = {f"/usr/lib/systemd/system/{name}" for name in ("pycni-agent.service", "cni-dhcp.service", "cni-dhcp.socket")}


def output(*words: str | Path) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def find(artefacts: Path, pattern: str) -> Path:
    (found,) = artefacts.glob(pattern)
    return found


def members(package: Path) -> dict[str, bytes]:
    """Return the files of an apk, which is some archives one after another, by their names."""
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(package.read_bytes())), ignore_zeros=True) as archive:
        return {
            member.name: file.read() if (file := archive.extractfile(member)) else b""
            for member in archive
            if not member.isdir() and not member.issym()
        } | {member.name: member.linkname.encode() for member in archive if member.issym()}


def paths(kind: str, package: Path) -> set[str]:
    if kind == "deb":
        listed = output("dpkg-deb", "--contents", package)
        return {line.split()[5].removeprefix(".") for line in listed.splitlines() if not line.startswith("d")}
    if kind == "rpm":
        return set(output("rpm", "--query", "--list", "--package", package).splitlines())
    return {f"/{name}" for name in members(package) if not name.startswith(".")}


@pytest.mark.parametrize(("kind", "pattern"), [
    ("deb", "pycni_*_amd64.deb"), ("rpm", "pycni-[0-9]*.x86_64.rpm"), ("apk", "pycni_*_x86_64.apk"),
])  # fmt: skip
def test_files(artefacts: Path, kind: str, pattern: str) -> None:
    found = paths(kind, find(artefacts, pattern))
    services = {"/etc/init.d/pycni-agent"} if kind == "apk" else UNITS
    assert found >= FILES | services
    assert not any("__pycache__" in path or "/tests/" in path for path in found)
    outside = {path for path in found if not path.startswith("/usr/lib/pycni/source/")}
    ghosts = {path for path in outside if path.startswith(BIN[kind])}
    assert bool(ghosts) == (kind == "rpm")
    documents = r"/usr/share/(doc|licenses|lintian)/.*|/usr/lib(exec)?/(cni|pycni)|/etc/cni|/usr/lib/pycni/source"
    assert {path for path in outside - FILES - services - ghosts if not re.fullmatch(documents, path)} == set()


def test_settings_are_the_administrators(artefacts: Path) -> None:
    assert "/etc/cni/pycni-agent.json" in output(
        "dpkg-deb", "--info", find(artefacts, "pycni_*_amd64.deb"), "conffiles"
    )
    rpm = find(artefacts, "pycni-[0-9]*.x86_64.rpm")
    assert output("rpm", "--query", "--configfiles", "--package", rpm) == "/etc/cni/pycni-agent.json\n"


def test_order_for_dpkg_and_rpm() -> None:
    """The test of the apk packages has the order for apk."""
    for older, later in itertools.pairwise(ORDER):
        one, other = (MANAGERS["deb"].version(version) + "-1" for version in (older, later))
        subprocess.run(["dpkg", "--compare-versions", one, "lt", other], check=True)
        one, other = (MANAGERS["rpm"].version(version) for version in (older, later))
        assert output("rpm", "--eval", f"%{{lua:print(rpm.vercmp('{one}', '{other}'))}}") == "-1\n"


def test_versions_without_a_place() -> None:
    assert MANAGERS["apk"].version("0.2.0.dev3") == "0.2.0_alpha3"
    for version in ("0.2.0a1", "0.2.0.post1", "1.0+local", ""):
        with pytest.raises(BuildError, match="no package can have the version"):
            MANAGERS["deb"].version(version)


def test_apk_as_apk_reads_it(artefacts: Path) -> None:
    """Each line of its facts is a key and a value, and the scripts are the ones of installing, upgrading and removing."""
    found = members(find(artefacts, "pycni_*_x86_64.apk"))
    facts = [line.split(" = ") for line in found[".PKGINFO"].decode().splitlines()]
    assert all(len(fact) == 2 for fact in facts)
    assert ["pkgver", MANAGERS["apk"].version(VERSION) + "-r1"] in facts and ["arch", "x86_64"] in facts
    assert {name for name in found if name.startswith(".")} == {
        ".PKGINFO", ".post-install", ".post-upgrade", ".pre-deinstall"
    }  # fmt: skip


def test_manual_page(artefacts: Path) -> None:
    """It has the time of the source, not that of the build."""
    found = members(find(artefacts, "pycni_*_x86_64.apk"))
    page = gzip.decompress(found["usr/share/man/man1/cnitool.1.gz"])
    assert page.startswith(b'.TH CNITOOL "1" "2023\\-11\\-14" "cnitool" "pycni"')
    assert found["usr/share/man/man1/cnitool.1.gz"][3:8] == b"\0" * 5  # neither name nor time


def test_scripts_are_of_any_shell() -> None:
    scripts = [ROOT / "packaging/nfpm" / name for name in ("setup", "installed", "removing", "removed")]
    subprocess.run(["shellcheck", *scripts], check=True)
