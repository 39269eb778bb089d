"""portmap's route_localnet: it admits no packet, is on only behind its rules, and is reset with the last host port."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.pretend import PATH, PretendHost, read_line
from tests.system.hostport_nodes import EITHER, EVERY, GATEWAY, OUT, TCP, Node, Plain, ports
from tests.system.pod_network import CNITOOL

pytestmark = pytest.mark.row("route-localnet")

PORT = 9999
LISTEN = f"""
import json, socket
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind(("0.0.0.0", {PORT}))
print("ready", flush=True)
found = []
while not found or found[-1] != "end":
    found.append(listener.recv(100).decode())
print(json.dumps(found))
"""
# Frames as no socket of the kernel would send them: [payload, source, destination]
SEND = f"""
import json, socket, struct, sys
mac, packets = bytes.fromhex(sys.argv[1].replace(":", "")), json.loads(sys.argv[2])
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind(("eth0", 0x0800))
for text, source, destination in packets:
    data = text.encode()
    header = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(data), 0, 0, 64, 17, 0))
    header += socket.inet_aton(source) + socket.inet_aton(destination)
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    header[10:12] = struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)
    udp = struct.pack("!HHHH", 5000, {PORT}, 8 + len(data), 0)
    link.send(mac + link.getsockname()[4] + b"\\x08\\x00" + bytes(header) + udp + data)
