"""`import pycni` in a fresh virtual environment: the document's examples run, and a type checker knows the types."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pretend import PretendHost

PAGE = (ROOT / "docs/reference/python-api.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CONFIGURATION = re.findall(r"```json\n(.*?)```", (ROOT / "docs/quickstart.md").read_text(encoding="utf-8"), re.DOTALL)[
    0
]
PRINTED = ("['10.244.1.2/24', 'fd00:244:1::2/64']\n", "pods\n['10.244.1.2', 'fd00:244:1::2']\n")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the interpreter of an environment that has the package alone, built from a copy of the tree."""
    directory = tmp_path_factory.mktemp("library")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    copied = ["cp", "--parents", "-t", str(directory / "source")]
    (directory / "source").mkdir()
    names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    subprocess.run([*copied, *names], cwd=ROOT, check=True)
    found = str(directory / "venv/bin/python")
    subprocess.run([sys.executable, "-m", "venv", directory / "venv"], check=True)
    done = subprocess.run([found, "-m", "pip", "install", "-q", directory / "source"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return found


@pytest.mark.parametrize(("example", "printed"), list(zip(EXAMPLES, PRINTED, strict=True)))
def test_example(host: PretendHost, installed: Path, python: str, example: str, printed: str) -> None:
    host.run("mkdir", "-p", "/etc/cni/net.d")
    host.run("tee", "/etc/cni/net.d/10-pods.conflist", input=CONFIGURATION)
    host.netns("web")
    done = host.run(python, "-I", "-B", "-", input=example.replace("/opt/cni/bin", str(installed)))
    assert (done.stdout, done.stderr) == (printed, "")
    files = [path for path in host.snapshot()["files"] if "/.pycni/" not in path]
    assert {Path(path).name for path in files} <= {"lock", "last_reserved_ip.0", "last_reserved_ip.1"}


def test_nothing_but_the_package_is_installed(python: str) -> None:
    code = "import sys; import pycni; print(*sorted(n for n in sys.modules if n.split('.')[0] in ('shared', 'plugins', 'ipam')))"
    assert subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_types(python: str, tmp_path: Path) -> None:
    text = "import pycni\nreveal_type(pycni.Client([]).add)\nreveal_type(pycni.PodNetwork('', []).status())\npycni.Pod(1)\n"
    (tmp_path / "user.py").write_text(text)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "--config-file", "", "user.py"]
    done = subprocess.run(mypy, cwd=tmp_path, capture_output=True, text=True)
    assert "pycni.shared.runtime.attachment.Attachment" in done.stdout and "NetworkConfigList" in done.stdout, (
        done.stdout
    )
    assert 'Argument 1 to "Pod"' in done.stdout and "Any" not in done.stdout.splitlines()[1], done.stdout
