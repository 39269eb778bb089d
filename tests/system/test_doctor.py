"""cnitool doctor: silent on a healthy node, and right about each way in which a node is broken."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import pytest

from shared.cli.doctor.configuration import launched_tree
from shared.net.owner import Owner
from tests.pretend import PATH, PretendHost

ROOT = Path(__file__).resolve().parents[2]
CONF_DIR = "/etc/cni/net.d"
NETWORK = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "isDefaultGateway": True,
            "mtu": 1450,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.9.0.0/22"}], [{"subnet": "fd00:9::/64"}]],
            },
        }
    ],
}
PYTHON = {"PATH": PATH, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
DOCTOR = """
import sys
from shared.cli import commands, doctor
sys.exit(doctor.run(commands.parser().parse_args(sys.argv[1:])))
"""

# A runtime's work for pods c1, c2…: namespace, loopback, the default network, libcni's cache.
RUNTIME = """
import base64, json, os, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shared.runtime import attach
from shared.runtime.attachment import Attachment
from shared.runtime.conflist import load, parse
bin_dir, first, last, workers = sys.argv[1], *map(int, sys.argv[2:])
(network,) = load("/etc/cni/net.d", sys.exit)
loopback = parse({"cniVersion": "0.3.1", "name": "cni-loopback", "plugins": [{"type": "loopback"}]})
results = Path("/var/lib/cni/results")
results.mkdir(mode=0o700, exist_ok=True)

def set_up(number):
    subprocess.run(["ip", "netns", "add", f"pod{number}"], check=True)
    container_id, netns = f"c{number}", f"/run/netns/pod{number}"
    attach.add(loopback, Attachment(container_id, netns, "lo"), [bin_dir])
    result = attach.add(network, Attachment(container_id, netns), [bin_dir])
    entry = {
        "kind": "cniCacheV1", "containerId": container_id, "ifName": "eth0", "networkName": network.name, "netns": netns,
        "config": base64.b64encode(network.path.read_bytes()).decode(), "cniArgs": [], "result": result,
    }
    path = results / f"{network.name}-{container_id}-eth0"
    path.write_text(json.dumps(entry))
    path.chmod(0o600)

set_up(first)
with ThreadPoolExecutor(workers) as pool:
    list(pool.map(set_up, range(first + 1, last + 1)))
