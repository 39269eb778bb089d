"""Run the demo: two pods get their network as from a kubelet and lose it again; each expectation is verified.

Start this as a script with --bin-dir, as root. It runs in namespaces of its own and hides the directories that it
writes to under tmpfs. So it changes nothing of the machine, and everything it creates ends with the namespaces.
"""

from __future__ import annotations

import argparse
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from shared.cli import throwaway
from shared.cli.demo import agent
from shared.cli.demo.ping import ping
from shared.cli.terminal import paint, print_heading, print_ok, print_table, readable, say, tell_failure
from shared.cli.throwaway import Failure, expect
from shared.cni.errors import CniError
from shared.net import links
from shared.net.netlink import Netlink
from shared.net.netns import open_netns
from shared.net.wire import RTM_GETADDR, RTM_GETLINK, RTM_GETROUTE
from shared.runtime.attach import PluginError
from shared.runtime.cache import CacheError
from shared.runtime.conflist import ConfigError
from shared.runtime.find import PluginNotFound
from shared.runtime.pods import Pod, PodNetwork

CONF_DIR = Path("/etc/cni/net.d")
STATE_DIR = Path("/var/lib/cni")
NETNS_DIR = Path("/run/netns")
HIDDEN = (Path("/run"), STATE_DIR, CONF_DIR.parent)  # /run first: the other two may keep their originals there
PLUGIN_LIMIT = 20.0  # seconds; a plugin that hangs must not block the demo for long

