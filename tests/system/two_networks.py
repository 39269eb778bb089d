"""A node with a pod in two networks, and routers that tell by which of them a connection of the pod leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tests import node as nodes
from tests.pretend import PretendHost

# Two networks. Each has routers .1 and .2, which answer for 192.0.2.1 and fd00:99::1, and send through the pod's address.
ROUTER = """
ip link show br{net} 2>/dev/null || ip link add br{net} up type bridge
ip netns add {name}
ip netns exec {name} sysctl -qw net.ipv6.conf.default.accept_dad=0
ip link add {name} up master br{net} type veth peer name eth0 netns {name}
ip -n {name} link set lo up
ip -n {name} address add 10.{net}.0.{host}/24 dev eth0
ip -n {name} address add fd00:{net}::{host}/64 dev eth0 nodad
ip -n {name} address add 192.0.2.1/32 dev lo
ip -n {name} address add fd00:99::1/128 dev lo nodad
ip -n {name} link set eth0 up
"""
SERVER = """
import socket, sys
server = socket.create_server(("::", 7), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    client, _ = server.accept()
    client.sendall(sys.argv[1].encode())
    client.close()
"""
CLIENT = """
import socket, sys
target, source, device = sys.argv[1:]
with socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET) as client:
    client.settimeout(10)
    if device:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    if source:
        client.bind((source, 0))
    client.connect((target, 7))
    print(client.recv(100).decode())
"""
OUTSIDE = {4: "192.0.2.1", 6: "fd00:99::1"}


def static(*addresses: str, gateway: int = 1, **keys: Any) -> dict[str, Any]:
    """Return an `ipam` section with addresses, each with the router of that number as gateway, 0 for none."""

    def of_network(address: str) -> str:
        separator = "::" if ":" in address else "."
        return f"{address.rpartition(separator)[0]}{separator}{gateway}"

    named = [{"address": one, **({"gateway": of_network(one)} if gateway else {})} for one in addresses]
    return {"type": "static", "addresses": named, **keys}


FIRST = static("10.1.0.5/24", "fd00:1::5/64", routes=[{"dst": "0.0.0.0/0"}, {"dst": "::/0"}])
SECOND = static("10.2.0.5/24", "fd00:2::5/64")


class TwoNetworks(nodes.Node):
    """A node with a pod: eth0 in the first network, with the default routes, and eth1 in the second."""

    TYPE: ClassVar[str]  # of the plugin that comes after bridge

    def __init__(self, host: PretendHost) -> None:
        super().__init__(host, type=self.TYPE)
        self.servers = [self._router(net, number) for net, number in ((1, 1), (2, 1), (2, 2))]
        self.attach("eth0", FIRST, bridge="br1")

    def _router(self, net: int, number: int) -> Any:
        name = f"router{net}{number}"
        self.host.run("sh", "-euc", ROUTER.format(net=net, host=number, name=name))
        return self.serve(name, SERVER, name)

    def attach(self, ifname: str, ipam: Mapping[str, Any], **keys: Any) -> Any:
        """Attach the pod to a network by bridge, and keep the result for the next plugin."""
        bridge = {"type": "bridge", "bridge": "br2", "ipam": ipam, "name": f"net-{ifname}", **keys}
        result = self.add("a", bridge, ifname=ifname)
        self.config["prevResult"] = result
        for net in (1, 2):  # the routers know the way back to any address of the pod
            for number in (1, 2) if net == 2 else (1,):
                for one in (ip["address"].partition("/")[0] for ip in result["ips"]):
                    self.host.run("ip", "-n", f"router{net}{number}", "route", "replace", one, "dev", "eth0")
        return result

    def second(self, ipam: Mapping[str, Any] = SECOND, /, **keys: Any) -> Any:
        """Attach eth1, and call the next plugin for it."""
        self.attach("eth1", ipam)
        return self.add("a", keys, ifname="eth1")

    def router(self, source: str = "", *, to: str = "", device: str = "") -> str:
        """Return the name of the router at which a connection from the pod arrives, empty if it arrives nowhere.

        The connection is bound to the source address and the device, if any.
        """
        target = to or OUTSIDE[6 if ":" in source else 4]
        inside = ("ip", "netns", "exec", "a", "python3", "-c", CLIENT, target, source, device)
        return self.host.run(*inside, check=False).stdout.strip()

    def rules(self) -> list[tuple[str, str]]:
        """Return source and table of the pod's rules with a source."""
        found = self.host.ip("-4", "rule", netns="a") + self.host.ip("-6", "rule", netns="a")
        return sorted((one["src"], one["table"]) for one in found if one["src"] != "all")

    def routes(self, table: str = "main", link: str = "eth1") -> set[str]:
        """Return a link's routes in a table, as destination, gateway and source."""
        words = ("route", "show", "table", "all")
        found = [one for family in ("-4", "-6") for one in self.host.ip(family, *words, netns="a")]
        return {
            " ".join([one["dst"], *(one[key] for key in ("gateway", "prefsrc") if key in one)])
            for one in found
            if one.get("dev") == link
            and one.get("table", "main") == table
            and not one["dst"].startswith(("fe80", "multicast", "ff00"))
        }