"""


class BrokenNode:
    """A host with pods, and a bin dir of its own that may be damaged."""

    def __init__(self, host: PretendHost, bin_dir: Path) -> None:
        self.host = host
        self.names = {
            "BIN": str(bin_dir),
            "CONF": f"{CONF_DIR}/10-pods.conflist",
            "STORE": "/var/lib/cni/networks/pods",
            "RESULTS": "/var/lib/cni/results",
            "BR_NF": "net/bridge/bridge-nf-call-iptables",
            "TREE": str(launched_tree(bin_dir / "bridge")),
            "LIB": str((launched_tree(bin_dir / "bridge") or bin_dir).parent),
            "CHAIN": f"CNI-{'0123456789abcdef' * 2}"[:28],
            **{f"PORT{number}": Owner("pods", f"c{number}", "eth0").host_link for number in (1, 2, 3)},
        }
        host.run("mkdir", "-p", CONF_DIR)
        host.run("tee", self.names["CONF"], input=json.dumps(NETWORK))

    def add_pods(self, first: int, last: int, *, workers: int = 1) -> None:
        numbers = map(str, (first, last, workers))
        self.host.run(sys.executable, "-c", RUNTIME, self.names["BIN"], *numbers, env=PYTHON, timeout=300)

    def sh(self, script: str) -> None:
        self.host.run("sh", "-ec", script, env={"PATH": PATH, **self.names})

    def doctor(self, *arguments: str, path: str = PATH) -> tuple[int, str]:
        where = ("--bin-dir", self.names["BIN"], "--conf-dir", CONF_DIR)
        environment = {**PYTHON, "PATH": path}
        done = self.host.run(
            sys.executable, "-c", DOCTOR, "doctor", *arguments, *where, check=False, env=environment, timeout=120
        )
        assert done.stderr == ""
        return done.returncode, done.stdout

    def findings(self, path: str = PATH) -> list[dict[str, str]]:
        """Return errors and warnings; the exit status and the counts must agree with them."""
        status, out = self.doctor("--json", path=path)
        document: dict[str, Any] = json.loads(out)
        counts = {
            f"{word}s": sum(one["severity"] == word for one in document["findings"])
            for word in ("error", "warning", "note")
        }
        assert {word: document[word] for word in counts} == counts
        assert status == (2 if counts["errors"] else 1 if counts["warnings"] else 0)
        return [one for one in document["findings"] if one["severity"] != "note"]


@pytest.fixture
def node(installed: Path, tmp_path: Path) -> Iterator[BrokenNode]:
    bin_dir = tmp_path / "bin"
    shutil.copytree(installed, bin_dir)
    with PretendHost(bin_dir) as host:
        broken = BrokenNode(host, bin_dir)
        broken.add_pods(1, 3)
        yield broken


@dataclass(frozen=True)
class Way:
    """A way to break a node: a script, and all that doctor must say, as "severity check where".

    `heals`: following doctor's advice makes the node healthy again, in a few rounds if one fault hides another.
    `together`: it can be done together with all others that can.
    """

    name: str
    script: str
    expected: tuple[str, ...]
    what: str = ""
    heals: bool = True
    together: bool = True
    needs: str = "/proc"


WAYS = (
    Way("IPv4 is not forwarded", "echo 0 >/proc/sys/net/ipv4/ip_forward", ("error forwarding net/ipv4/ip_forward",)),
    Way("IPv6 is not forwarded", "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding", ("error forwarding net/ipv6/conf/all/forwarding",)),
    Way("a link ignores its router", "ip link add ra0 up type veth peer name ra9; ip -6 route add 2001:db8::/64 dev ra0 proto ra", ("error accept-ra net/ipv6/conf/ra0/accept_ra",), "net/ipv6/conf/ra0/accept_ra=2", together=False),
    Way("a link would ignore its router", "ip link add ra1 up type veth peer name ra8; ip -6 route add 2001:db8:1::/64 dev ra1 proto ra; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding", ("error forwarding net/ipv6/conf/all/forwarding",), "net/ipv6/conf/ra1/accept_ra=2 && sysctl -w net/ipv6/conf/all/forwarding=1", together=False),
    Way("localhost is open to neighbours", "echo 1 >/proc/sys/net/ipv4/conf/cni0/route_localnet", ("error route-localnet net/ipv4/conf/cni0/route_localnet",), "only on 127.0.0.1"),
    Way("the bridge alone does not forward", "echo 0 >/proc/sys/net/ipv4/conf/cni0/forwarding", ("error forwarding net/ipv4/conf/cni0/forwarding",), together=False),
    Way("a pod's end has another MTU", "ip -n pod1 link set eth0 mtu 1300", ("error mtu eth0 in /run/netns/pod1",), "has MTU 1300"),
    Way("a pod's link has a name for a shell", "ip link add ext mtu 1450 type veth peer name ';false;' mtu 1300 netns pod2", ("error mtu ;false; in /run/netns/pod2",), "ip link set ';false;' mtu 1450"),
    Way("both ends have another MTU", "ip -n pod1 link set eth0 mtu 1400; ip link set $PORT1 mtu 1400", ("warning mtu $PORT1",), "says 1450", together=False),
    Way("an uplink has a smaller MTU", "sed -i 's/1450/\"auto\"/' $CONF; ip link add up0 mtu 1400 type veth peer name down0 mtu 1400; ip link set up0 up", ("warning mtu $PORT1", "warning mtu $PORT2", "warning mtu $PORT3"), "says 1400", together=False),
    Way("the bridge has another MTU", "ip link set cni0 mtu 1280", ("warning mtu cni0",), "has MTU 1280"),
    Way("a pod has another's address", "ip -n pod2 address add 10.9.0.2/22 dev eth0", ("error addresses eth0 in /run/netns/pod2",), "the address of eth0 in /run/netns/pod1"),
    Way("a pod has the gateway's address", "ip -n pod3 address add fd00:9::1/64 dev eth0 nodad", ("error addresses eth0 in /run/netns/pod3",), "the gateway address of cni0"),
    Way("another link has the gateway's address", "ip link add other type veth peer name rehto; ip address add 10.9.0.1/32 dev other", ("error gateways other",)),
    Way("a pod has lost its address", "ip -n pod1 -6 address flush dev eth0 scope global", ("error attachments eth0 in /run/netns/pod1",), "lacks its address", together=False),
    Way("a pod has lost its default route", "ip -n pod2 route delete default", ("error attachments eth0 in /run/netns/pod2",), "lacks its route to 0.0.0.0/0"),
    Way("a pod has lost its interface", "ip -n pod3 link set eth0 down; ip -n pod3 link set eth0 name lost", ("error attachments eth0 in /run/netns/pod3", "error ports lost in /run/netns/pod3"), heals=False, together=False),
    Way("a pod's interface is down", "ip -n pod3 link set eth0 down", ("error ports eth0 in /run/netns/pod3", "error attachments eth0 in /run/netns/pod3"), together=False),
    Way("the host's end is down", "ip link set $PORT1 down", ("error ports $PORT1",), "is down"),
    Way("the host's end is no port", "ip link set $PORT2 nomaster", ("error ports $PORT2",), "is not a port of cni0"),
    Way("the bridge is down", "ip link set cni0 down", ("error bridges cni0",)),
    Way("the bridge is gone", "ip link delete cni0", ("error bridges cni0",), "is missing", together=False),
    Way("a lease is stale", r"printf 'gone\r\neth0' >$STORE/10.9.2.7", ("warning leases $STORE/10.9.2.7",), "leased to gone eth0"),
    Way("a lease of old is stale", "printf gone2 >$STORE/fd00:9::77; printf %064d 7 >$STORE/10.9.2.9", ("warning leases $STORE/10.9.2.9",)),
    Way("a lease is garbled", ": >$STORE/10.9.2.8", ("warning leases $STORE/10.9.2.8",), "empty or garbled"),
    Way("a lease is lost", "rm $STORE/fd00:9::2", ("error leases $STORE/fd00:9::2",), "pods c1 eth0 has the address"),
    Way("a host link is stale", "ip link add vethdead type veth peer name here; ip link set vethdead alias pycni:pods/gone/eth0", ("warning links vethdead",), "its other end here is on the host"),
    Way("a namespace lives without its name", "ip netns exec pod3 sleep 600 >/dev/null 2>&1 & sleep 0.3; ip netns delete pod3", ("warning cache $RESULTS/pods-c3-eth0", "warning links $PORT3"), together=False),
    Way("a cache entry is stale", "sed 's/\"c1\"/\"gone\"/; s,/run/netns/pod1,/run/netns/gone,g' $RESULTS/pods-c1-eth0 >$RESULTS/pods-gone-eth0", ("warning cache $RESULTS/pods-gone-eth0",), "/run/netns/gone is gone"),
    Way("a cache entry is garbled", "echo { >$RESULTS/pods-bad-eth0", ("warning cache $RESULTS/pods-bad-eth0",), "is not a cached result"),
    Way("a plugin hangs", r"printf '#!/bin/sh\nexec sleep 600\n' >$BIN/slow; chmod 755 $BIN/slow", ("warning plugins $BIN/slow",), "no answer within 5 s", heals=False),
    Way("a plugin answers garbage", r"printf '#!/bin/sh\necho hello\n' >$BIN/odd; chmod 755 $BIN/odd", ("warning plugins $BIN/odd",), "without a list of versions", heals=False),
    Way("a plugin of a configuration answers garbage", r"printf '#!/bin/sh\necho hello\n' >$BIN/host-local", ("error plugins $BIN/host-local",), heals=False, together=False),
    Way("a plugin speaks no known version", r"""printf '#!/bin/sh\necho "{\\"supportedVersions\\": [\\"9.9.9\\"]}"\n' >$BIN/newer; chmod 755 $BIN/newer""", ("warning plugins $BIN/newer",), "unknown CNI versions only: 9.9.9", heals=False),
    Way("a plugin cannot start", "sed -i '1s,.*,#!/nonexistent/python3 -IS,' $BIN/bridge", ("error plugins $BIN/bridge",), "does not answer VERSION", heals=False, together=False),
    Way("a plugin is missing", "rm $BIN/host-local", ("error missing-plugins $CONF",), "host-local not found in $BIN", heals=False),
    Way("loopback is missing", "rm $BIN/loopback", ("warning missing-plugins loopback",), heals=False),
    Way("there are two configurations", "sed s/pods/other/ $CONF >/etc/cni/net.d/20-other.conflist", ("warning default-network /etc/cni/net.d/20-other.conflist",), "only the first file, $CONF"),
    Way("a configuration is invalid", "echo { >/etc/cni/net.d/05-broken.conflist", ("warning configurations /etc/cni/net.d/05-broken.conflist",), "not JSON", heals=False),
    Way("there is no valid configuration", "echo { >$CONF", ("warning configurations $CONF", "error configurations /etc/cni/net.d"), heals=False, together=False),
    Way("a plugin refuses the configuration", "sed -i 's/\"mtu\": 1450/\"mtu\": 99999/' $CONF", ("error refused $CONF",), '"mtu": 99999', heals=False, together=False),
    Way("the configuration's version is unknown", "sed -i s/1.0.0/1.0.7/ $CONF", ("error plugins $BIN/bridge", "error plugins $BIN/host-local", "error refused $CONF"), heals=False, together=False),
    Way("a pool is full", """sed -i 's,"10.9.0.0/22",&\\, "rangeEnd": "10.9.0.4",' $CONF""", ("error pools $STORE 10.9.0.1-10.9.0.4",), "all 3 addresses", heals=False),
    Way("a pool is nearly full", """sed -i 's,"10.9.0.0/22",&\\, "rangeEnd": "10.9.0.11",' $CONF; for n in 5 6 7 8 9 10; do echo 'kept for: the printer' >$STORE/10.9.0.$n; done""", ("warning pools $STORE 10.9.0.1-10.9.0.11",), "9 of 10 addresses", heals=False, together=False),
    Way("state is writable for all", "chmod 777 /var/lib/cni/networks", ("error permissions /var/lib/cni/networks",), "writable for others"),
    Way("state is another user's", "chown 1234 $RESULTS", ("error permissions $RESULTS",), "belongs to user 1234"),
    Way("a plugin is writable for a group", "chmod g+w $BIN/bridge", ("error permissions $BIN/bridge",)),
    Way("code and libraries are writable", "cp -a $LIB /run/lib; mount --bind /run/lib $LIB; mkdir -p $LIB/tools; chmod 777 $LIB/tools; chmod g+w $TREE/plugins/bridge.py", ("error permissions ${TREE}/plugins/bridge.py", "error permissions $LIB/tools"), together=False),
    Way("a configuration is writable for all", "chmod 666 $CONF", ("error permissions $CONF",)),
    Way("rp_filter and a detour", "ip link add far type veth peer name raf; ip link set far up; ip link set raf up; ip route add 10.9.0.4/32 dev far; echo 1 >/proc/sys/net/ipv4/conf/cni0/rp_filter", ("error routes route to 10.9.0.4",), "rp_filter drops", together=False),
    Way("IPv6 is disabled", "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6", ("error ipv6 net/ipv6/conf/all/disable_ipv6", "error ipv6 net/ipv6/conf/cni0/disable_ipv6", "error bridges cni0"), together=False),
    Way("lo is down on the host", "ip link set lo down", ("error loopback lo",)),
    Way("lo is down in a pod", "ip -n pod1 link set lo down", ("warning loopback lo in /run/netns/pod1",)),
    Way("bridged packets are dropped", "iptables -P FORWARD DROP", ("warning bridge-nf $BR_NF",), "filter FORWARD drops", needs="/proc/sys/net/bridge"),
    Way("bridged packets are dropped by nft", "nft 'table inet own { chain fence { type filter hook forward priority 0; policy drop; }; }'; echo 0 >/proc/sys/$BR_NF", ("warning bridge-nf net/bridge/bridge-nf-call-ip6tables",), "own fence drops", together=False, needs="/proc/sys/net/bridge"),
    Way("a chain is left over", "iptables -t nat -N $CHAIN; iptables -t nat -A $CHAIN -j ACCEPT; iptables -t nat -A POSTROUTING -s 10.8.0.3 -m comment --comment 'name: \"x\"' -j $CHAIN", ("warning chains iptables-nft nat $CHAIN",)),
    Way("the kernel lacks what VLANs need", "sed -i 's/\"mtu\"/\"vlan\": 100, &/' $CONF; printf 'CONFIG_VETH=y\nCONFIG_BRIDGE=y\n' | gzip >/run/config.gz; mount --bind /run/config.gz /proc/config.gz", ("error kernel $KERNEL", "error bridges cni0.100"), "CONFIG_BRIDGE_VLAN_FILTERING", heals=False, together=False, needs="/proc/config.gz"),
    Way("a master is missing", """echo '{"cniVersion": "1.0.0", "name": "lan", "plugins": [{"type": "macvlan", "master": "up9"}]}' >/etc/cni/net.d/20-lan.conflist""", ("warning default-network /etc/cni/net.d/20-lan.conflist", "error devices /etc/cni/net.d/20-lan.conflist"), '"up9" is not a link of this host', heals=False),
    Way("a device is missing", """echo '{"cniVersion": "0.4.0", "name": "card", "plugins": [{"type": "host-device", "device": "dev9"}]}' >/etc/cni/net.d/30-card.conflist""", ("warning default-network /etc/cni/net.d/30-card.conflist", "error devices /etc/cni/net.d/30-card.conflist"), "there is no device dev9 on the host", heals=False),
    Way("iptables is missing", """sed -i 's/"mtu"/"ipMasq": true, "ipMasqBackend": "iptables", &/' $CONF; mount -t tmpfs tmpfs /usr/sbin""", ("error backends $CONF",), "uses backend iptables", heals=False, together=False),
)  # fmt: skip


def said(node: BrokenNode, way: Way) -> set[str]:
    return {Template(text).safe_substitute(node.names) for text in way.expected}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_each_way_is_found_alone_and_what_doctor_says_repairs_it(node: BrokenNode, way: Way) -> None:
    if not Path(way.needs).exists():
        pytest.skip(f"this kernel has no {way.needs}")
    node.names["KERNEL"] = f"kernel {Path('/proc/sys/kernel/osrelease').read_text().strip()}"
    node.sh(way.script)
    found = node.findings()
    assert {f"{one['severity']} {one['check']} {one['where']}" for one in found} == said(node, way)
    assert Template(way.what).safe_substitute(node.names) in "\n".join(one["what"] + one["todo"] for one in found)
    for _ in range(4 if way.heals else 0):
        for one in found:
            node.sh(one["todo"])
        found = node.findings()
        if not found:
            break
    assert not way.heals or found == []


def test_healthy_node_has_nothing_but_notes(node: BrokenNode) -> None:
    assert node.findings() == []
    status, out = node.doctor()
    assert status == 0
    assert out.splitlines()[-1].startswith("0 errors, 0 warnings, ")
    assert "error" not in "\n".join(out.splitlines()[:-1])


def test_looking_changes_nothing(node: BrokenNode) -> None:
    node.sh(r"printf 'gone\r\neth0' >$STORE/10.9.2.7; ip link set cni0 down")
    names = ["pod1", "pod2", "pod3"]
    times = ("find", "/var/lib/cni", "/run/netns", CONF_DIR, node.names["BIN"], "-printf", r"%p %m %U %T@ %C@ %l\n")
    before = node.host.snapshot(names), node.host.run(*times).stdout
    assert len(node.findings()) > 1
    assert (node.host.snapshot(names), node.host.run(*times).stdout) == before


def test_what_may_live_is_not_called_dead(node: BrokenNode) -> None:
    """One entry names no namespace, one is unreadable, and the pods' addresses are hidden."""
    node.sh("sed -i 's,/run/netns/pod1,,g' $RESULTS/pods-c1-eth0; : >$RESULTS/pods-c2-eth0")
    node.sh("ip -n pod1 address flush dev eth0; ip -n pod2 address flush dev eth0")
    found = {f"{one['severity']} {one['check']} {one['where']}" for one in node.findings()}
    stale = {one for one in found if one.split()[1] in ("cache", "leases", "links")}
    assert stale == {f"warning cache {node.names['RESULTS']}/pods-c2-eth0"}


