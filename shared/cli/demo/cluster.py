"""Run the cluster demo: three nodes and an etcd, each in namespaces of its own; each expectation is verified.

Start this as a script with --bin-dir, as root. Everything that it creates ends with the namespaces. The machine's files
and network are not changed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from shared.cli import throwaway
from shared.cli.demo.nodes import HIDDEN, Etcd, Node, prepare_router, serve
from shared.cli.demo.ping import ping
from shared.cli.terminal import paint, print_heading, print_ok, print_table, readable, say, tell_failure
from shared.cli.throwaway import Failure, expect
from shared.cluster import conflist, routes
from shared.cni.errors import CniError
from shared.net.netns import open_netns

NETWORK = "pods"
POOL = {
    "network": NETWORK,
    "kind": "routed",
    "ranges": [{"cidr": "10.244.0.0/16", "blockLength": 28}, {"cidr": "fd00:244::/112", "blockLength": 124}],
}
BRIDGE = {"type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "ipMasq": True, "ipam": {"type": "host-local"}}
TEMPLATE = {"cniVersion": "1.0.0", "name": NETWORK, "plugins": [BRIDGE]}
CONFLIST = f"/etc/cni/net.d/10-{NETWORK}.conflist"
ETCD_ADDRESS = "10.1.0.254"  # the router's
PLACES = {"node1": (1, 1), "node2": (1, 2), "node3": (2, 3)}  # number of the link, and of the node
MAP = """
  node1 10.1.0.1 ──┐
  node2 10.1.0.2 ──┴── router and etcd 10.1.0.254 ────── node3 10.2.0.3
