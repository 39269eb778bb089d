"""A LAN with a DHCP server, dnsmasq, beyond a bridge of a pretend host, and this tree's dhcp daemon on the host."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.pretend import PATH, PretendHost, until

ROOT = Path(__file__).resolve().parents[1]
LAN = """
ip link show br0 >/dev/null 2>&1 || ip link add br0 type bridge
ip link set br0 up
ip netns add lan
ip link add uplink up master br0 type veth peer name eth0 netns lan
ip -n lan address add 10.9.0.1/24 dev eth0
ip -n lan address add fd09::1/64 dev eth0 nodad
ip netns exec lan sh -c 'echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad'
ip -n lan link set eth0 up
"""
DAEMON = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from shared.cli.cnitool import main
main({str(ROOT)!r})
"""
LEASES = "run/lan.leases"
RELEASED = "var/lib/cni/dhcp/released"
SERVER_LOG, DAEMON_LOG, KEA_LOG, RELAY_LOG = "run/dnsmasq.log", "run/dhcp.log", "run/kea.log", "run/relay.log"
SERVER = (
    "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--user=root",
    "--pid-file=", "--no-ping", "--log-dhcp", "--log-facility=-", "--dhcp-authoritative",
)  # fmt: skip
SHORT_SECONDS = 3
SHORT = f"""
start 10.9.0.50
end 10.9.0.60
interface eth0
lease_file /run/udhcpd.leases
pidfile /run/udhcpd.pid
min_lease 1
offer_time 2
option subnet 255.255.255.0
option router 10.9.0.1
option lease {SHORT_SECONDS}
"""
# Kea's configuration, by family, but for the section of the subnet. It stores no leases.
KEA: dict[int, dict[str, Any]] = {
    4: {"subnet": "10.9.0.0/24", "pools": [{"pool": "10.9.0.50-10.9.0.60"}],
        "option-data": [{"name": "routers", "data": "10.9.0.1"}]},
    6: {"subnet": "fd09::/64", "interface": "eth0", "pools": [{"pool": "fd09::2000-fd09::2fff"}]},
}  # fmt: skip
# A server of DHCPv6, and a router.
IPV6 = (
    "--enable-ra", "--dhcp-range=fd09::1000,fd09::1fff,64,1h", "--dhcp-option=option6:dns-server,[fd09::53]",
    "--dhcp-option=option6:domain-search,six.example,b.six.example",
)  # fmt: skip
STATELESS_IPV6 = ("--enable-ra", "--dhcp-range=fd09::,ra-stateless,64,1h", IPV6[2])
# Another host on the LAN.
BESIDE = """
ip netns add beside
ip link add uplink2 up master br0 type veth peer name eth0 netns beside
ip -n beside address add {address}/24 dev eth0
ip -n beside link set eth0 up
"""
# A network beyond the LAN, and the LAN's router to it.
FAR = """
ip netns add far
ip link add eth1 netns lan up type veth peer name eth0 netns far
ip -n far link set eth0 up
ip -n lan address add 10.10.0.2/24 dev eth1
ip -n far address add 10.10.0.1/24 dev eth0
ip -n far route add 10.9.0.0/24 via 10.10.0.2
ip -n lan address add fd10::2/64 dev eth1 nodad
ip -n far address add fd10::1/64 dev eth0 nodad
ip -n far route add fd09::/64 via fd10::2
ip netns exec lan sh -c 'for f in ipv4/ip_forward ipv6/conf/all/forwarding; do echo 1 >/proc/sys/net/$f; done'
"""
ADDRESSES = "10.9.0.10,10.9.0.20"


def make(host: PretendHost) -> None:
    """Create the bridge br0 and the network behind it."""
    host.run("sh", "-ec", LAN)