def test_an_entry_that_cannot_be_read_leaves_the_lease_alone(node: BrokenNode) -> None:
    """No other file names the pod's namespace: it may be anywhere."""
    node.sh(": >$RESULTS/pods-c2-eth0; ip netns delete pod2; while ip link show $PORT2; do sleep 0.02; done 2>&1")
    found = {f"{one['severity']} {one['check']} {one['where']}" for one in node.findings()}
    assert found == {f"warning cache {node.names['RESULTS']}/pods-c2-eth0"}


def test_a_namespace_without_a_name_gets_it_back(node: BrokenNode) -> None:
    node.sh("ip netns exec pod3 sleep 600 >/dev/null 2>&1 & sleep 0.3; ip netns delete pod3")
    for one in node.findings():
        assert "delete" not in one["todo"] and "rm " not in one["todo"]
        node.sh(one["todo"])
    assert node.findings() == []
    node.sh("ip -n pod3 link show eth0")


def test_running_add_is_no_finding(node: BrokenNode) -> None:
    # its IPAM plugin says that it has begun, and answers when it may
    node.sh(
        r"""printf '#!/bin/sh\n[ $CNI_COMMAND = VERSION ] && exec echo "{\\"supportedVersions\\":[\\"1.0.0\\"]}"\n"""
        r"""[ $CNI_COMMAND = ADD ] || exit 0\n: >/run/begun; read line </run/may\n' >$BIN/slow-ipam; chmod 755 $BIN/slow-ipam; mkfifo /run/may"""
    )
    config = {**NETWORK["plugins"][0], "name": "pods", "cniVersion": "1.0.0", "ipam": {"type": "slow-ipam"}}  # type: ignore[dict-item]
    variables = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c4",
        "CNI_NETNS": node.host.netns("pod4"),
        "CNI_IFNAME": "eth0",
    }
    environment = {"PATH": PATH, "CNI_PATH": node.names["BIN"], **variables}
    with node.host.popen(f"{node.names['BIN']}/bridge", env=environment) as add:
        assert add.stdin is not None
        add.stdin.write(json.dumps(config).encode())
        add.stdin.close()
        node.sh("until [ -e /run/begun ]; do sleep 0.05; done")
        node.sh(r"printf 'c4\r\neth0' >$STORE/10.9.2.30")  # its lease, of which no runtime knows yet either
        assert node.findings() == []
        node.sh("echo >/run/may")