BRIDGE = "cni0"
NETWORK: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "demo",
    "plugins": [
        {
            "type": "bridge",
            "bridge": BRIDGE,
            "isDefaultGateway": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd00:88::/64"}]],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
GATEWAYS = ("10.88.0.1", "fd00:88::1")
HOST_PORT, POD_PORT = 8080, 80  # of the first pod
LOCALHOST = "127.0.0.1"
ANSWER_LIMIT = 5.0  # seconds

EXPECTED = {"pods' links on the host": 2, "addresses leased": 4, "network namespaces of pods": 2}

RT_TABLE_MAIN = 254  # linux/rtnetlink.h


@dataclass
class DemoPod:
    """A pod of the demo; `links` (before its network) and `addresses` are set during set-up."""

    name: str
    container_id: str
    netns: Path
    ports: list[dict[str, Any]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    @property
    def sandbox(self) -> Pod:
        """Return the pod in the form that PodNetwork takes."""
        return Pod("demo", self.name, self.container_id, str(self.netns), {"portMappings": self.ports})


def main() -> int:
    """Run the demo. Return 0 if every expectation held, else 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(description="Show the installed plugins at work, in namespaces of its own.")
    parser.add_argument("--bin-dir", required=True, type=Path, help="where the plugins are installed")
    parser.add_argument("--outside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        if options.outside is None:
            enter_namespaces(options.bin_dir.resolve())
        throwaway.expect_own(options.outside.split())
        demonstrate(options.bin_dir)
    except (Failure, PluginError, PluginNotFound, ConfigError, CacheError, CniError, OSError) as error:
        return tell_failure(error)
    except KeyboardInterrupt:
        return 130
    return 0


def demonstrate(bin_dir: Path) -> None:
    """Set up two pods on an empty host, use them, and tear them down."""
    pods = prepare(bin_dir)
    own_links = link_names()
    before = count(own_links)

    both = [DemoPod(f"pod{number}", f"demo-container-{number}", NETNS_DIR / f"pod{number}") for number in (1, 2)]
    both[0].ports = [{"hostPort": HOST_PORT, "containerPort": POD_PORT, "protocol": "tcp"}]
    for pod in both:
        set_up(pods, pod)
    ping_all(*both)
    use_host_port(*both)
    during = count(own_links)

    print_heading("CHECK")
    for pod in both:
        expect(pods.check(pod.sandbox), f"{pod.name} was not checked")
        print_ok(f"{pod.name} is as it was set up")

    print_heading("Tear-down")
    for pod in both:
        print_ok(f"{pod.name}: {tear_down(pods, pod):.0f} ms")
    if agent.is_installed(bin_dir):
        agent.compare(bin_dir, lambda: come_and_go(pods, both[0]))
    after = count(own_links)
    expect(ask(LOCALHOST) is None, f"host port {HOST_PORT} still answers")

    show_counts(before, during, after)


def prepare(bin_dir: Path) -> PodNetwork:
    """Hide the machine's state, write the configuration, and bring up the host's loopback as on a machine."""
    for directory in HIDDEN:
        throwaway.hide(directory)
    for directory in (CONF_DIR, NETNS_DIR):
        directory.mkdir(parents=True, exist_ok=True)

    print_heading("Two pods get their network, in a kubelet's way")
    say(f"Plugins from {bin_dir}. The demo has its own network, mounts and processes; the machine is not changed.")
    conf_file = CONF_DIR / "10-demo.conflist"
    conf_file.write_text(readable(NETWORK) + "\n")
    say(f"{conf_file}:\n{conf_file.read_text().rstrip()}")
    pods = PodNetwork(CONF_DIR, [bin_dir], limit=PLUGIN_LIMIT, warn=say)
    pods.status()
    with closing(Netlink()) as host:
        links.set_up(host, links.require(host, "lo")["index"])
    return pods


def show_counts(before: dict[str, int], during: dict[str, int], after: dict[str, int]) -> None:
    """Print the counts before, with and after the pods. Raise Failure if something is left."""
    print_heading("Nothing is left")
    print_table(("", "before", "with pods", "after"), [[key, before[key], during[key], after[key]] for key in EXPECTED])
    say(f"(The bridge {BRIDGE} stays on purpose: the next pod uses it.)")
    expect(during == EXPECTED, f"the two pods must account for {EXPECTED}")
    expect(not any(before.values()) and not any(after.values()), "something is left behind")
    say(
        paint(
            "1;32",
            "\nSUCCESS: two pods had networks over IPv4 and IPv6, one had a host port, and nothing of them is left.",
        )
    )


def set_up(pods: PodNetwork, pod: DemoPod) -> None:
    """Create the pod's namespace, set the pod up, print it and compare it with the result."""
    print_heading(f"{pod.name}: set-up")
    throwaway.new_netns(pod.netns)
    pod.links = link_names(pod.netns)
    started = time.monotonic()
    result = pods.set_up(pod.sandbox)
    print_ok(f"loopback, then network {result.network.name}: {milliseconds_since(started):.0f} ms")
    say(f"result: {readable(result.default)}")

    addresses, routes = addresses_of(pod.netns), routes_of(pod.netns)
    say("inside the pod:")
    print_table(("interface", "address"), addresses)
    print_table(("destination", "via", "interface"), routes)

    pod.addresses = [item["address"].split("/")[0] for item in result.default.get("ips", [])]
    families = sorted(ip_address(address).version for address in pod.addresses)
    expect(families == [4, 6], f"{pod.name} must get one IPv4 and one IPv6 address, not {pod.addresses}")
    expect(("lo", "127.0.0.1/8") in addresses, f"{pod.name}: lo is not up with 127.0.0.1")
    for item in result.default["ips"]:
        expect(("eth0", item["address"]) in addresses, f"{pod.name}: {item['address']} of the result is not on eth0")
    for gateway in GATEWAYS:
        expect(("default", gateway, "eth0") in routes, f"{pod.name} has no default route via {gateway}")
    expect(pods.addresses(pod.sandbox) == pod.addresses, f"{pod.name}'s status does not tell its addresses")


def ping_all(first: DemoPod, second: DemoPod) -> None:
    """Ping the gateway and the other pod from each pod, over both families."""
    print_heading("Ping")
    for source, other in ((first, second), (second, first)):
        for name, targets in (("gateway", GATEWAYS), (other.name, other.addresses)):
            for target in targets:
                with enter(source.netns):
                    took = ping(target)
                if took is None:
                    raise Failure(f"no answer to {source.name} from {target} ({name})")
                print_ok(f"{source.name} → {name} {target}: {took * 1000:.2f} ms")


def use_host_port(server: DemoPod, other: DemoPod) -> None:
    """Run a server in the first pod, and call it by the host port from the host and from the other pod."""
    print_heading("Host port")
    with enter(server.netns):
        listener = socket.create_server(("::", POD_PORT), family=socket.AF_INET6, dualstack_ipv6=True)
    with listener:
        threading.Thread(target=serve, args=(listener, server.name), daemon=True).start()
        for name, where, targets in (("host", None, (LOCALHOST, *GATEWAYS)), (other.name, other.netns, GATEWAYS)):
            for target in targets:
                with enter(where) if where else nullcontext():
                    said = ask(target)
                expect(
                    said == server.name, f"port {HOST_PORT} of {target} does not lead {name} to {server.name}: {said}"
                )
                print_ok(f"{name} → {target} port {HOST_PORT}: answered by {server.name}, port {POD_PORT}")


def serve(listener: socket.socket, name: str) -> None:
    """Send a name to each client until the listener is closed."""
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            with client:
                client.sendall(name.encode())


def ask(address: str) -> str | None:
    """Return the name that the server behind an address's host port sends, None if there is no answer."""
    try:
        with socket.create_connection((address, HOST_PORT), timeout=ANSWER_LIMIT) as client:
            return client.recv(100).decode()
    except OSError:
        return None


def come_and_go(pods: PodNetwork, pod: DemoPod) -> dict[str, float]:
    """Set a pod up and tear it down again. Return the milliseconds of both."""
    throwaway.new_netns(pod.netns)
    started = time.monotonic()
    pods.set_up(pod.sandbox)
    return {"set-up": milliseconds_since(started), "tear-down": tear_down(pods, pod)}


def tear_down(pods: PodNetwork, pod: DemoPod) -> float:
    """Detach the pod, check that its namespace is as before, and delete it. Return the detaching's milliseconds."""
    started = time.monotonic()
    pods.tear_down(pod.sandbox)
    took = milliseconds_since(started)
    left = set(link_names(pod.netns)) - set(pod.links)
    expect(not left, f"{pod.name} still has {', '.join(left)}")
    throwaway.delete_netns(pod.netns)
    return took


def link_names(netns: Path | None = None) -> list[str]:
    """Return the link names in a pod's namespace, or on the host."""
    return [link["IFLA_IFNAME"] for link in dump_kernel(netns, RTM_GETLINK)]


def addresses_of(netns: Path) -> list[tuple[str, str]]:
    """Return a pod's addresses as (interface, address with prefix length)."""
    names = link_names_by_index(netns)
    found = sorted(dump_kernel(netns, RTM_GETADDR), key=lambda address: address["index"])
    return [(names[got["index"]], f"{got['IFA_ADDRESS']}/{got['prefixlen']}") for got in found]


def routes_of(netns: Path) -> list[tuple[str, str, str]]:
    """Return a pod's main routes as (destination, gateway, interface)."""
    names = link_names_by_index(netns)
    return [
        (
            f"{got['RTA_DST']}/{got['dst_len']}" if got["dst_len"] else "default",
            got.get("RTA_GATEWAY", ""),
            names[got["RTA_OIF"]],
        )
        for got in dump_kernel(netns, RTM_GETROUTE)
        if got.get("RTA_TABLE") == RT_TABLE_MAIN and "RTA_OIF" in got
    ]


def link_names_by_index(netns: Path) -> dict[int, str]:
    """Return a pod's link names by index."""
    return {link["index"]: link["IFLA_IFNAME"] for link in dump_kernel(netns, RTM_GETLINK)}


def dump_kernel(netns: Path | None, kind: int) -> list[dict[str, Any]]:
    """Return all kernel objects of a kind, in a pod's namespace or on the host."""
    with enter(netns) if netns else nullcontext(), closing(Netlink()) as netlink:
        return netlink.dump(kind)


@contextmanager
def enter(netns: Path) -> Iterator[None]:
    """Run the body in a pod's network namespace, and close it afterwards so that it can be deleted."""
    with closing(open_netns(str(netns))) as pod, pod:
        yield


def count(own_links: Iterable[str]) -> dict[str, int]:
    """Count the things that pods can leave on a host: links beyond its own, leases, namespaces."""
    return dict(
        zip(
            EXPECTED,
            (
                len(set(link_names()) - set(own_links) - {BRIDGE}),
                sum(is_address(path.name) for path in STATE_DIR.glob("networks/*/*")),
                len(list(NETNS_DIR.iterdir())),
            ),
            strict=True,
        )
    )


def is_address(text: str) -> bool:
    """Return True if a file name in host-local's store is a lease."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def enter_namespaces(bin_dir: Path) -> NoReturn:
    """Start over, in network, mount and process namespaces that end with the demo."""
    throwaway.expect_visible((bin_dir, Path(__file__)), HIDDEN)
    throwaway.start_over(__file__, "--bin-dir", str(bin_dir))


def milliseconds_since(started: float) -> float:
    """Return the milliseconds since a reading of time.monotonic."""
    return (time.monotonic() - started) * 1000


if __name__ == "__main__":
    sys.exit(main())
