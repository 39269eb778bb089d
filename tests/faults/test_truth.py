"""Row 16: GC, STATUS and CHECK report, and do, the truth."""

from __future__ import annotations

from typing import Any

import pytest

from shared.net.owner import Owner
from tests.faults import batch
from tests.faults.batch import Call
from tests.pretend import PretendHost

NETWORK = "net"
STORE = f"/var/lib/cni/networks/{NETWORK}"
CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": NETWORK,
    "type": "bridge",
    "bridge": "br0",
    "isDefaultGateway": True,
    "ipam": {"type": "host-local", "subnet": "10.7.0.0/24", "routes": [{"dst": "192.0.2.0/24"}]},
}
STALE = 100


@pytest.mark.row(16)
def test_gc_of_a_hundred_stale_attachments(host: PretendHost) -> None:
    batch.make_pods(host, 2)
    plain = {
        **CONFIG,
        "isDefaultGateway": False,
        "isGateway": True,
        "ipam": {"type": "host-local", "subnet": "10.7.0.0/24"},
    }
    other = {**plain, "name": "other", "bridge": "br1", "ipam": {"type": "host-local", "subnet": "10.8.0.0/24"}}
    calls = [
        Call("bridge", "ADD", plain, {"CNI_CONTAINERID": f"c{n}", "CNI_IFNAME": f"eth{n}"}) for n in range(STALE + 3)
    ]
    calls += [Call("bridge", "ADD", other, {"CNI_CONTAINERID": "c0", "CNI_IFNAME": "other0"})]
    answers = batch.run(host, calls)
    assert {answer.status for answer in answers} == {0}
    store = host.root / STORE.lstrip("/")
    (store / "10.7.0.250").write_text("reserved\n")
    (store / "10.7.0.251").write_text(f"{'a' * 64}\r\neth0")  # the reference's, and stale
    host.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")

    kept = range(STALE, STALE + 3)
    valid = [{"containerID": f"c{n}", "ifname": f"eth{n}"} for n in kept] + [{"containerID": "c1", "ifname": "eth0"}]
    answer = host.cni("bridge", "GC", {**plain, "cni.dev/valid-attachments": valid})
    assert (answer.status, answer.stdout) == (0, ""), answer

    state = host.snapshot()
    links = {Owner(NETWORK, f"c{n}", f"eth{n}").host_link for n in kept} | {Owner("other", "c0", "other0").host_link}
    assert set(state["host"]["links"]) == {"lo", "br0", "br1", "veth0", "veth1"} | links
    leases = sorted(text for name, text in state["files"].items() if "/net/10." in name or "/other/10." in name)
    assert leases == sorted([*(f"c{n}\r\neth{n}" for n in kept), "c0\r\nother0", "reserved\n"])
    for n in kept:
        result = {**plain, "prevResult": answers[n].json}
        where = answers[n].json["interfaces"][2]["sandbox"]
        check = host.cni("bridge", "CHECK", result, netns=where, container_id=f"c{n}", ifname=f"eth{n}")
        assert check.status == 0, check
    assert host.cni("bridge", "GC", {**plain, "cni.dev/valid-attachments": []}).status == 0
    assert len(host.snapshot()["host"]["links"]) == 6  # and none of the other network's or a stranger's
    assert host.cni("bridge", "GC", {**plain, "cni.dev/valid-attachments": []}).status == 0


@pytest.mark.row(16, "gc-races")
def test_gc_while_pods_come(host: PretendHost) -> None:
    """GC frees no lease that a call at the same time has just taken, if it is in the list."""
    batch.make_pods(host, 4)
    plain = {**CONFIG, "isDefaultGateway": False, "ipam": {"type": "host-local", "subnet": "10.7.0.0/24"}}
    valid = [{"containerID": f"c{n}", "ifname": f"eth{n}"} for n in range(40)]
    calls = []
    for n in range(40):
        calls.append(Call("bridge", "ADD", plain, {"CNI_CONTAINERID": f"c{n}", "CNI_IFNAME": f"eth{n}"}))
        if n % 4 == 0:
            calls.append(Call("bridge", "GC", {**plain, "cni.dev/valid-attachments": valid}))
    answers = batch.run(host, calls, at_once=4)
    assert {answer.status for answer in answers} == {0}, [answer for answer in answers if answer.status]
    state = host.snapshot()
    assert len([name for name in state["files"] if name.startswith(f"{STORE}/10.")]) == 40
    assert len(state["host"]["links"]) == 42


