"""A node with a bridge to a LAN, on which dnsmasq leases addresses, and with this tree's dhcp daemon."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tests import node as nodes
from tests.pretend import PretendHost, until

ROOT = Path(__file__).resolve().parents[2]
LAN = """
ip link add br0 type bridge
ip link set br0 up
ip netns add lan
ip link add uplink up master br0 type veth peer name eth0 netns lan
ip -n lan address add 10.9.0.1/24 dev eth0
ip -n lan link set eth0 up
"""
DAEMON = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from shared.cli.cnitool import main
main({str(ROOT)!r})
"""
LEASES = "/run/lan.leases"
SERVER = (
    "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--user=root",
    "--pid-file=", "--no-ping", "--log-dhcp", "--log-facility=-", "--dhcp-authoritative",
)  # fmt: skip


class Node(nodes.Node):
    """A node whose pods are bridged to the LAN, and get their addresses there."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        **nodes.Node.DEFAULTS, "type": "bridge", "bridge": "br0", "ipam": {"type": "dhcp"},
    }  # fmt: skip

    def __init__(self, host: PretendHost) -> None:
        super().__init__(host)
        host.run("sh", "-ec", LAN)
        self.daemon: subprocess.Popen[bytes] | None = None
        self.server: subprocess.Popen[bytes] | None = None
        self.log = host.root / "run/dhcp.log"
        self.server_log = host.root / "run/dnsmasq.log"

    def start(self, *arguments: str) -> None:
        """Start the daemon, and wait until it serves."""
        assert self.daemon is None or self.daemon.poll() is not None
        with open(self.log, "ab") as log:
            begin = log.tell()
            self.daemon = self.host.popen(
                sys.executable, "-c", DAEMON, "dhcp", "-timeout", "1s", *arguments, stderr=log
            )
        self.await_log("serving", begin)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the daemon."""
        assert self.daemon
        self.daemon.send_signal(number)
        self.daemon.wait(30)

    def serve(self, *options: str, addresses: str = "10.9.0.10,10.9.0.20", lease: str = "1h") -> None:
        """Start the server on the LAN with these options of dnsmasq's, in place of the one before."""
        self.silence()
        arguments = (*SERVER, f"--dhcp-range={addresses},255.255.255.0,{lease}", f"--dhcp-leasefile={LEASES}", *options)
        with open(self.server_log, "ab") as log:
            begin = log.tell()
            self.server = self.host.popen("ip", "netns", "exec", "lan", *arguments, stderr=log)
        until(lambda: b"sockets bound exclusively" in self._tail(begin) or b"DHCP, IP range" in self._tail(begin))

    def silence(self) -> None:
        """End the server."""
        if self.server:
            self.server.terminate()
            self.server.wait(30)
            self.server = None

    def _tail(self, begin: int) -> bytes:
        return self.server_log.read_bytes()[begin:]

    def await_log(self, words: str, begin: int = 0) -> None:
        """Wait until the daemon's log has these words."""

        def found() -> bool:
            assert self.daemon is None or self.daemon.poll() is None, self.log.read_text()
            return words in self.log.read_text()[begin:]

        until(found)

    def heard(self, kind: str) -> int:
        """Return the number of messages of a kind in the server's log, such as DHCPRELEASE."""
        lines = self.server_log.read_text().splitlines()
        return sum(f"{kind}(" in line for line in lines)

    def leases(self) -> set[str]:
        """Return the addresses that the server has leased."""
        path = self.host.root / LEASES[1:]
        return {line.split()[2] for line in path.read_text().splitlines()} if path.exists() else set()

    def records(self) -> list[str]:
        """Return the files of leases, kept or to be given back."""
        return [path.name for path in (self.host.root / "var/lib/cni/dhcp").glob("*/*")]

    def on_link(self, pod: str) -> set[str]:
        """Return the IPv4 addresses of the pod's link."""
        (shown,) = self.host.ip("-4", "address", "show", "eth0", netns=pod) or [{"addr_info": []}]
        return {f"{one['local']}/{one['prefixlen']}" for one in shown["addr_info"]}

    def routes(self, pod: str) -> set[tuple[str, str | None]]:
        """Return destination and gateway of the pod's routes, but for the kernel's."""
        found = self.host.ip("-4", "route", netns=pod)
        return {(one["dst"], one.get("gateway")) for one in found if one.get("protocol") != "kernel"}