"""
TO = ["127.0.0.1", "127.0.0.9", "127.255.255.254"]


def switch(host: PretendHost, link: str = "br0") -> str:
    return host.run("cat", f"/proc/sys/net/ipv4/conf/{link}/route_localnet").stdout.strip()


def turned_on(host: PretendHost) -> set[str]:
    found = host.run("sh", "-c", "cd /proc/sys/net/ipv4/conf; grep -l 1 */route_localnet || :").stdout.split()
    return {path.partition("/")[0] for path in found}


def notes(host: PretendHost) -> list[str]:
    return host.run("sh", "-c", "ls -A /run/cni/localnet 2>/dev/null || :").stdout.split()


# -- packets


class Segment(Node):
    """A node whose bridge has a neighbour beside its pods; all other obstacles to their packets are off."""

    def __init__(self, host: PretendHost, backend: str) -> None:
        super().__init__(host, backend)
        host.netns("near")
        host.run("sh", "-ec", "ip link add near0 master cni0 up type veth peer eth0 netns near; ip -n near link set eth0 up; "
                              "ip -n near address add 10.1.0.99/24 dev eth0")  # fmt: skip
        host.run(
            "sh",
            "-ec",
            "for name in all default cni0 out0; do cd /proc/sys/net/ipv4/conf/$name; echo 0 >rp_filter; echo 1 >accept_local; done",
        )
        # a listener there receives such packets from its own gateway
        host.run("ip", "netns", "exec", "out", "sh", "-ec", "cd /proc/sys/net/ipv4/conf; for name in all eth0; do echo 1 >$name/route_localnet; "
                                                            "echo 1 >$name/accept_local; echo 0 >$name/rp_filter; done")  # fmt: skip
        self.mac = host.ip("link", "show", "cni0")[0]["address"]

    def heard(self, at: str, sender: str, own: str, packets: Sequence[tuple[str, str]]) -> list[str]:
        """Return the packets, by source and destination, that a listener receives from a neighbour."""
        inside = ("ip", "netns", "exec", at) if at else ()
        with self.host.popen(*inside, sys.executable, "-c", LISTEN) as listener:
            assert read_line(listener) == b"ready\n"
            sent = [(f"{source} {destination}", source, destination) for source, destination in packets]
            sent.append(("end", own, OUT if at else GATEWAY))
            self.host.run("ip", "netns", "exec", sender, sys.executable, "-c", SEND, self.mac, json.dumps(sent))
            found: list[str] = json.loads(listener.communicate(timeout=30)[0])
        return found[:-1]


@EVERY
@pytest.mark.parametrize("sender", ["a", "near"])
def test_nobody_is_let_in(host: PretendHost, backend: str, sender: str) -> None:
    """Packets to or from 127.0.0.0/8 are dropped, from a pod and from a neighbour of the bridge."""
    node = Segment(host, backend)
    node.add("b", TCP)
    assert turned_on(host) == {"cni0"}
    own = "10.1.0.2" if sender == "a" else "10.1.0.99"
    to_host = [(own, one) for one in TO] + [(one, GATEWAY) for one in TO] + [("127.0.0.9", "127.0.0.8")]
    to_others = [(one, OUT) for one in TO]
    assert node.heard("", sender, own, to_host) == []
    assert node.heard("out", sender, own, to_others) == []
    # without the rules: the packets are such as come in
    host.run("sh", "-ec", "nft flush ruleset; for variant in nft legacy; do iptables-$variant -t raw -F; done")
    assert node.heard("", sender, own, to_host) == [f"{source} {destination}" for source, destination in to_host]
    assert node.heard("out", sender, own, to_others) == [f"{source} {destination}" for source, destination in to_others]


# -- the rules and the switch


LOST = {"the table": "nft delete table inet pycni", "all": "nft flush ruleset; iptables-legacy -t raw -F"}


def is_guarded(host: PretendHost) -> bool:
    shown = host.run("sh", "-c", "nft list ruleset; iptables-legacy-save -t raw").stdout
    return all(
        any(f"{word} 127.0.0.0/8" in line and "lo" in line and "drop" in line.lower() for line in shown.splitlines())
        for word in ("daddr", "saddr")
    ) or all(f"-A PREROUTING {option} 127.0.0.0/8 ! -i lo" in shown for option in ("-d", "-s"))


@pytest.mark.parametrize(
    ("backend", "lost"),
    [("nftables", "the table"), ("nftables", "all"), ("iptables", "all"), ("legacy", "all")],
    indirect=["backend"],
)
@pytest.mark.parametrize(
    "keys", [{}, TCP, ports((8081, 80, "udp", "192.0.2.1"))], ids=["no port", "a port of all", "a port of one address"]
)
def test_each_add_restores_the_rules(plain: Plain, lost: str, keys: dict[str, Any]) -> None:
    plain.add(ports((8079, 80, "tcp")))
    assert is_guarded(plain.host)
    plain.host.run("sh", "-ec", LOST[lost])
    assert not is_guarded(plain.host) and switch(plain.host) == "1"
    plain.add(keys, "c2", number=6)
    assert is_guarded(plain.host) and switch(plain.host) == "1"


def test_part_of_the_rules_is_restored(plain: Plain) -> None:
    """An older release left the rules, without those for packets from 127.0.0.0/8."""
    plain.add(TCP)
    plain.host.run("nft", "flush", "chain", "inet", "pycni", "hostports_localnet")
    plain.add({}, "c2", number=6)
    assert is_guarded(plain.host)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", ""))


@pytest.fixture
def plain(host: PretendHost, backend: str) -> Plain:
    return Plain(host, backend)


@EVERY
def test_the_switch_goes_with_the_last_host_port(plain: Plain) -> None:
    plain.add(TCP)
    plain.add(ports((8081, 80, "tcp")), "c2", number=6)
    assert plain.call("DEL", TCP).status == 0
    assert switch(plain.host) == "1"
    assert plain.call("DEL", {}, "c2", number=6).status == 0
    assert turned_on(plain.host) == set() and notes(plain.host) == []
    assert is_guarded(plain.host)
    plain.add(TCP)
    assert switch(plain.host) == "1"


@EITHER
def test_gc_sets_it_back(plain: Plain) -> None:
    plain.add(TCP)
    config = {key: value for key, value in plain.config({}).items() if key != "prevResult"}
    listed = [{"containerID": "c1", "ifname": "eth0"}]
    for valid, expected in ((listed, {"br0"}), ([], set())):
        answer = plain.host.cni("portmap", "GC", {**config, "cni.dev/valid-attachments": valid}, **plain.environment)
        assert answer.status == 0, answer
        assert turned_on(plain.host) == expected


@EITHER
def test_a_failed_add_sets_it_back(plain: Plain) -> None:
    """The ADD cannot write its result."""
    config = json.dumps(plain.config(TCP))
    env = {**plain.environment.get("env", {}), "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": plain.netns,
           "CNI_IFNAME": "eth0", "CNI_PATH": plain.host.bin_dir, "PATH": PATH}  # fmt: skip
    done = plain.host.run("sh", "-c", f"exec {plain.host.bin_dir}/portmap >&-", input=config, env=env, check=False)
    assert done.returncode
    assert turned_on(plain.host) == set() and notes(plain.host) == []


@EITHER
def test_somebody_elses_switch_stays(plain: Plain) -> None:
    """It was on before the first host port, perhaps for a later link of the same name or index."""
    plain.host.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/br0/route_localnet")
    plain.add(TCP)
    assert plain.call("DEL", TCP).status == 0
    assert switch(plain.host) == "1"


def test_a_link_that_came_later_is_not_meant(plain: Plain) -> None:
    plain.add(TCP)
    index = plain.host.ip("link", "show", "br0")[0]["ifindex"]
    plain.host.run("sh", "-ec", f"ip link delete br0; ip link add other index {index} type bridge; ip link add br0 type bridge; "
                                "for link in br0 other; do echo 1 >/proc/sys/net/ipv4/conf/$link/route_localnet; done")  # fmt: skip
    assert plain.call("DEL", TCP).status == 0
    assert turned_on(plain.host) == {"br0", "other"} and notes(plain.host) == []


@pytest.mark.parametrize("by", ["iptables", "nftables"])
@EITHER
def test_the_reference_still_needs_it(plain: Plain, reference_bin: str, by: str) -> None:
    """Its host ports count as well, and its DEL leaves the switch to this suite's next DEL."""
    plain.add(TCP)
    own = {**plain.config(ports((8081, 80, "tcp")), 6), "cniVersion": "1.0.0", "backend": by}
    own["prevResult"]["cniVersion"] = "1.0.0"
    added = plain.host.cni("portmap", "ADD", own, netns=plain.netns, container_id="c2", bin_dir=reference_bin)
    assert added.status == 0, added
    assert plain.call("DEL", TCP).status == 0
    assert switch(plain.host) == "1"
    deleted = plain.host.cni("portmap", "DEL", own, netns=plain.netns, container_id="c2", bin_dir=reference_bin)
    assert deleted.status == 0, deleted
    assert plain.call("DEL", TCP).status == 0
    assert turned_on(plain.host) == set()