def serve(host: PretendHost, *options: str, addresses: str = ADDRESSES, netns: str = "lan") -> subprocess.Popen[bytes]:
    """Start a server with these options of dnsmasq's; wait until it listens."""
    store = f"--dhcp-leasefile=/{LEASES}{netns.removeprefix('lan')}"
    arguments = (*SERVER, f"--dhcp-range={addresses},255.255.255.0,1h", store, *options)
    path = host.root / SERVER_LOG
    with open(path, "ab") as log:
        begin = log.tell()
        server = host.popen("ip", "netns", "exec", netns, *arguments, stderr=log)
    until(lambda: b"DHCP, " in path.read_bytes()[begin:])
    return server


def relay(host: PretendHost) -> None:
    """Forward the LAN's requests to a server beyond it, which serves with the options of dnsmasq's."""
    arguments = (*SERVER, "--dhcp-relay=10.9.0.1,10.10.0.1", "--dhcp-relay=fd09::1,fd10::1", "--interface=eth1")
    path = host.root / RELAY_LOG
    with open(path, "wb") as log:
        host.popen("ip", "netns", "exec", "lan", *arguments, stderr=log)
    until(lambda: path.read_bytes().count(b"DHCP relay") >= 2)


def serve_kea(host: PretendHost, family: int, **keys: Any) -> subprocess.Popen[bytes]:
    """Start Kea with short leases, and with these keys in its subnet; wait until it listens."""
    subnet = {"id": 1, **KEA[family], **keys}
    times: dict[str, Any] = {"valid-lifetime": SHORT_SECONDS, "renew-timer": 1, "rebind-timer": 2}
    if family == 6:
        times |= {"preferred-lifetime": SHORT_SECONDS, "server-id": {"type": "LL", "persist": False}}
    logger = {"name": f"kea-dhcp{family}", "severity": "DEBUG", "debuglevel": 55,
              "output_options": [{"output": "stderr"}]}  # fmt: skip
    content = {
        "interfaces-config": {"interfaces": ["eth0"]}, "lease-database": {"type": "memfile", "persist": False},
        "loggers": [logger], f"subnet{family}": [subnet], **times,
    }  # fmt: skip
    path = host.root / f"run/kea{family}.json"
    path.write_text(json.dumps({f"Dhcp{family}": content}))
    environment = {"PATH": PATH, "KEA_LOCKFILE_DIR": "none", "KEA_PIDFILE_DIR": "/run"}
    with open(host.root / KEA_LOG, "ab") as log:
        begin = log.tell()
        command = ("ip", "netns", "exec", "lan", f"kea-dhcp{family}", "-c", f"/run/{path.name}")
        server = host.popen(*command, env=environment, stdout=log, stderr=log)
    until(lambda: b"_STARTED" in (host.root / KEA_LOG).read_bytes()[begin:])
    return server


def start_daemon(host: PretendHost, *options: str, prelude: str = "") -> subprocess.Popen[bytes]:
    """Start the daemon; wait until it serves. The prelude is Python that it executes before."""
    path = host.root / DAEMON_LOG
    script = DAEMON.replace("main(", f"{prelude}\nmain(")
    with open(path, "ab") as log:
        begin = log.tell()
        daemon = host.popen(sys.executable, "-c", script, "dhcp", "-timeout", "1s", *options, stderr=log)

    def is_serving() -> bool:
        assert daemon.poll() is None, path.read_text()
        return b"serving" in path.read_bytes()[begin:]

    until(is_serving)
    return daemon


def run(host: PretendHost, *options: str) -> None:
    """Start the network, its server, and the daemon with these options."""
    make(host)
    serve(host)
    start_daemon(host, *options)


def prepare(host: PretendHost, pod: str) -> None:
    """Give a pod a link to the LAN, so that the plugin can be called alone; start the programs that it needs."""
    if not (host.root / LEASES).exists():
        run(host)
    # the daemon can hold the namespace of a pod before, and its link with it, for some moments after DEL
    host.run("ip", "link", "del", f"port-{pod}", check=False)
    host.run(
        "ip", "link", "add", f"port-{pod}", "up", "master", "br0", "type", "veth", "peer", "name", "eth0", "netns", pod
    )


def await_releases(host: PretendHost) -> None:
    """Wait until the daemon has made up for each DEL that did not reach it."""
    until(lambda: not [*(host.root / RELEASED).glob("*")])
