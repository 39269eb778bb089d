"""The suites' hosts, and the networks whose calls are measured on each of them in turn."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Self

from tests import dhcp_lan
from tests.agent.running import Agent
from tests.plugins import SAMPLES, Keys, links
from tests.pretend import PATH, PretendHost, read_line, run_installer, until

STOPWATCH = str(Path(__file__).with_name("stopwatch.py"))
NETWORK = "bench"
STORE = "/var/lib/cni/bench"
FIRST_LEASE = IPv4Address("10.64.0.2")
FIRST_PORT = 20000
SETTLE_SECONDS = 0.02  # before each call: the kernel's deferred work ends without being charged to the next call
AT_ONCE = 10
DAEMON_SOCKET = "run/cni/dhcp.sock"


def ranges(subnet: str) -> Keys:
    return {"ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]}


IPAM: Keys = {"type": "host-local", "dataDir": STORE, **ranges("10.64.0.0/14")}
BRIDGE: Keys = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": IPAM}
MASQUERADING: Keys = BRIDGE | {"ipMasq": True}
PORTMAP: Keys = {"type": "portmap"}
PTP: Keys = SAMPLES["ptp"].keys | {"ipam": IPAM | {"dataDir": f"{STORE}-ptp"} | ranges("10.72.0.0/14")}
CHAIN = (MASQUERADING, PORTMAP, {"type": "firewall"}, SAMPLES["bandwidth"].keys)


@dataclass(frozen=True)
class Network:
    """A list of plugins, by the name of its row. With `timed`, the time of that plugin alone counts.

    `needs` is the marker of the feature that a kernel may lack (tests/kernel/features.py).
    """

    row: str
    plugins: tuple[Keys, ...]
    timed: str = ""
    ifname: str = "eth0"
    needs: str = ""


LOOPBACK = Network("loopback", (SAMPLES["loopback"].keys,), ifname="lo")
PLAIN = Network("bridge", (BRIDGE,))
MASQ = Network("masq", (MASQUERADING,))
POINT_TO_POINT = Network("ptp", (PTP,))
PORTS = Network("portmap", (BRIDGE, PORTMAP), timed="portmap")
FOUR = Network("chain", CHAIN)


def of_links(number: int, name: str, keys: Keys) -> Network:
    """Return the network of a plugin that makes or moves one link, with a store and addresses of its own."""
    ipam = IPAM | {"dataDir": f"{STORE}-{name}"} | ranges(f"10.{number}.0.0/16")
    return Network(name, ({"type": name, **keys, "ipam": ipam},), needs=SAMPLES[name].needs)


LINKED = [
    of_links(80, "macvlan", {"master": "up0"}), of_links(81, "ipvlan", {"master": "up1"}),
    of_links(82, "vlan", {"master": "up0", "vlanId": 100}), of_links(83, "dummy", {}),
    of_links(84, "host-device", {"device": "dev0"}), of_links(85, "tap", {}),
]  # fmt: skip
CHAINED = [
    Network("static", (SAMPLES["static"].keys,)),
    Network("sbr", (BRIDGE, {"type": "sbr"}), timed="sbr"),
    Network("vrf", (BRIDGE, SAMPLES["vrf"].keys), timed="vrf", needs="kernel_vrf"),
]
OTHERS = LINKED + CHAINED
DHCP = Network("dhcp", ({"type": "bridge", "bridge": "br0", "ipam": {"type": "dhcp"}},))
DHCP_ADDRESSES = "10.9.0.10,10.9.0.250"
MACVLAN = LINKED[0]
LINKS = links(SAMPLES[one.row] for one in LINKED)


@dataclass
class Pod:
    """A namespace and its attachment, if it has one."""

    netns: str
    number: int = 0
    result: Any = None


@dataclass
class Suite:
    """One suite on a pretend host of its own: calls of it are executed and timed there."""

    name: str
    bin_dir: Path
    host: PretendHost
    agent: Agent | None = None
    numbers: Any = field(default_factory=lambda: itertools.count(1))
    pods: list[Pod] = field(default_factory=list)  # AT_ONCE of them, which take turns

    def __post_init__(self) -> None:
        self._stopwatch = self.host.popen(sys.executable, "-I", STOPWATCH, stderr=None)
        self.pods = [self.make_pod(f"pod{number}") for number in range(AT_ONCE)]

    def ask(self, **job: Any) -> Any:
        assert self._stopwatch.stdin and self._stopwatch.stdout
        self._stopwatch.stdin.write(json.dumps(job).encode() + b"\n")
        self._stopwatch.stdin.flush()
        line = read_line(self._stopwatch, seconds=600)
        if not line:
            sys.exit(f"bench: {self.name}: the stopwatch ended with status {self._stopwatch.wait()}")
        return json.loads(line)

    def has(self, network: Network) -> bool:
        """Return True if the suite has each plugin of a network."""
        return all((self.bin_dir / str(keys["type"])).exists() for keys in network.plugins)

    def make_pod(self, name: str) -> Pod:
        self.ask(netns=f"/run/netns/{name}")
        return Pod(f"/run/netns/{name}")

    def _call(self, verb: str, network: Network, keys: Keys, pod: Pod) -> Keys:
        """Return the stopwatch's description of one execution."""
        config: Keys = {"cniVersion": "1.0.0", "name": NETWORK, **keys}
        if keys is PORTMAP:
            ports = [
                {"hostPort": FIRST_PORT + 2 * pod.number + place, "containerPort": 80 + place, "protocol": "tcp"}
                for place in range(2)
            ]
            config["runtimeConfig"] = {"portMappings": ports}
        if pod.result is not None:
            config["prevResult"] = pod.result
        variables = {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": f"{pod.number:064x}", "CNI_NETNS": pod.netns,
            "CNI_IFNAME": network.ifname, "CNI_PATH": str(self.bin_dir), "PATH": PATH,
            "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME=pod",
        }  # fmt: skip
        return {"argv": [f"{self.bin_dir}/{keys['type']}"], "env": variables, "stdin": json.dumps(config)}

    def run(self, verb: str, network: Network, pods: Sequence[Pod], *, settle: float = SETTLE_SECONDS) -> float:
        """Call one verb of all plugins as a runtime does, for all pods at once. Return the ms of the timed ones."""
        if verb == "ADD":
            self._renew(pods)
        time = 0.0
        for keys in network.plugins if verb == "ADD" else network.plugins[::-1]:
            calls = [self._call(verb, network, keys, pod) for pod in pods]
            done = self.ask(calls=calls, settle=settle)
            self._keep(verb, network, pods, done["answers"])
            if network.timed in ("", keys["type"]):
                time += done["wall"]
        return time

    def peak(self, verb: str, network: Network) -> float:
        """Call one verb of a network with one plugin. Return the peak memory in MiB of its largest process."""
        (keys,), pods = network.plugins, self.pods[:1]
        if verb == "ADD":
            self._renew(pods)
        done = self.ask(peak=self._call(verb, network, keys, pods[0]))
        self._keep(verb, network, pods, done["answers"])
        return float(done["peak"])

    def _renew(self, pods: Sequence[Pod]) -> None:
        """Give pods new container ids."""
        for pod in pods:
            pod.number, pod.result = next(self.numbers), None

    def _keep(self, verb: str, network: Network, pods: Sequence[Pod], answers: Sequence[Any]) -> None:
        """Keep the results. End the run if a call failed."""
        for pod, answer in zip(pods, answers, strict=True):
            if answer["status"] != 0:
                texts = f"{answer['stdout']}{answer['stderr']}"
                sys.exit(f"bench: {self.name}, {network.row} {verb}: exit status {answer['status']}\n{texts}")
            if verb == "ADD":
                pod.result = json.loads(answer["stdout"])

    def execute(self, *argv: str) -> float:
        """Execute a command that is no plugin. Return its ms."""
        return float(self.ask(calls=[{"argv": argv, "env": {}, "stdin": ""}], settle=SETTLE_SECONDS)["wall"])

    def peak_of(self, *argv: str) -> float:
        """Execute a command that is no plugin. Return its peak memory in MiB."""
        return float(self.ask(peak={"argv": argv, "env": {}, "stdin": ""})["peak"])

    def populate(self, network: Network, present: int, count: int) -> None:
        """Attach pods until there are `count`. They stay as long as the host."""
        for number in range(present, count):
            self.run("ADD", network, [self.make_pod(f"kept-{network.row}{number}")], settle=0)

    def serve_dhcp(self) -> None:
        """Start a DHCP server beyond br0, and the daemon of the suite's dhcp plugin."""
        dhcp_lan.make(self.host)
        dhcp_lan.serve(self.host, addresses=DHCP_ADDRESSES)
        if self.name != "reference":
            dhcp_lan.start_daemon(self.host)
            return
        self.host.run("mkdir", "-p", f"/{DAEMON_SOCKET.rpartition('/')[0]}")
        self.host.popen(f"{self.bin_dir}/dhcp", "daemon", stderr=subprocess.DEVNULL)
        until((self.host.root / DAEMON_SOCKET).exists)

    def write_leases(self, network: Network, count: int) -> None:
        """Put leases into a network's store, file by file as the reference leaves them."""
        ipam = network.plugins[0]["ipam"]
        store = self.host.root / f"{ipam['dataDir']}/{NETWORK}".lstrip("/")
        store.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            lease = store / str(FIRST_LEASE + number)
            if not lease.exists():
                lease.write_bytes(f"f{number:063x}\r\neth0".encode())
        (store / "last_reserved_ip.0").write_text(str(FIRST_LEASE + count - 1))


class Suites(list[Suite]):
    """The suites, each on its host; a context manager."""

    def __init__(self, bin_dirs: dict[str, Path]) -> None:
        super().__init__()
        self._stack = ExitStack()
        for name, bin_dir in bin_dirs.items():
            host = self._stack.enter_context(PretendHost(bin_dir))
            agent = self._stack.enter_context(Agent(host)) if name == "agent" else None
            self.append(Suite(name, bin_dir, host, agent))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def in_turn(self, number: int) -> list[Suite]:
        """Return the suites in the order of this round: another one is the first each time."""
        first = number % len(self)
        return [*self[first:], *self[:first]]


def install(into: Path, *options: str) -> tuple[Path | None, str]:
    """Install the suite below a directory of this run. Return its bin directory, or None and the reason."""
    done = run_installer(into, *options)
    return (None if done.returncode else into / "bin"), (done.stdout + done.stderr).strip()
