"""The stock kernel in qemu: a command's answer and every test's outcome come back."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.kernel import boot
from tests.kernel.image import CACHE, image
from tests.pretend import PATIENCE

pytestmark = pytest.mark.skipif(boot.is_running(), reason="a boot within a boot")

TESTS = """
import os, pathlib, platform, subprocess
import pytest

pytestmark = pytest.mark.kernel_vlan

def test_passes():
    assert platform.release() != {release!r}
    pathlib.Path(__file__).with_name("written").touch()

def test_fails():
    assert "this" == "that"

def test_skips():
    pytest.skip("no reason")

def test_stops_the_machine():
    subprocess.run(["busybox", "poweroff", "-f"])

def test_comes_too_late():
    pass
"""


def test_a_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its output, its exit status and the files that it writes into the share come back; nothing else does."""
    script = "uname -r; echo wrong >&2; cp /proc/cmdline /mnt/kept; echo gone >here || exit 1; cat here; exit 7"
    output: list[bytes] = []
    status = boot.run(["sh", "-c", script], output.append, share=tmp_path, limit=60)
    assert (status, b"".join(output).decode().split()) == (7, [image().release, "wrong", "gone"])
    assert f"tree={ROOT}" in (tmp_path / "kept").read_text()
    assert not (ROOT / "here").exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_every_outcome_is_reported() -> None:
    """A test that passes, fails, skips or is cut off there has the same outcome here."""
    image()
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        Path(directory, "conftest.py").write_text(
            "from tests.kernel import features\nfeatures.FEATURES['kernel_vlan'] = 'false'\n"
        )
        Path(directory, "test_outcomes.py").write_text(TESTS.format(release=platform.release()))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-p", "tests.kernel.plugin", "-p", "no:cacheprovider", "-rA"),
                Path(directory, "test_outcomes.py"),
            ],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
            capture_output=True,
            text=True,
            timeout=300 * PATIENCE,
        )
        assert not Path(directory, "written").exists()
    said = done.stdout
    assert done.returncode == 1, said + done.stderr
    outcomes = set(re.findall(r"^(PASSED|FAILED) \S+::(\w+)", said, re.MULTILINE))
    failed = ("test_fails", "test_stops_the_machine", "test_comes_too_late")
    assert outcomes == {("PASSED", "test_passes"), *(("FAILED", name) for name in failed)}, said
    assert "3 failed, 1 passed, 1 skipped" in said
    assert "assert 'this' == 'that'" in said and "no reason" in said, said
    told = re.findall(r"^_+ (\w+) _+\n.*did not come to this test's end$", said, re.MULTILINE)
    assert told == ["test_stops_the_machine", "test_comes_too_late"] and "machine stopped under it" in said, said


def test_a_boot_that_hangs_is_tried_again_and_then_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # fmt: skip
    monkeypatch.setattr(boot, "START_LIMIT", 1)
    monkeypatch.setattr(boot, "MACHINE", (*boot.MACHINE, "-S"))  # the processor waits for a debugger
    with pytest.raises(boot.BootError, match="did not begin within 1 s, 2 times"):
        boot.run(["true"], print, share=tmp_path, limit=1)


def test_a_kernel_that_does_not_come_up_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(boot, "ARGUMENTS", f"{boot.ARGUMENTS} rdinit=/nothing")
    with pytest.raises(boot.BootError, match=r"(?s)stopped before the command began.*Kernel panic"):
        boot.run(["true"], print, share=tmp_path, limit=1)