@pytest.mark.parametrize("plugin", ["bridge", "host-local"])
@pytest.mark.row(16)
class TestStatus:
    def _status(self, host: PretendHost, plugin: str, **ipam: Any) -> Any:
        return host.cni(plugin, "STATUS", {**CONFIG, "ipam": {**CONFIG["ipam"], **ipam}})

    def test_ready(self, host: PretendHost, plugin: str) -> None:
        before = host.snapshot()
        assert self._status(host, plugin).status == 0
        assert host.snapshot() == before

    def test_full_pool(self, host: PretendHost, plugin: str) -> None:
        config = {**CONFIG, "ipam": {"type": "host-local", "subnet": "10.7.0.0/29"}}
        for number in range(5):
            answer = self._status(host, plugin, subnet="10.7.0.0/29")
            assert answer.status == 0, (number, answer)
            assert host.cni("host-local", "ADD", config, netns="/x", container_id=f"c{number}").status == 0
        answer = self._status(host, plugin, subnet="10.7.0.0/29")
        assert (answer.status, answer.code) == (1, 50), answer
        assert "10.7.0.1-10.7.0.6" in answer.stdout and "5" in answer.stdout
        assert self._status(host, plugin, subnet="10.8.0.0/24").status == 0
        host.cni("host-local", "DEL", config, container_id="c3")
        assert self._status(host, plugin, subnet="10.7.0.0/29").status == 0

    def test_a_pool_full_of_garbled_leases_is_not_full(self, host: PretendHost, plugin: str) -> None:
        store = host.root / STORE.lstrip("/")
        store.mkdir(mode=0o700, parents=True)
        for number in range(2, 7):
            (store / f"10.7.0.{number}").write_bytes(b"")
        assert self._status(host, plugin, subnet="10.7.0.0/29").status == 0

    def test_a_pool_of_leases_that_became_garbled_is_not_full(self, host: PretendHost, plugin: str) -> None:
        """The time stamp is the same, so that the index takes them for leases still."""
        config = {**CONFIG, "ipam": {"type": "host-local", "subnet": "10.7.0.0/29"}}
        for number in range(5):
            assert host.cni("host-local", "ADD", config, netns="/x", container_id=f"c{number}").status == 0
        (host.root / STORE.lstrip("/") / "10.7.0.4").write_bytes(b"")
        assert self._status(host, plugin, subnet="10.7.0.0/29").status == 0
        assert host.cni("host-local", "ADD", config, netns="/x", container_id="more").status == 0
        assert self._status(host, plugin, subnet="10.7.0.0/29").code == 50

    @pytest.mark.parametrize(
        "damage", ["chmod 777 {}", "rm {}/lock; ln -s /etc/passwd {}/lock", "rm {}/lock; mkdir {}/lock"]
    )
    def test_a_store_that_add_refuses(self, host: PretendHost, plugin: str, damage: str) -> None:
        assert host.cni("host-local", "ADD", CONFIG, netns="/x").status == 0
        host.run("sh", "-ec", damage.format(STORE, STORE))
        answer = self._status(host, plugin)
        assert (answer.status, answer.code) == (1, 50), answer

    @pytest.mark.parametrize("existing", [True, False])
    def test_read_only_store(self, host: PretendHost, plugin: str, existing: bool) -> None:
        if existing:
            host.run("mkdir", "-p", "-m", "700", STORE)
        host.run("mount", "-o", "remount,ro", "/var/lib/cni")
        answer = self._status(host, plugin)
        assert (answer.status, answer.code) == (1, 50), answer

    def test_full_file_system(self, host: PretendHost, plugin: str) -> None:
        host.run("mount", "-o", "remount,size=64k", "/var/lib/cni")
        host.run("sh", "-c", "cat /dev/zero >/var/lib/cni/filler 2>/dev/null || :")
        answer = self._status(host, plugin)
        assert (answer.status, answer.code) == (1, 50), answer

    def test_file_system_without_inodes(self, host: PretendHost, plugin: str) -> None:
        fill = "n=0; while touch /var/lib/cni/$n 2>/dev/null; do n=$((n+1)); done"
        host.run("sh", "-ec", f"mount -o remount,nr_inodes=64 /var/lib/cni; {fill}")
        answer = self._status(host, plugin)
        assert (answer.status, answer.code) == (1, 50) and "inode" in answer.stdout, answer
        assert host.cni("host-local", "ADD", CONFIG, netns="/x").status == 1
        host.run("rm", "/var/lib/cni/0", "/var/lib/cni/1")
        assert self._status(host, plugin).status == 0

    def test_store_is_a_file(self, host: PretendHost, plugin: str) -> None:
        host.run("sh", "-c", f"mkdir -p /var/lib/cni/networks; : >{STORE}")
        answer = self._status(host, plugin)
        assert (answer.status, answer.code) == (1, 50), answer