def test_check_that_fails_is_a_finding(node: BrokenNode) -> None:
    node.sh("rm -r $RESULTS; : >$RESULTS; ip link set lo down")
    found = {f"{one['severity']} {one['check']} {one['where']}" for one in node.findings()}
    assert {"error cache check cache", "error leases check leases", "error loopback lo"} <= found


@pytest.mark.parametrize(
    ("script", "where"),
    [
        ("echo 1 >/proc/sys/net/ipv4/conf/cni0/rp_filter", "net/ipv4/conf/cni0/rp_filter"),
        ("cp /bin/sleep /run/firewalld; /run/firewalld 600 >/dev/null 2>&1 &", "firewalld"),
    ],
)
def test_what_is_only_noted(node: BrokenNode, script: str, where: str) -> None:
    def noted() -> list[str]:
        status, out = node.doctor("--json")
        assert status == 0
        return [one["where"] for one in json.loads(out)["findings"]]

    assert where not in noted()
    node.sh(script)
    assert where in noted()


def test_a_device_that_a_pod_has_is_not_missing(node: BrokenNode) -> None:
    plugin = {"type": "host-device", "device": "dev0"}
    network = {"cniVersion": "1.0.0", "name": "card", "plugins": [plugin]}
    node.host.run("tee", f"{CONF_DIR}/20-card.conflist", input=json.dumps(network))
    node.sh("ip link add dev0 up type veth peer name far0; ip link set far0 up")
    keys = {"cniVersion": "1.0.0", "name": "card", **plugin}
    assert node.host.cni("host-device", "ADD", keys, netns="/run/netns/pod1", ifname="net1").status == 0
    assert [one["check"] for one in node.findings()] == ["default-network"]