"""
NEEDED = {"etcd": "etcd-server", "ip": "iproute2", "nsenter": "util-linux"}  # programs and their Debian packages
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.05
Ways = dict[tuple[str, str], str]


class Demo:
    """The nodes, etcd, and the pods' addresses by their names and nodes."""

    def __init__(self, bin_dir: Path, etcd: Etcd) -> None:
        self.bin_dir, self.etcd = bin_dir, etcd
        self.nodes: dict[str, Node] = {}
        self.pods: dict[tuple[str, str], list[str]] = {}

    def close(self) -> None:
        """End the nodes."""
        for node in self.nodes.values():
            node.close()

    def add_node(self, name: str) -> Node:
        """Create a node, in place of a former one of its name."""
        self.nodes[name] = Node(__file__, name, *PLACES[name])
        return self.nodes[name]

    def cnitool(self, name: str, *words: str) -> str:
        """Run cnitool on a node. Return its output."""
        variables = (f"CNI_PATH={self.bin_dir}", f"NETCONFPATH={Path(CONFLIST).parent}")
        return self.nodes[name].run(f"{self.bin_dir}/cnitool", *words, variables=variables)

    def show(self, name: str, *words: str) -> None:
        """Print a command line of cnitool and its output, as on the node's terminal."""
        say(paint("2", f"{name}# cnitool {' '.join(words)}"))
        say("\n".join(f"  {line}".rstrip() for line in self.cnitool(name, *words).splitlines()))

    def start_agent(self, name: str) -> None:
        """Run the agent's duties on a node."""
        self.nodes[name].start(f"{self.bin_dir}/cnitool", "agent", "run")

    def attach(self, name: str, pod: str) -> float:
        """Attach a new pod on a node. Return the milliseconds."""
        node, path = self.nodes[name], f"/run/netns/{pod}"
        node.run("ip", "netns", "add", pod)
        started = time.monotonic()
        result = json.loads(self.cnitool(name, "add", NETWORK, path, "--container-id", pod))
        took = (time.monotonic() - started) * 1000
        self.pods[name, pod] = [one["address"].partition("/")[0] for one in result["ips"]]
        expect(len(self.pods[name, pod]) == 2, f"{pod} must have an address of each family: {result}")
        return took

    def detach(self, name: str, pod: str) -> None:
        """Detach a pod, and delete its namespace if it exists."""
        self.cnitool(name, "del", NETWORK, f"/run/netns/{pod}", "--container-id", pod)
        if (self.nodes[name].root / "run/netns" / pod).exists():
            self.nodes[name].run("ip", "netns", "delete", pod)
        del self.pods[name, pod]

    def ranges(self, name: str) -> list[str]:
        """Return the blocks in a node's conflist."""
        return [str(one) for one in conflist.published(self.nodes[name].root / CONFLIST.lstrip("/"))]

    def routes(self, name: str) -> dict[str, str]:
        """Return the way to each CIDR that the agent has a route to."""
        with entered(f"/proc/{self.nodes[name].pid}/ns/net"):
            found = routes.read(())
        return {str(one.cidr): "VXLAN" if one.is_tunnelled else "direct" for one in found}

    def await_network(self) -> None:
        """Wait until each node has blocks of both families, and routes to the others' blocks."""

        def is_complete() -> bool:
            blocks = {name: set(self.ranges(name)) for name in self.nodes}
            every = set().union(*blocks.values())
            return all(
                len(own) >= 2 and every - own <= self.routes(name).keys() for name, own in blocks.items()
            )  # fmt: skip

        self.await_true(is_complete, "the nodes have no blocks, or no routes to each other")

    def await_synchronised(self, *, truth: bool = True) -> None:
        """Wait until each node's duty says that it is synchronised with etcd, or that it is not."""
        said = "node has not noticed that etcd answers again" if truth else "node has not noticed that etcd is gone"
        self.await_true(lambda: all(self.is_synchronised(name) is truth for name in self.nodes), said)

    def is_synchronised(self, name: str) -> bool | None:
        """Return the last word of a node's duty; None before the first one."""
        try:
            return bool(json.loads((self.nodes[name].root / "run/pycni/cluster.json").read_text())["isCurrent"])
        except (OSError, ValueError):
            return None

    def await_true(self, condition: Any, failure: str) -> None:
        """Wait for a condition. Raise Failure with the agents' logs if it does not come true."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                logs = "".join(f"\n{name}: {node.log()}" for name, node in self.nodes.items())
                raise Failure(f"{failure} after {PATIENCE_SECONDS:.0f} seconds{logs}")
            time.sleep(POLL_SECONDS)


def main() -> int:
    """Run the demo. Return 0 if every expectation held, else 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(description="Show a cluster of three nodes, in namespaces of its own.")
    parser.add_argument("--bin-dir", type=Path, help="where the plugins are installed")
    parser.add_argument("--outside", help=argparse.SUPPRESS)
    parser.add_argument("--node", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        if options.node:
            return serve()
        if options.outside is None:
            enter_namespaces(options.bin_dir.resolve())
        throwaway.expect_own(options.outside.split())
        demonstrate(options.bin_dir)
    except (Failure, CniError, OSError) as error:
        return tell_failure(error)
    except KeyboardInterrupt:
        return 130
    return 0


def enter_namespaces(bin_dir: Path) -> NoReturn:
    """Start over, in network, mount and process namespaces that end with the demo."""
    for program, package in NEEDED.items():
        expect(
            shutil.which(program), f"the demo needs the program {program}: install it with `apt-get install {package}`"
        )
    throwaway.expect_visible((bin_dir, Path(__file__)), HIDDEN)
    throwaway.start_over(__file__, "--bin-dir", str(bin_dir))


def demonstrate(bin_dir: Path) -> None:
    """Set up the cluster, use it, and break parts of it."""
    started = time.monotonic()
    throwaway.hide(Path("/run"))
    prepare_router()
    with Etcd(str(shutil.which("etcd")), Path("/run"), ETCD_ADDRESS) as etcd, closing(Demo(bin_dir, etcd)) as demo:
        build(demo)
        use(demo)
        lose_etcd(demo)
        boot(demo, "node3")
        finish(demo)
    took = time.monotonic() - started
    say(
        paint(
            "1;32",
            f"\nSUCCESS: pods of three nodes reached each other over IPv4 and IPv6, also without etcd ({took:.0f} s).",
        )
    )


def build(demo: Demo) -> None:
    """Start the nodes, write the pool, and show the blocks that the nodes claim."""
    print_heading("Three nodes, and etcd")
    say("Each node has its own network, mounts and processes. The machine is not changed.")
    say(MAP)
    settings = {"engine": "etcd", "etcd": {"endpoints": [demo.etcd.url]}, "networks": {NETWORK: {}}}
    duties = {"heal": False, "collect": False, "metrics": "", "cluster": True}
    for name in PLACES:
        node = demo.add_node(name)
        node.write("/etc/cni/pycni-agent.json", json.dumps(duties))
        node.write("/etc/cni/pycni-cluster.json", json.dumps(settings))
        node.write(f"/etc/cni/pycni/{NETWORK}.conflist", json.dumps(TEMPLATE))
        print_ok(f"{name} runs")
    say(f"/etc/cni/pycni-cluster.json of each node:\n{readable(settings)}")
    say(f"/etc/cni/pycni/{NETWORK}.conflist, the administrator's template:\n{readable(TEMPLATE)}")
    print_heading(f"A pool of addresses for the network {NETWORK}")
    demo.nodes["node1"].write("/run/pool.json", json.dumps(POOL))
    say(readable(POOL))
    demo.show("node1", "cluster", "pool", "set", "/run/pool.json")
    print_heading("The agents claim blocks, write them into the conflist, and make routes")
    for name in demo.nodes:
        demo.start_agent(name)
    demo.await_network()
    demo.show("node1", "cluster", "blocks")
    demo.show("node1", "cluster", "peers")


def use(demo: Demo) -> None:
    """Attach a pod on each node, and ping all pairs."""
    print_heading("A pod on each node")
    for number, name in enumerate(PLACES, 1):
        took = demo.attach(name, f"pod{number}")
        print_ok(f"{name}# cnitool add {NETWORK} /run/netns/pod{number}: {took:.0f} ms")
    print_heading("Every pod reaches every pod")
    ping_all(demo)


def ping_all(demo: Demo, one: str = "") -> None:
    """Ping each pod from each other one, or all pairs with one pod. Raise Failure without an answer."""
    rows = []
    for (name, pod), own in demo.pods.items():
        ways = demo.routes(name)
        for (other, target), addresses in demo.pods.items():
            if target == pod or one not in ("", pod, target):
                continue
            cells = []
            for address in addresses:
                with entered(f"{demo.nodes[name].root}/run/netns/{pod}"):
                    took = ping(address)
                if took is None:
                    raise Failure(f"no answer to {pod} on {name} from {target} on {other}, {address}")
                cells.append(f"{took * 1000:.2f} ms")
            way = "same node" if other == name else ways[demo.ranges(other)[0]]
            rows.append((f"{pod} {own[0]}", f"{target} {addresses[0]}", *cells, way))
    print_table(("from", "to", "IPv4", "IPv6", "way"), rows)


def lose_etcd(demo: Demo) -> None:
    """Kill etcd, attach a pod without it, and start it again."""
    print_heading("etcd dies: pods start all the same")
    demo.etcd.kill()
    demo.await_synchronised(truth=False)
    took = demo.attach("node2", "pod4")
    print_ok(f"node2# cnitool add {NETWORK} /run/netns/pod4: {took:.0f} ms, from node2's own block")
    ping_all(demo, "pod4")
    demo.etcd.start()
    demo.await_synchronised()
    print_ok("etcd is back, and each node has read it again")


def boot(demo: Demo, name: str) -> None:
    """Take a node's power away, and start it with the same disk. It has the same blocks."""
    print_heading(f"{name} loses its power, and comes back")
    before = demo.ranges(name)
    node = demo.nodes[name]
    node.save(Path("/run/disk"))
    node.close()
    lost = [pod for place, pod in demo.pods if place == name]
    node = demo.add_node(name)
    node.restore(Path("/run/disk"))
    demo.start_agent(name)
    demo.await_network()
    expect(demo.ranges(name) == before, f"{name} had the blocks {before}, and has {demo.ranges(name)} after its boot")
    print_ok(f"{name} has its blocks {' and '.join(before)}, as its own disk says")
    for pod in lost:
        demo.detach(name, pod)
        print_ok(f"{name}# cnitool del {NETWORK} /run/netns/{pod}: a runtime does so after a boot")
    demo.attach(name, "pod5")
    ping_all(demo, "pod5")


def finish(demo: Demo) -> None:
    """Show the state, and detach all pods. Raise Failure if an address stays leased."""
    print_heading("The cluster as node1 sees it")
    demo.show("node1", "cluster", "status")
    print_heading("Tear-down")
    for name, pod in list(demo.pods):
        demo.detach(name, pod)
    for name, node in demo.nodes.items():
        left = [one for one in node.run("ls", f"/var/lib/cni/networks/{NETWORK}").split() if is_address(one)]
        expect(not left, f"{name} has leases without pods: {', '.join(left)}")
    print_ok("no pod's address is leased any more; the blocks stay the nodes' own, for their next pods")


def is_address(text: str) -> bool:
    """Return True if a file name in host-local's store is a lease."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


@contextmanager
def entered(netns: str) -> Iterator[None]:
    """Run the body in a network namespace."""
    with closing(open_netns(netns)) as found, found:
        yield


if __name__ == "__main__":
    sys.exit(main())