@EITHER
def test_concurrent_calls(plain: Plain) -> None:
    """The last DEL and a first ADD run at the same time, many rounds: the new pod has its switch."""
    plain.add(TCP, "c0")
    where = {"CNI_NETNS": plain.netns, "CNI_IFNAME": "eth0", "CNI_PATH": plain.host.bin_dir, "PATH": PATH}
    for number in range(1, 9):
        keys = {"ADD": ports((8080 + number, 80, "tcp")), "DEL": {}}
        names = {"ADD": f"c{number}", "DEL": f"c{number - 1}"}
        for verb, some in keys.items():
            plain.host.run("tee", f"/run/{verb}", input=json.dumps(plain.config(some, 6 + number)))
        started = [
            f"CNI_COMMAND={verb} CNI_CONTAINERID={names[verb]} {plain.host.bin_dir}/portmap </run/{verb} >/run/{verb}.out &"
            for verb in keys
        ]
        plain.host.run("sh", "-c", "\n".join([*started, "wait"]), env=where)
        assert '"ips"' in plain.host.run("cat", "/run/ADD.out").stdout
        assert switch(plain.host) == "1", number


@EITHER
def test_an_add_between_the_last_dels_look_and_its_change(plain: Plain) -> None:
    """DEL has found no user of the switch, and is slow to reset it."""
    host = plain.host
    plain.add(TCP)
    env = {
        "CNI_COMMAND": "DEL",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": plain.netns,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": host.bin_dir,
        "PATH": PATH,
    }
    slow = (
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-P",
        "/proc/sys/net/ipv4/conf/br0/route_localnet",
        "-e",
        "inject=openat:delay_enter=1500000",
    )
    with host.popen(*slow, f"{host.bin_dir}/portmap", env=env) as deleting:
        assert deleting.stdin is not None
        deleting.stdin.write(json.dumps(plain.config({})).encode())
        deleting.stdin.close()
        host.run("sh", "-c", "while flock -n /run/cni/.pycni/localnet/lock true; do :; done")  # until DEL has the lock
        plain.add(ports((8081, 80, "tcp")), "c2", number=6)
        assert deleting.wait(30) == 0
    assert switch(host) == "1"


