"""The demo: two pods get their network in a kubelet's way and lose it again, each expectation verified.

Started as a script with --bin-dir, as root. It runs in namespaces of its own and hides the directories it writes to
under tmpfs, so it touches nothing of the machine's network and whatever it made goes with the namespaces.
"""

from __future__ import annotations

import argparse
import os
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
from shared.cli.demo.ping import ping
from shared.cli.terminal import good, heading, paint, readable, say, table
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
HIDDEN = (Path("/run"), STATE_DIR, CONF_DIR.parent)  # /run first: the other two may keep the originals there
PLUGIN_LIMIT = 20.0  # seconds; a plugin that hangs must not make the demo hang for long

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
    """A pod of the demo; links (without a network) and addresses are there once it is set up."""

    name: str
    container_id: str
    netns: Path
    ports: list[dict[str, Any]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    @property
    def sandbox(self) -> Pod:
        """The pod as a PodNetwork wants to know it."""
        return Pod("demo", self.name, self.container_id, str(self.netns), {"portMappings": self.ports})


def main() -> int:
    """Exit status: 0 if everything was as expected, 1 with the reason on stderr."""
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
        sys.stdout.flush()
        for line in (str(error), *getattr(error, "__notes__", [])):
            print(paint("1;31", f"FAILED: {line}", sys.stderr), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def demonstrate(bin_dir: Path) -> None:
    """The story, from an empty host to an empty host."""
    for directory in HIDDEN:
        throwaway.hide(directory)
    for directory in (CONF_DIR, NETNS_DIR):
        directory.mkdir(parents=True, exist_ok=True)

    heading("Two pods get their network, in a kubelet's way")
    say(f"Plugins from {bin_dir}. Network, mounts and processes are the demo's own: the machine's are not touched.")
    conf_file = CONF_DIR / "10-demo.conflist"
    conf_file.write_text(readable(NETWORK) + "\n")
    say(f"{conf_file}:\n{conf_file.read_text().rstrip()}")
    pods = PodNetwork(CONF_DIR, [bin_dir], limit=PLUGIN_LIMIT, warn=say)
    pods.status()
    with closing(Netlink()) as host:  # as a machine has it
        links.set_up(host, links.require(host, "lo")["index"])
    own_links = link_names()
    before = count(own_links)

    both = [DemoPod(f"pod{number}", f"demo-container-{number}", NETNS_DIR / f"pod{number}") for number in (1, 2)]
    both[0].ports = [{"hostPort": HOST_PORT, "containerPort": POD_PORT, "protocol": "tcp"}]
    for pod in both:
        set_up(pods, pod)
    ping_all(*both)
    use_host_port(*both)
    during = count(own_links)

    heading("CHECK")
    for pod in both:
        expect(pods.check(pod.sandbox), f"{pod.name} was not checked")
        good(f"{pod.name} is as it was set up")

    heading("Tear-down")
    for pod in both:
        tear_down(pods, pod)
    after = count(own_links)
    expect(answer(LOCALHOST) is None, f"host port {HOST_PORT} still answers")

    heading("Nothing is left")
    table(("", "before", "with pods", "after"), [[key, before[key], during[key], after[key]] for key in EXPECTED])
    say(f"(The bridge {BRIDGE} stays on purpose: the next pod uses it.)")
    expect(during == EXPECTED, f"the two pods must account for {EXPECTED}")
    expect(not any(before.values()) and not any(after.values()), "something is left behind")
    say(
        paint(
            "1;32",
            "\nSUCCESS: two pods had their network over IPv4 and IPv6, one a host port, and nothing of it is left.",
        )
    )


def set_up(pods: PodNetwork, pod: DemoPod) -> None:
    """Make the pod's namespace, set it up, show it and compare it with the result."""
    heading(f"{pod.name}: set-up")
    throwaway.new_netns(pod.netns)
    pod.links = link_names(pod.netns)
    started = time.monotonic()
    result = pods.set_up(pod.sandbox)
    good(f"loopback, then network {result.network.name}: {milliseconds(started):.0f} ms")
    say(f"result: {readable(result.default)}")

    addresses, routes = addresses_of(pod.netns), routes_of(pod.netns)
    say("inside the pod:")
    table(("interface", "address"), addresses)
    table(("destination", "via", "interface"), routes)

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
    """Both pods to the gateway, then each to the other, over both families."""
    heading("Ping")
    for source, other in ((first, second), (second, first)):
        for name, targets in (("gateway", GATEWAYS), (other.name, other.addresses)):
            for target in targets:
                with inside(source.netns):
                    took = ping(target)
                if took is None:
                    raise Failure(f"no answer to {source.name} from {target} ({name})")
                good(f"{source.name} → {name} {target}: {took * 1000:.2f} ms")


def use_host_port(server: DemoPod, other: DemoPod) -> None:
    """A server in the first pod, called by the host's port from the host itself and from the other pod."""
    heading("Host port")
    with inside(server.netns):
        listener = socket.create_server(("::", POD_PORT), family=socket.AF_INET6, dualstack_ipv6=True)
    with listener:
        threading.Thread(target=serve, args=(listener, server.name), daemon=True).start()
        for name, where, targets in (("host", None, (LOCALHOST, *GATEWAYS)), (other.name, other.netns, GATEWAYS)):
            for target in targets:
                with inside(where) if where else nullcontext():
                    said = answer(target)
                expect(
                    said == server.name, f"port {HOST_PORT} of {target} does not lead {name} to {server.name}: {said}"
                )
                good(f"{name} → {target} port {HOST_PORT}: answered by {server.name}, port {POD_PORT}")


def serve(listener: socket.socket, name: str) -> None:
    """Tells each client a name, until the listener is closed."""
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            with client:
                client.sendall(name.encode())


def answer(address: str) -> str | None:
    """Who answers at the host port of an address; None for nobody."""
    try:
        with socket.create_connection((address, HOST_PORT), timeout=ANSWER_LIMIT) as client:
            return client.recv(100).decode()
    except OSError:
        return None


def tear_down(pods: PodNetwork, pod: DemoPod) -> None:
    """Take the pod off its network, see that its namespace is as it was, and drop the namespace."""
    started = time.monotonic()
    pods.tear_down(pod.sandbox)
    took = milliseconds(started)
    left = set(link_names(pod.netns)) - set(pod.links)
    expect(not left, f"{pod.name} still has {', '.join(left)}")
    throwaway.execute("umount", str(pod.netns))
    pod.netns.unlink()
    good(f"{pod.name}: {took:.0f} ms")


def link_names(netns: Path | None = None) -> list[str]:
    """The links of a pod's network namespace, or of the host."""
    return [link["IFLA_IFNAME"] for link in dump(netns, RTM_GETLINK)]


def addresses_of(netns: Path) -> list[tuple[str, str]]:
    """Of a pod: interface and address with prefix length."""
    names = link_names_by_index(netns)
    found = sorted(dump(netns, RTM_GETADDR), key=lambda address: address["index"])
    return [(names[got["index"]], f"{got['IFA_ADDRESS']}/{got['prefixlen']}") for got in found]


def routes_of(netns: Path) -> list[tuple[str, str, str]]:
    """Of a pod's main table: destination, gateway, interface."""
    names = link_names_by_index(netns)
    return [
        (
            f"{got['RTA_DST']}/{got['dst_len']}" if got["dst_len"] else "default",
            got.get("RTA_GATEWAY", ""),
            names[got["RTA_OIF"]],
        )
        for got in dump(netns, RTM_GETROUTE)
        if got.get("RTA_TABLE") == RT_TABLE_MAIN and "RTA_OIF" in got
    ]


def link_names_by_index(netns: Path) -> dict[int, str]:
    """The links of a pod, by the number that addresses and routes refer to."""
    return {link["index"]: link["IFLA_IFNAME"] for link in dump(netns, RTM_GETLINK)}


def dump(netns: Path | None, kind: int) -> list[dict[str, Any]]:
    """All that the kernel has of a kind, in a pod's network namespace or in the host's."""
    with inside(netns) if netns else nullcontext(), closing(Netlink()) as netlink:
        return netlink.dump(kind)


@contextmanager
def inside(netns: Path) -> Iterator[None]:
    """The body runs in a pod's network namespace; nothing stays open that would keep the namespace alive."""
    with closing(open_netns(str(netns))) as pod, pod:
        yield


def count(own_links: Iterable[str]) -> dict[str, int]:
    """What pods can leave on a host: links beyond its own, leases, namespaces."""
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
    """Whether a file name of host-local's store is a lease."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def enter_namespaces(bin_dir: Path) -> NoReturn:
    """Start over, in network, mount and process namespaces that end with the demo."""
    throwaway.expect_visible((bin_dir, Path(__file__)), HIDDEN)
    outside = " ".join(throwaway.own_namespaces())
    again = throwaway.command(__file__, "--bin-dir", str(bin_dir), "--outside", outside)
    sys.stdout.flush()
    os.execv(again[0], again)  # noqa: S606 - no shell is what is wanted


def milliseconds(started: float) -> float:
    """Since a reading of time.monotonic."""
    return (time.monotonic() - started) * 1000


if __name__ == "__main__":
    sys.exit(main())
