"""A node with a bridge to a LAN, on which dnsmasq leases addresses, and with this tree's dhcp daemon."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tests import dhcp_lan
from tests import node as nodes
from tests.pretend import PATH, PretendHost, until


class Node(nodes.Node):
    """A node with pods that are bridged to the LAN, and get their addresses there."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        **nodes.Node.DEFAULTS, "type": "bridge", "bridge": "br0", "ipam": {"type": "dhcp"},
    }  # fmt: skip

    def __init__(self, host: PretendHost) -> None:
        super().__init__(host)
        dhcp_lan.make(host)
        self.daemon: subprocess.Popen[bytes] | None = None
        self.server: subprocess.Popen[bytes] | None = None
        self.log = host.root / dhcp_lan.DAEMON_LOG
        self.server_log = host.root / dhcp_lan.SERVER_LOG

    def start(self, *options: str, prelude: str = "") -> None:
        """Start the daemon, and wait until it serves. The prelude is Python that it executes before."""
        self.daemon = dhcp_lan.start_daemon(self.host, *options, prelude=prelude)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the daemon."""
        assert self.daemon
        self.daemon.send_signal(number)
        self.daemon.wait(30)

    def delete_without_daemon(self, *, leases: int) -> None:
        """Add two pods, and delete one and collect the other without a daemon. The next one releases all leases."""
        self.start()
        self.add("a")
        self.add("b")
        self.stop()
        self.delete("a")
        self.collect()
        assert len(self.leases()) == leases
        self.start()
        until(lambda: self.leases() == set())
        until(lambda: self.records() == [])

    def recover(self, server: subprocess.Popen[bytes], *options: str) -> None:
        """End a hostile server. Nothing is left of its pod, and an honest server's next ADD succeeds."""
        assert self.records() == []
        server.kill()
        server.wait()
        self.serve_lan(*options)
        self.add("a")
        assert self.check("a") == ""

    def begin_add(self, pod: str) -> subprocess.Popen[bytes]:
        """Start an ADD; return it when the daemon is at work for it."""
        names = {"COMMAND": "ADD", "CONTAINERID": pod, "NETNS": self.netns(pod), "IFNAME": "eth0"}
        environment = {f"CNI_{name}": value for name, value in names.items()}
        environment |= {"CNI_PATH": self.host.bin_dir, "PATH": PATH}
        plugin = self.host.popen(f"{self.host.bin_dir}/{self.config['type']}", env=environment)
        assert plugin.stdin
        plugin.stdin.write(json.dumps(self.config).encode())
        plugin.stdin.close()
        until(lambda: self.records() != [])
        return plugin

    def serve_lan(self, *options: str, **keys: str) -> None:
        """Start the server on the LAN, in place of the one before."""
        self.silence()
        self.server = dhcp_lan.serve(self.host, *options, **keys)

    def serve_short(self) -> None:
        """Start a server with leases of three seconds: BusyBox's, since those of dnsmasq last two minutes at least."""
        self.silence()
        (self.host.root / "run/udhcpd.conf").write_text(dhcp_lan.SHORT)
        (self.host.root / "run/udhcpd.leases").touch()
        self.server = self.host.popen("ip", "netns", "exec", "lan", "busybox", "udhcpd", "-f", "/run/udhcpd.conf")

    def serve_kea(self, family: int, **keys: Any) -> None:
        """Start Kea with leases of three seconds, in place of the server before. It forgets those of its own."""
        self.silence()
        self.server = dhcp_lan.serve_kea(self.host, family, **keys)

    def kea_heard(self, kind: str) -> int:
        """Return the number of messages of a kind in Kea's log, such as RENEW."""
        lines = (self.host.root / dhcp_lan.KEA_LOG).read_text().splitlines()
        return sum("_PACKET_RECEIVED" in line and f" {kind} " in line for line in lines)

    def serve_beside(self, address: str, addresses: str, *options: str) -> None:
        """Start another server on the LAN, under an address of its own."""
        self.host.run("sh", "-ec", dhcp_lan.BESIDE.format(address=address))
        dhcp_lan.serve(self.host, *options, addresses=addresses, netns="beside")

    def record(self) -> Path:
        """Return the file of the only kept lease."""
        (file,) = (self.host.root / "var/lib/cni/dhcp/leases").glob("*.json")
        return file

    def change_record(self, **members: Any) -> None:
        """Change members of the only kept lease, while no daemon runs; those of `lease` are added to it."""
        stored = json.loads(self.record().read_text())
        stored["lease"] |= members.pop("lease", {})
        self.record().write_text(json.dumps(stored | members))

    def seconds_left(self) -> float:
        """Return the seconds until the only lease, of three seconds, expires, as the daemon stored it."""
        obtained = float(json.loads(self.record().read_text())["lease"]["obtained"])
        return obtained + dhcp_lan.SHORT_SECONDS - time.clock_gettime(time.CLOCK_BOOTTIME)

    def silence(self) -> None:
        """End the server."""
        if self.server:
            self.server.terminate()
            self.server.wait(30)
            self.server = None

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
        path = self.host.root / dhcp_lan.LEASES
        lines = path.read_text().splitlines() if path.exists() else []
        return {line.split()[2] for line in lines if not line.startswith("duid")}

    def records(self) -> list[str]:
        """Return the files of leases, kept or to be given back."""
        return [path.name for path in (self.host.root / "var/lib/cni/dhcp").glob("*/*")]

    def on_link(self, pod: str, family: int = 4) -> set[str]:
        """Return the addresses of the pod's link, but for IPv6 link-local ones."""
        shown, *_ = [
            *self.host.ip(f"-{family}", "address", "show", "eth0", "scope", "global", netns=pod),
            {"addr_info": []},
        ]
        return {f"{one['local']}/{one['prefixlen']}" for one in shown["addr_info"] if "local" in one}

    def routes(self, pod: str) -> set[tuple[str, str | None]]:
        """Return destination and gateway of the pod's routes, but for the kernel's."""
        found = self.host.ip("-4", "route", netns=pod)
        return {(one["dst"], one.get("gateway")) for one in found if one.get("protocol") != "kernel"}