# -- doctor, and the documented clean-up


def doctor(host: PretendHost) -> str:
    return host.run(*CNITOOL, "doctor", "--json", check=False, timeout=120).stdout


@EVERY
def test_doctor_finds_the_switch_without_its_rules(plain: Plain) -> None:
    plain.add(TCP)
    path = "net/ipv4/conf/br0/route_localnet"
    assert path not in doctor(plain.host)
    plain.host.run("sh", "-ec", LOST["all"])
    found = [one for one in json.loads(doctor(plain.host))["findings"] if one["where"] == path]
    assert [one["severity"] for one in found] == ["error"]
    plain.host.run("sh", "-ec", found[0]["todo"])
    assert path not in doctor(plain.host)


@EITHER
def test_the_documented_clean_up(plain: Plain) -> None:
    """The page about removal has commands to run before the table is deleted; they undo the suite's settings alone."""
    host = plain.host
    host.run("sh", "-ec", "ip link add other type bridge; echo 1 >/proc/sys/net/ipv4/conf/other/route_localnet")
    plain.add(TCP)
    text = Path(__file__).parents[2].joinpath("docs/how-to/upgrade-uninstall.md").read_text()
    commands = text.partition("<!-- clean-up -->")[2].partition("<!-- end -->")[0]
    host.run("sh", "-c", commands.partition("```sh\n")[2].partition("```")[0], check=False)
    assert turned_on(host) == {"other"} and "pycni" not in host.run("nft", "list", "ruleset").stdout
    assert notes(host) == []


# -- which link


@EITHER
@pytest.mark.parametrize("way", ["a gateway", "the segment", "the segment, no host link named"])
def test_an_uplink_is_never_switched(plain: Plain, way: str) -> None:
    """The route to the pod is another link's, a macvlan's segment for instance, or missing."""
    host = plain.host
    host.netns("outside")
    host.run("sh", "-ec", "ip link add up0 type veth peer eth0 netns outside; ip link set up0 up; ip -n outside link set eth0 up; "
                          "ip address add 10.9.0.1/24 dev up0; ip route add default via 10.9.0.254 dev up0; ip address flush dev br0 scope global; "
                          "ip address add 192.0.2.1/32 dev br0")  # fmt: skip
    if way != "a gateway":
        host.run("ip", "address", "add", "10.1.0.1/16", "dev", "up0")
    config = plain.config(TCP)
    if "no host" in way:
        config["prevResult"]["interfaces"][0]["sandbox"] = plain.netns
    answer = host.cni("portmap", "ADD", config, netns=plain.netns, container_id="c1", **plain.environment)
    assert answer.status == 0, answer
    assert turned_on(host) == set()
    assert "connections from 127.0.0.1 do not reach 10.1.0.6" in answer.stderr


@pytest.mark.parametrize("names", ["named", "not named"])
def test_a_pods_own_link_is_switched(plain: Plain, names: str) -> None:
    """The host's end of a routed pod's veth pair, as ptp makes it."""
    host = plain.host
    host.run("sh", "-ec", "ip address flush dev br0 scope global; ip link add wire type veth peer eth0 netns pod; ip link set wire up; "
                          "ip -n pod link set eth0 up; ip route add 10.1.0.6/32 dev wire")  # fmt: skip
    config = plain.config(TCP)
    config["prevResult"]["interfaces"][0] = (
        {"name": "wire"} if names == "named" else {"name": "x", "sandbox": "/run/netns/x"}
    )
    answer = host.cni("portmap", "ADD", config, netns=plain.netns, container_id="c1")
    assert answer.status == 0, answer
    assert turned_on(host) == {"wire"}
