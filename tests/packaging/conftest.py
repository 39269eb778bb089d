"""The artefacts, built once for all tests and kept for the next run of the same files."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

KEPT = ROOT / ".artefacts"
PARTS = ("packaging", "plugins", "ipam", "shared", "install.sh", "pyproject.toml", "LICENSE", "README.md")
EPOCH = "1700000000"  # any: the time of the last commit would make each commit build anew


def digest_of_source() -> str:
    """Return a digest of all files from which the artefacts are made."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PARTS]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(EPOCH.encode())
    for name in sorted(set(listed.split("\0")) - {""}):
        path = ROOT / name
        content = path.read_bytes() if path.is_file() else b""
        digest.update(f"\0{name}\0{os.access(path, os.X_OK)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def run_build(
    root: Path, output: Path, *words: str, umask: int = -1, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run packaging/build of a checkout, with the time of the tests unless the environment has another."""
    command: list[str | Path] = [root / "packaging/build", "--output", output, *words]
    variables = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=variables, umask=umask)


def keep(name: str, *words: str) -> Path:
    """Return the directory of a build with these arguments, made by the first test that asks."""
    KEPT.mkdir(exist_ok=True)
    target = KEPT / f"{name}-{digest_of_source()}"
    with (KEPT / f".{name}-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            for old in KEPT.glob(f"{name}-*"):
                shutil.rmtree(old)
            unfinished = KEPT / f".{name}-new"
            shutil.rmtree(unfinished, ignore_errors=True)
            done = run_build(ROOT, unfinished, "--dirty", *words)
            if done.returncode:
                pytest.fail(f"packaging/build: status {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)
            unfinished.rename(target)
    return target


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Return the directory of all that packaging/build makes for amd64."""
    return keep("amd64", "--arch", "amd64")


@pytest.fixture(scope="session")
def artefacts_of_arm64() -> Path:
    """Return the directory with the bundle for arm64; a build of all targets is the same code for both."""
    return keep("arm64", "--arch", "arm64", "bundle")
