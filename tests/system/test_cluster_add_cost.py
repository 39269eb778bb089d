"""An ADD costs the same with and without a cluster: it asks nobody but host-local."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from shared.net.netns import open_netns
from tests.pretend import PretendHost
from tests.system.cluster_node import CONFLIST, POOL, ClusterNode
from tests.system.traces import WAITS, messages_outside_waits

# Without the calls of waits, whose number depends on the kernel's pace.
COUNTED = (
    "openat,write,pwrite64,rename,renameat,unlink,unlinkat,link,linkat,mkdir,rmdir,fsync,flock,socket,connect,bind,"
    "clone,clone3,fork,vfork,execve,setns,mount"
)
TRACE = "/run/trace"


@pytest.fixture
def member(host: PretendHost) -> Iterator[ClusterNode]:
    """Return a node whose duty has joined a cluster."""
    netns = open_netns(f"/proc/{host.first_pid}/ns/net")
    try:
        node = ClusterNode(host, netns)
        node.start_etcd()
        node.put("pools/pods", POOL)
        node.begin()
        node.until(lambda: len(node.published()) == 2 and node.report().get("isCurrent") and not node.alarms())
        yield node
    finally:
        netns.close()


def cost(node: ClusterNode) -> tuple[Counter[str], int]:
    """Return the least number of each call in five ADDs: one that waits for the kernel opens a socket more."""
    names, messages = zip(*(cost_once(node) for _ in range(5)), strict=True)
    return Counter({name: min(one[name] for one in names) for name in names[0]}), min(messages)


def cost_once(node: ClusterNode) -> tuple[Counter[str], int]:
    """Return the system calls of an ADD by name, and the number of its messages. Delete the pod then."""
    trace = f"?{COUNTED.replace(',', ',?')},sendto,sendmsg,{WAITS}"
    node.add("pod", prefix=("strace", "-f", "-qq", "-o", TRACE, "-e", f"trace={trace}"))
    node.delete("pod")
    calls = [line.split(maxsplit=1)[1] for line in (node.host.root / TRACE[1:]).read_text().splitlines()]
    assert not [call for call in calls if "sin_port" in call or "sin6_port" in call], "no call goes over the network"
    names = Counter(name for call in calls if (name := call.partition("(")[0]) in COUNTED.split(","))
    return names, messages_outside_waits(calls)


def test_an_add_costs_the_same(member: ClusterNode) -> None:
    """System calls, messages and processes are as many with the cluster's conflist and a running duty as by hand."""
    member.addresses("warm")  # it makes the bridge and the shared rules
    cost_once(member)
    with_cluster = cost(member)
    assert with_cluster[0]["execve"] >= 1 and with_cluster[1] > 5
    raw = member.conflist()
    member.kill_agent()
    member.etcd.members[0].kill()
    member.host.run("rm", "-r", f"/{CONFLIST}", "/etc/cni/pycni-cluster.json", "/var/lib/pycni/agent", "/run/pycni")
    plugin = dict(sorted(raw["plugins"][0].items()))
    member.config = {"cniVersion": raw["cniVersion"], "name": raw["name"], **plugin}
    assert cost(member) == with_cluster
