"""Namespaces that cannot be opened: a DEL must not take them for deleted ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).parents[2]
SCRIPT = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from shared.cni.errors import InvalidNetns
from shared.net import netns

print(netns.open_if_there("/run/no/such/namespace"), netns.open_if_there("/dev/null"))
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    print(netns.open_if_there("/run/netns/pod"))
except InvalidNetns as error:
    print(error)
"""


def test_a_process_without_free_descriptors() -> None:
    """A path that leads nowhere is no error, and a lack of descriptors is one."""
    command = [sys.executable, "-c", SCRIPT, str(TREE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    first, second = done.stdout.splitlines()
    assert first == "None None"
    assert "CNI_NETNS '/run/netns/pod' cannot be opened" in second and "Too many open files" in second
