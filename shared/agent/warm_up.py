"""Touch the memory that calls use, before a call comes.

A forked process shares its parent's memory until it writes to it: each first write to a page costs a page fault. Calls
that must fail, and questions to the kernel, write to most of the pages that a real call does. They change nothing:
no file, lock, link or line of a log.
"""

from __future__ import annotations

from shared import steps
from shared.cni import suite
from shared.cni.call import Call
from shared.cni.errors import CniError
from shared.cni.fastjson import dumps
from shared.undo import Undo

NOWHERE = "/proc/self/fd/pycni"  # a path that cannot exist


LESSONS = 12  # from Python 3.11, code becomes faster after a few runs


def learn() -> None:
    """Play in the server, so that all workers share what the interpreter learns about the code."""
    for _ in range(LESSONS):
        touch()


def touch() -> None:
    """Play a call of each plugin that fails."""
    for name, module in suite.plugins.items():
        _play(name, module)
    del steps.begun[1:]


def _play(name: str, module: str) -> None:
    variables = {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "pycni", "CNI_NETNS": NOWHERE, "CNI_IFNAME": "eth0", "CNI_PATH": "/",
    }  # fmt: skip
    config = {"cniVersion": "1.0.0", "name": "pycni", "type": name}
    call = Call(variables)
    call.read_config(dumps(config).encode())
    try:
        with Undo() as undo:
            __import__(module, fromlist=("add",)).add(call, undo)
    except CniError:
        return
