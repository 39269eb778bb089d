"""README's examples do what it says, on a pretend host with its configuration, as a reader would run them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pretend import PretendHost

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
CONFIGURATION = re.findall(r"```json\n(.*?)```", README, re.DOTALL)[0]
PRINTED = ("['10.244.1.2/24', 'fd00:244:1::2/64']\n", "pods\n['10.244.1.2', 'fd00:244:1::2']\n")


@pytest.mark.parametrize(("example", "printed"), list(zip(EXAMPLES, PRINTED, strict=True)))
def test_example(host: PretendHost, installed: Path, example: str, printed: str) -> None:
    host.run("mkdir", "-p", "/etc/cni/net.d")
    host.run("tee", "/etc/cni/net.d/10-pods.conflist", input=CONFIGURATION)
    host.netns("web")
    code = example.replace("/opt/cni/lib/pycni", str(installed.parent / "lib")).replace("/opt/cni/bin", str(installed))
    done = host.run(sys.executable, "-I", "-B", "-", input=code)
    assert (done.stdout, done.stderr) == (printed, "")
    files = [path for path in host.snapshot()["files"] if "/.pycni/" not in path]
    assert {Path(path).name for path in files} <= {"lock", "last_reserved_ip.0", "last_reserved_ip.1"}
