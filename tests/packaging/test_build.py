"""packaging/build: the same files from any checkout, and no build of changes that are not committed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.packaging.bundles import unpack
from tests.packaging.conftest import run_build

# Other settings of the one who builds than those of the tests.
ELSEWHERE = {
    "TZ": "Asia/Kathmandu",
    "LC_ALL": "C.UTF-8",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "7",
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clean checkout of this tree's files, changed ones too, in another directory and with other modes."""
    directory = tmp_path_factory.mktemp("checkout")
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout
    there = b"\0".join(name for name in listed.split(b"\0") if (ROOT / name.decode()).is_file())
    script = 'umask 077; tar -C "$0" --null -cf - -T - | tar -xf - --no-same-permissions'
    subprocess.run(["sh", "-c", script, ROOT], cwd=directory, input=there, check=True)
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    for words in (["init", "--quiet"], ["add", "--all"], [*identity, "commit", "--quiet", "--message=all"]):
        subprocess.run(["git", *words], cwd=directory, check=True)
    environment = ROOT / "build/packaging-env"
    if environment.is_dir():  # it is the same for all checkouts, and takes a while
        (directory / "build").mkdir()
        (directory / "build/packaging-env").symlink_to(environment)
    return directory


@pytest.mark.slow
def test_two_builds_are_equal(artefacts: Path, checkout: Path, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    done = run_build(checkout, tmp_path / "again", "--arch", "amd64", umask=0o077, HOME=home, **ELSEWHERE)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = ((directory / "SHA256SUMS").read_text() for directory in (artefacts, tmp_path / "again"))
    assert first == second
    assert re.search(r"pycni-.*-linux-amd64\.tar\.gz$", first, re.MULTILINE)


def test_changes_that_are_not_committed_are_refused(checkout: Path, tmp_path: Path) -> None:
    change = checkout / "plugins/new.py"
    change.touch()
    try:
        done = run_build(checkout, tmp_path / "output", "bundle")
    finally:
        change.unlink()
    assert done.returncode == 1 and "?? plugins/new.py" in done.stderr and "--dirty" in done.stderr
    assert not (tmp_path / "output").exists()


def test_an_unknown_target_is_refused(checkout: Path, tmp_path: Path) -> None:
    done = run_build(checkout, tmp_path / "output", "bundel")
    assert done.returncode == 2 and "bundel" in done.stderr and "bundle, image, deb" in done.stderr


@pytest.mark.parametrize(("architecture", "compiler"), [("amd64", "cc"), ("arm64", "aarch64-linux-gnu-gcc")])
def test_the_launcher_is_the_one_that_install_sh_compiles(
    architecture: str, compiler: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """It has no libc and names no loader, and nothing of the machine that compiled it."""
    artefacts = request.getfixturevalue("artefacts" if architecture == "amd64" else "artefacts_of_arm64")
    (packed,) = (unpack(artefacts, architecture, tmp_path) / "shared").glob("launcher-*")
    text = (ROOT / "install.sh").read_text()
    words = " ".join(re.findall(r'^without_libc\+?="(.*)"$', text, re.MULTILINE)).split()
    command = [compiler, "-std=c11", *words, "-o", str(tmp_path / "compiled"), "shared/launcher.c"]
    subprocess.run(command, cwd=ROOT, check=True)
    assert packed.read_bytes() == (tmp_path / "compiled").read_bytes()
    shown = subprocess.run(["readelf", "--program-headers", packed], capture_output=True, text=True, check=True).stdout
    assert "INTERP" not in shown and "DYNAMIC" not in shown
    assert packed.name == {"amd64": "launcher-x86_64", "arm64": "launcher-aarch64"}[architecture]
