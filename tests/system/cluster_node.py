"""A pretend host that is a node of a cluster: real etcd in it, the agent's duties, and pods on a bridge."""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

from shared.cluster.etcd_gateway import encode
from shared.net.netns import Netns
from tests.agent.duties import Duties
from tests.etcd import CLIENT_PORT, PREFIX, Cluster
from tests.node import Node
from tests.pretend import PATH, TREE, PretendHost, read_line, until

URL = f"http://127.0.0.1:{CLIENT_PORT}"
SETTINGS = "/etc/cni/pycni-cluster.json"
TEMPLATE = "/etc/cni/pycni/pods.conflist"
CONFLIST = "etc/cni/net.d/10-pods.conflist"
REPORT = "run/pycni/cluster.json"
BRIDGE = {
    "type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "ipMasq": True, "ipam": {"type": "host-local"},
}  # fmt: skip
POOL = {
    "kind": "routed",
    "ranges": [{"cidr": "10.244.0.0/16", "blockLength": 28}, {"cidr": "fd00:244::/48", "blockLength": 124}],
}
UPLINK = """
ip link add up0 type veth peer name up1
ip address add 192.0.2.9/24 dev up0
ip address add 2001:db8::9/64 dev up0 nodad
ip link set up0 up; ip link set up1 up
ip route add default via 192.0.2.254
ip route add default via 2001:db8::254
"""

STEPS = """
import json, sys, threading, time
from shared.cluster import settings
from shared.cluster.checkpoint import Store
from shared.cluster.engines import connect
from shared.cluster.executor import Executor
from shared.cluster.node import NodeHost
chosen = settings.read()
name, store = chosen.node_name(), Store()
engine = connect(chosen, name)
executor = Executor(engine, NodeHost(chosen, name, store.uid), store)
states = []
threading.Thread(target=engine.follow, args=(states.append,), daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    while not states:
        time.sleep(0.01)
    step = executor.step(states[-1], float(line), time.time())
    print(json.dumps([step.failure, [type(one).__name__ for one in step.decision.actions]]), flush=True)
"""


class Steps:
    """An executor on the node in a process of its own, which does a step when a test says so, at a virtual time."""

    def __init__(self, host: PretendHost) -> None:
        env = {"PATH": PATH, "PYTHONPATH": TREE}
        self.process = host.popen(sys.executable, "-B", "-W", "error", "-c", STEPS, env=env)
        assert read_line(self.process) == b"ready\n", self.process.communicate()

    def at(self, now: float) -> list[str]:
        """Do a step at a moment in seconds. Return its actions."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{now}\n".encode())
        self.process.stdin.flush()
        line = read_line(self.process)
        assert line, self.process.communicate()
        failure, actions = json.loads(line)
        assert not failure, failure
        return list(actions)


class ClusterNode(Node):
    """The host and its etcd. `begin` starts the duties."""

    def __init__(self, host: PretendHost, network: Netns, **settings: Any) -> None:
        super().__init__(host)
        self.network = network
        self.etcd = Cluster(host, network)
        host.run("sh", "-ec", UPLINK)
        host.run("mkdir", "-p", "/etc/cni/pycni")
        self.write_template(BRIDGE)
        self.settings: dict[str, Any] = {
            "engine": "etcd",
            "etcd": {"endpoints": [URL]},
            "networks": {"pods": {}},
            **settings,
        }
        self.duties: Duties | None = None

    def write_template(self, *plugins: dict[str, Any]) -> None:
        raw = {"cniVersion": "1.1.0", "name": "pods", "plugins": plugins}
        self.host.run("tee", TEMPLATE, input=json.dumps(raw))

    def start_etcd(self) -> None:
        with self.network:
            self.etcd.start()

    def objects(self) -> dict[str, Any]:
        """Return etcd's objects by their keys."""
        with self.network:
            return {
                key: json.loads(base64.b64decode(kv["value"])) for key, kv in self.etcd.keys().items() if "value" in kv
            }

    def put(self, key: str, value: object) -> None:
        with self.network:
            self.etcd.put(key, json.dumps(value).encode())

    def delete_key(self, key: str) -> None:
        with self.network:
            self.etcd.call("kv/deleterange", key=encode(f"{PREFIX}{key}".encode()))

    def begin(self, **settings: Any) -> Duties:
        """Start the duties process, with the cluster duty alone unless the settings say more."""
        self.write_settings()
        chosen = {"heal": False, "collect": False, "metrics": "", "cluster": True, **settings}
        self.duties = Duties(self.host, **chosen)
        return self.duties

    def write_settings(self) -> None:
        self.host.run("tee", SETTINGS, input=json.dumps(self.settings))

    def kill_agent(self) -> None:
        assert self.duties is not None
        self.duties.process.kill()
        self.duties.process.wait()

    def report(self) -> dict[str, Any]:
        """Return the duty's report; empty before the first one."""
        try:
            return dict(json.loads((self.host.root / REPORT).read_text()))
        except FileNotFoundError:
            return {}

    def alarms(self) -> set[str]:
        return {one["name"] for one in self.report().get("alarms", [])}

    def ranges(self) -> list[dict[str, Any]]:
        """Return the ranges of the network as the last step saw them before it acted."""
        return list(self.report().get("networks", {}).get("pods", {}).get("ranges", []))

    def conflist(self) -> dict[str, Any]:
        """Return the published conflist; empty without one."""
        try:
            return dict(json.loads((self.host.root / CONFLIST).read_text()))
        except FileNotFoundError:
            return {}

    def published(self) -> list[list[str]]:
        """Return the CIDRs of the published ranges, one list for each family."""
        plugins = self.conflist().get("plugins", [])
        sets = plugins[0]["ipam"]["ranges"] if plugins else []
        return [[one["subnet"] for one in entries] for entries in sets]

    def until(self, condition: Any, *, seconds: float = 30) -> None:
        """Wait for a condition while the duties run. Fail with their log and the report."""
        assert self.duties is not None
        try:
            until(condition, self.duties.require, seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.duties.said()} {json.dumps(self.report())}") from None

    def routes(self) -> dict[str, str]:
        """Return the agent's routes: the next hop to each CIDR, or the device of a tunnel."""
        found = [*self.host.ip("route", "show", "proto", "112"), *self.host.ip("-6", "route", "show", "proto", "112")]
        return {one["dst"]: one["dev"] if one["dev"].startswith("pycni.") else one["gateway"] for one in found}

    def use_conflist(self) -> None:
        """Let pods be attached by the published conflist, as a runtime reads it."""
        raw = self.conflist()
        self.config = {"cniVersion": raw["cniVersion"], "name": raw["name"], **raw["plugins"][0]}

    def addresses(self, pod: str) -> list[str]:
        """Attach a pod, and return its addresses."""
        self.use_conflist()
        return [one["address"] for one in self.add(pod)["ips"]]