@pytest.mark.row(16)
def test_status_of_a_bridge_that_is_none(host: PretendHost) -> None:
    host.run("ip", "link", "add", "br0", "type", "veth", "peer", "name", "other")
    assert host.cni("bridge", "STATUS", CONFIG).code == 50


@pytest.mark.row(16)
def test_status_without_the_ipam_plugin(host: PretendHost) -> None:
    assert host.cni("bridge", "STATUS", {**CONFIG, "ipam": {"type": "nowhere"}}).code == 50


HOST_LINK = Owner(NETWORK, "c1", "eth0").host_link
LOSSES = {
    "the pod's link": ("ip -n pod link del eth0", ("eth0",)),
    "link is down": ("ip -n pod link set eth0 down", ("eth0", "down")),
    "address": ("ip -n pod address del 10.7.0.2/24 dev eth0", ("10.7.0.2", "eth0")),
    "another address": ("ip -n pod address flush dev eth0; ip -n pod address add 10.7.0.9/24 dev eth0", ("10.7.0.2",)),
    "default route": ("ip -n pod route del default", ("0.0.0.0/0",)),
    "gateway of the default route": ("ip -n pod route replace default via 10.7.0.99", ("0.0.0.0/0", "10.7.0.1")),
    "route": ("ip -n pod route del 192.0.2.0/24", ("192.0.2.0/24",)),
    "port": (f"ip link set {HOST_LINK} nomaster", (HOST_LINK, "br0")),
    "port is down": (f"ip link set {HOST_LINK} down", (HOST_LINK, "down")),
    "bridge": ("ip link del br0", ("br0",)),
    "bridge is down": ("ip link set br0 down", ("br0", "down")),
    "gateway address": ("ip address del 10.7.0.1/24 dev br0", ("10.7.0.1", "br0")),
    "lease": (f"rm {STORE}/10.7.0.2", ("c1",)),
    "lease is another's": (f"printf 'c2\\r\\neth0' >{STORE}/10.7.0.2", ("c1",)),
    "lease is garbled": (f": >{STORE}/10.7.0.2", ("c1",)),
    "all of it": (f"ip -n pod link del eth0; ip link del br0; rm {STORE}/10.7.0.2", ("eth0", "br0", "c1")),
    "namespace": ("ip netns del pod", ("/run/netns/pod",)),
}


@pytest.mark.parametrize("what", LOSSES)
@pytest.mark.row(16)
def test_check_names_what_is_lost(host: PretendHost, what: str) -> None:
    netns = host.netns("pod")
    added = host.cni("bridge", "ADD", CONFIG, netns=netns)
    config = {**CONFIG, "prevResult": added.json}
    assert host.cni("bridge", "CHECK", config, netns=netns).status == 0
    loss, named = LOSSES[what]
    host.run("sh", "-c", loss)
    answer = host.cni("bridge", "CHECK", config, netns=netns)
    assert answer.status == 1 and answer.code == (3 if what == "namespace" else 999), answer
    assert "unexpected" not in answer.stdout
    said = f"{answer.json['msg']} {answer.json.get('details', '')}"
    assert all(word in said for word in named), said


@pytest.mark.row(16)
def test_check_names_everything_that_is_lost(host: PretendHost) -> None:
    netns = host.netns("pod")
    config = {**CONFIG, "prevResult": host.cni("bridge", "ADD", CONFIG, netns=netns).json}
    host.run("sh", "-ec", f"ip -n pod route del 192.0.2.0/24; ip address del 10.7.0.1/24 dev br0; rm {STORE}/10.7.0.2")
    details = host.cni("bridge", "CHECK", config, netns=netns).json["details"]
    assert all(word in details for word in ("192.0.2.0/24", "10.7.0.1", "c1")), details


@pytest.mark.row(16)
def test_check_of_loopback(host: PretendHost) -> None:
    netns = host.netns("pod")
    config = {"cniVersion": "1.1.0", "name": NETWORK, "type": "loopback"}
    added = host.cni("loopback", "ADD", config, netns=netns, ifname="lo")
    config["prevResult"] = added.json
    assert host.cni("loopback", "CHECK", config, netns=netns, ifname="lo").status == 0
    host.run("ip", "-n", "pod", "link", "set", "lo", "down")
    answer = host.cni("loopback", "CHECK", config, netns=netns, ifname="lo")
    assert answer.status == 1 and "lo is down" in answer.json["msg"], answer
