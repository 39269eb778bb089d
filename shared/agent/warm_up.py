"""Play calls that must fail, and requests that change nothing, in the server before workers are forked from it.

From Python 3.11, code becomes faster when it has run a few times: workers inherit that. A play changes nothing: it
leaves no file, lock, link or line of a log, and a worker begins its call with the same state as without it.
"""

from __future__ import annotations

from shared import steps
from shared.cni import suite
from shared.cni.call import Call
from shared.cni.errors import CniError
from shared.cni.fastjson import dumps
from shared.hostports import nftables_rules
from shared.net import addresses, links
from shared.net.netlink import Netlink
from shared.undo import Undo

NOWHERE = "/proc/self/fd/pycni"  # a path that cannot exist
TIMES = 12


def play_all() -> None:
    """Play an ADD of each plugin and the commonest requests. Make the rules that are the same in each call."""
    nftables_rules.fixed_chains()
    for _ in range(TIMES):
        _play_requests()
        for name, module in suite.plugins.items():
            _play(name, module)
    del steps.begun[1:]


def _play_requests() -> None:
    try:
        host = Netlink()
        try:
            link = links.get(host, "lo")
            if link is not None:
                addresses.of_link(host, link["index"])
        finally:
            host.close()
    except (CniError, OSError):
        return


def _play(name: str, module: str) -> None:
    variables = {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "pycni", "CNI_NETNS": NOWHERE, "CNI_IFNAME": "eth0", "CNI_PATH": "/",
    }  # fmt: skip
    config = {"cniVersion": "1.0.0", "name": "pycni", "type": name}
    try:
        call = Call(variables)
        call.read_config(dumps(config).encode())
        # not `with`: the end of a failed block ignores SIGTERM, and the kernel drops one that waits for the next agent
        __import__(module, fromlist=("add",)).add(call, Undo())
    except Exception:  # noqa: BLE001  (most raise CniError; without a play calls are slower, and no more)
        return