def test_empty_node_is_not_touched(installed: Path) -> None:
    with PretendHost(installed) as host:
        node = BrokenNode(host, installed)
        assert node.findings() == []
        assert list((host.root / "var/lib/cni").iterdir()) == []


def test_two_hundred_pods(installed: Path) -> None:
    with PretendHost(installed) as host:
        node = BrokenNode(host, installed)
        node.add_pods(1, 200, workers=4)
        assert node.findings() == []
        # a crash of the node, as far as the network is concerned
        node.sh("for n in $(seq 1 200); do ip netns delete pod$n; done")
        found = node.findings()
        kinds = [f"{one['severity']} {one['check']}" for one in found]
        assert {kind: kinds.count(kind) for kind in kinds} == {"warning cache": 200, "warning leases": 400}
        status, out = node.doctor()
        assert status == 1
        assert "… and 390 more warnings of the check leases: --json has all" in out
        node.sh("\n".join(one["todo"] for one in found))
        assert node.findings() == []


def test_all_ways_at_once(node: BrokenNode) -> None:
    ways = [way for way in WAYS if way.together and Path(way.needs).exists()]
    assert len(ways) >= 30
    for way in ways:
        node.sh(way.script)
    found = {f"{one['severity']} {one['check']} {one['where']}" for one in node.findings()}
    missed = {way.name for way in ways if not said(node, way) <= found}
    assert missed == set()


def test_pods_of_the_reference_are_healthy_and_its_leftovers_are_found(installed: Path, reference_bin: str) -> None:
    with PretendHost(installed) as host:
        node = BrokenNode(host, Path(reference_bin))
        network = json.loads(json.dumps(NETWORK))
        network["plugins"][0] |= {"ipMasq": True, "hairpinMode": True}
        network["plugins"].append({"type": "portmap", "capabilities": {"portMappings": True}})
        host.run("tee", node.names["CONF"], input=json.dumps(network))
        node.add_pods(1, 3)
        assert node.findings() == []
        chains = "iptables-save -t nat; ip6tables-save -t nat"
        made = {line[1:].split()[0] for line in host.run("sh", "-c", chains).stdout.splitlines() if ":CNI-" in line}
        node.sh("ip netns delete pod2")
        found = node.findings()
        assert {one["where"].split()[-1] for one in found if one["check"] == "chains"} < made
        kinds = sorted(one["check"] for one in found)
        assert kinds == ["cache", "chains", "chains", "leases", "leases"]
        for one in found:
            node.sh(one["todo"])
        assert node.findings() == []
        rules = host.run("sh", "-c", chains).stdout
        assert len(made & set(rules.split())) >= 1
        assert "10.9.0.3" not in rules
