"""host-local: keys, dynamic input, and the reference's files, byte for byte and by turns with the reference."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.pretend import Answer, PretendHost

STORE = "/var/lib/cni/networks/net"
V4, V6 = "10.1.0.0/24", "fd00:1::/64"


class Ipam:
    """host-local, called as a plugin calls it; it only passes the namespace's path on, so none is created."""

    def __init__(self, host: PretendHost) -> None:
        self.host = host

    def call(
        self, command: str, pod: str = "a", *, ifname: str = "eth0", args: str = "", bin_dir: str | None = None,
        top: Any = None, version: str = "1.0.0", **ipam: Any,
    ) -> Answer:  # fmt: skip
        section = {"type": "host-local", **(ipam or {"subnet": V4})}
        config = {"cniVersion": version, "name": "net", "type": "host-local", "ipam": section, **(top or {})}
        return self.host.cni(
            "host-local",
            command,
            config,
            netns="/run/netns/x",
            container_id=pod,
            ifname=ifname,
            args=args,
            bin_dir=bin_dir,
        )

    def add(self, pod: str = "a", **keys: Any) -> list[str]:
        """Return the addresses of a successful ADD."""
        answer = self.call("ADD", pod, **keys)
        assert answer.status == 0, answer
        return [ip["address"] for ip in answer.json["ips"]]

    def delete(self, pod: str = "a", **keys: Any) -> None:
        answer = self.call("DEL", pod, **keys)
        assert (answer.status, answer.stdout) == (0, ""), answer

    def refused(self, code: int, words: str, pod: str = "z", **keys: Any) -> Answer:
        before = self.leases()
        answer = self.call("ADD", pod, **keys)
        assert (answer.status, answer.code) == (1, code), answer
        assert re.search(words, answer.json["msg"] + " " + answer.json.get("details", "")), answer
        assert self.leases() == before
        return answer

    def files(self) -> dict[str, str]:
        """Return the store without the index: the reference sees the same files."""
        found = self.host.snapshot()["files"]
        return {name.rpartition("/")[2]: text for name, text in found.items() if name.startswith(STORE + "/")}

    def leases(self) -> dict[str, str]:
        return {name: text for name, text in self.files().items() if name != "lock" and not name.startswith("last_")}


@pytest.fixture
def ipam(host: PretendHost) -> Ipam:
    return Ipam(host)


# -- which address


def test_round_robin(ipam: Ipam) -> None:
    """The address that became free last is assigned last."""
    small = {"subnet": "10.1.0.0/29"}
    assert [ipam.add(pod, **small) for pod in "abc"] == [["10.1.0.2/29"], ["10.1.0.3/29"], ["10.1.0.4/29"]]
    ipam.delete("a", **small)
    assert [ipam.add(pod, **small) for pod in "def"] == [["10.1.0.5/29"], ["10.1.0.6/29"], ["10.1.0.2/29"]]
    assert (
        "no IP addresses available in range set: 10.1.0.1-10.1.0.6"
        in ipam.refused(11, "all 5 addresses", **small).json["msg"]
    )
    ipam.delete("e", **small)
    assert ipam.add("g", **small) == ["10.1.0.6/29"]


def test_round_robin_after_a_shorter_address(ipam: Ipam) -> None:
    """From the last address to the first, which has the shorter text, and on from there."""
    assert ipam.add("a") == ["10.1.0.2/24"]
    assert ipam.add("b", top={"args": {"cni": {"ips": ["10.1.0.254"]}}}) == ["10.1.0.254/24"]
    ipam.delete("a")
    assert ipam.add("c") == ["10.1.0.2/24"]
    ipam.delete("c")
    assert ipam.add("d") == ["10.1.0.3/24"]


def test_the_last_address_behind_a_garbled_file(ipam: Ipam, host: PretendHost) -> None:
    """The pool is too large to try each address; the file is garbled in place, so the index takes it for a lease."""
    large = {"subnet": "10.1.0.0/26"}
    ipam.add("a", **large)
    store = host.root / STORE[1:]
    for number in range(3, 63):
        (store / f"10.1.0.{number}").write_text(f"c{number}\r\neth0")
    ipam.refused(11, "all 61 addresses", **large)
    (store / "10.1.0.50").write_bytes(b"")
    assert ipam.add("b", **large) == ["10.1.0.50/26"]
    ipam.refused(11, "all 61 addresses", **large)


def test_dual_stack(ipam: Ipam) -> None:
    answer = ipam.call("ADD", ranges=[[{"subnet": V4}], [{"subnet": V6}]])
    assert answer.json["ips"] == [
        {"address": "10.1.0.2/24", "gateway": "10.1.0.1"},
        {"address": "fd00:1::2/64", "gateway": "fd00:1::1"},
    ]
    assert ipam.leases() == {"10.1.0.2": "a\r\neth0", "fd00:1::2": "a\r\neth0"}


@pytest.mark.parametrize(("keys", "expected"), [
    ({"subnet": V4, "rangeStart": "10.1.0.20", "rangeEnd": "10.1.0.21"}, ["10.1.0.20/24", "10.1.0.21/24", None]),
    ({"subnet": V4, "rangeEnd": "10.1.0.3"}, ["10.1.0.2/24", "10.1.0.3/24", None]),
    ({"subnet": V4, "gateway": "10.1.0.2", "rangeEnd": "10.1.0.3"}, ["10.1.0.1/24", "10.1.0.3/24", None]),
    ({"subnet": V4, "gateway": "10.9.9.9", "rangeEnd": "10.1.0.2"}, ["10.1.0.1/24", "10.1.0.2/24", None]),
    ({"subnet": "10.1.0.0/30"}, ["10.1.0.2/30", None]),
    ({"subnet": "fd00:1::/126"}, ["fd00:1::2/126", "fd00:1::3/126", None]),
    ({"ranges": [[{"subnet": "10.1.0.0/30"}, {"subnet": "10.2.0.0/30"}]]}, ["10.1.0.2/30", "10.2.0.2/30", None]),
    ({"ranges": [[{"SUBNET": "10.1.0.0/30", "RangeStart": None}]], "subnet": None}, ["10.1.0.2/30", None]),
])  # fmt: skip
def test_ranges(ipam: Ipam, keys: dict[str, Any], expected: list[str | None]) -> None:
    for pod, address in zip("abc", expected, strict=False):
        if address is None:
            ipam.refused(11, "no IP addresses available", pod, **keys)
        else:
            assert ipam.add(pod, **keys) == [address]


@pytest.mark.parametrize(("keys", "words"), [
    ({"subnet": "10.1.0.5/24"}, "host bits"), ({"subnet": "10.1.0.0/31"}, "too small"), ({"subnet": 5}, '"ipam.subnet": 5'),
    ({"subnet": V4, "rangeStart": "10.2.0.1"}, "rangeStart 10.2.0.1 outside"), ({"subnet": V4, "rangeEnd": "x"}, '"ipam.rangeEnd": "x"'),
    ({"subnet": V4, "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}, "after"), ({"ranges": []}, "no IP ranges"), ({"ranges": [[]]}, "empty"),
    ({"ranges": [[{"subnet": V4}], [{"subnet": V4}]]}, "overlaps"), ({"ranges": [[{"subnet": V4}, {"subnet": "10.1.0.128/25"}]]}, "overlapping"),
    ({"ranges": [[{"subnet": V4}, {"subnet": V6}]]}, "mixes"), ({"ranges": [[{}]]}, r"ranges\[0\]\[0\].subnet.*required"),
    ({"ranges": {"subnet": V4}}, '"ipam.ranges"'), ({"subnet": V4, "dataDir": "relative"}, '"ipam.dataDir"'),
    ({"subnet": V4, "dataDir": "/var/lib/../../etc"}, '"ipam.dataDir"'), ({"subnet": V4, "resolvConf": "/run/none"}, "resolvConf.*cannot be read"),
    ({"subnet": V4, "routes": [{"gw": "10.1.0.1"}]}, r"ipam.routes\[0\]"), ({"subnet": V4, "routes": [{"dst": "10.0.0.0/8", "gw": "x"}]}, "routes"),
    ({"subnet": V4, "routes": [{"dst": "10.0.0.0/8", "mtu": "big"}]}, "routes"), ({"subnet": V4, "gateway": "x"}, '"ipam.gateway": "x"'),
])  # fmt: skip
def test_unusable_keys(ipam: Ipam, keys: dict[str, Any], words: str) -> None:
    """Code 7 and no change; STATUS reports the same, but DEL frees all leases that it can."""
    ipam.refused(7, words, **keys)
    assert ipam.files() == {}
    assert ipam.call("STATUS", version="1.1.0", **keys).code in (7, 50, None)
    if "dataDir" not in keys:
        ipam.delete("z", **keys)


# -- addresses asked for

ASKED = "10.1.0.77"


@pytest.mark.parametrize("place", ["CNI_ARGS", "CNI_ARGS with prefix", "args.cni", "runtimeConfig", "capitalised"])
def test_an_address_asked_for(ipam: Ipam, place: str) -> None:
    tops: dict[str, dict[str, Any]] = {
        "args.cni": {"args": {"cni": {"ips": [ASKED]}}},
        "runtimeConfig": {"runtimeConfig": {"ips": [f"{ASKED}/24"]}},
        "capitalised": {"RuntimeConfig": {"IPs": [ASKED]}},
    }
    top = tops.get(place, {})
    args = {"CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAME=web;IP={ASKED}", "CNI_ARGS with prefix": f"IP={ASKED}/24"}.get(
        place, ""
    )
    assert ipam.add(top=top, args=args) == ["10.1.0.77/24"]
    assert ipam.add("b") == ["10.1.0.78/24"]  # round robin goes on from there
    ipam.refused(11, "10.1.0.77 is not available", top=top, args=args)


def test_addresses_asked_for_in_several_sets(ipam: Ipam) -> None:
    """One of each family is asked for; a set without a request gives its next."""
    ranges = [[{"subnet": V4}], [{"subnet": V6}], [{"subnet": "10.5.0.0/24"}]]
    top = {"runtimeConfig": {"ips": ["fd00:1::77", ASKED]}}
    assert ipam.add(top=top, ranges=ranges) == ["10.1.0.77/24", "fd00:1::77/64", "10.5.0.2/24"]


@pytest.mark.parametrize(("asked", "code", "words"), [
    (["10.9.0.1"], 7, "10.9.0.1"), ([ASKED, "10.1.0.78"], 7, "10.1.0.78"), (["10.1.0.1"], 7, "10.1.0.1 is the gateway"),
    (["10.1.0.255"], 7, "10.1.0.255"), (["x"], 7, r"ips\[0\]"), ("10.1.0.7", 7, '"runtimeConfig.ips"'), ([5], 7, r"ips\[0\]"),
])  # fmt: skip
def test_addresses_that_cannot_be_had(ipam: Ipam, asked: Any, code: int, words: str) -> None:
    ipam.refused(code, words, top={"runtimeConfig": {"ips": asked}})


def test_ranges_from_the_runtime_come_first(ipam: Ipam) -> None:
    top = {"runtimeConfig": {"ipRanges": [[{"subnet": "10.5.0.0/24"}]]}}
    assert ipam.add(top=top) == ["10.5.0.2/24", "10.1.0.2/24"]
    ipam.refused(7, "ipRanges", top={"runtimeConfig": {"ipRanges": [[{"subnet": "10.5.0.1/24"}]]}})


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_one_address_per_family_in_the_versions_of_old(ipam: Ipam, version: str) -> None:
    ipam.refused(7, "1 address per family", version=version, ranges=[[{"subnet": V4}], [{"subnet": "10.5.0.0/24"}]])
    answer = ipam.call("ADD", version=version, ranges=[[{"subnet": V4}], [{"subnet": V6}]])
    assert (answer.json["ip4"]["ip"], answer.json["ip6"]["ip"]) == ("10.1.0.2/24", "fd00:1::2/64")


# -- the rest of the result


def test_routes_and_dns(ipam: Ipam, host: PretendHost) -> None:
    host.run("sh", "-c", "printf '# a comment\\n;another\\nnameserver 1.1.1.1\\nnameserver fd00::53\\ndomain a.example\\n"
                         "search b.example c.example\\noptions ndots:5 rotate\\nsortlist x\\nnameserver\\n' >/run/resolv.conf")  # fmt: skip
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "10.8.0.0/16", "gw": "10.1.0.9"}]
    answer = ipam.call("ADD", subnet=V4, routes=routes, resolvConf="/run/resolv.conf")
    assert answer.json["routes"] == routes
    assert answer.json["dns"] == {
        "nameservers": ["1.1.1.1", "fd00::53"], "domain": "a.example", "search": ["b.example", "c.example"],
        "options": ["ndots:5", "rotate"],
    }  # fmt: skip


def test_data_dir(ipam: Ipam, host: PretendHost) -> None:
    assert ipam.add(subnet=V4, dataDir="/run/leases") == ["10.1.0.2/24"]
    assert host.run("cat", "/run/leases/net/10.1.0.2").stdout == "a\r\neth0"
    assert ipam.files() == {}
    ipam.delete(subnet=V4, dataDir="/run/leases")
    assert host.run("ls", "/run/leases/net").stdout.split() == ["last_reserved_ip.0", "lock"]


# -- CHECK, DEL, GC, STATUS


def test_check(ipam: Ipam, host: PretendHost) -> None:
    previous = {"prevResult": ipam.call("ADD").json}
    assert ipam.call("CHECK", top=previous).status == 0
    assert ipam.call("CHECK", "b", top=previous).code == 999
    assert ipam.call("CHECK", ifname="net1", top=previous).code == 999
    assert ipam.call("CHECK").code == 7
    other = {"prevResult": {**previous["prevResult"], "ips": [{"address": "10.1.0.9/24"}]}}
    assert "10.1.0.9" in ipam.call("CHECK", top=other).json["msg"]
    host.run("rm", f"{STORE}/10.1.0.2")
    assert ipam.call("CHECK", top=previous).code == 999


def test_a_second_add_is_an_error(ipam: Ipam) -> None:
    """The interface has an address already; another interface of the container gets its own."""
    assert ipam.add() == ["10.1.0.2/24"]
    ipam.refused(999, "10.1.0.2 has been allocated to a eth0, duplicate", "a")
    assert ipam.add(ifname="net1") == ["10.1.0.3/24"]
    ipam.delete(ifname="eth0")
    assert ipam.leases() == {"10.1.0.3": "a\r\nnet1"}


def test_an_add_whose_answer_nobody_reads(ipam: Ipam, host: PretendHost) -> None:
    """Its address is free again, and no other one."""
    ipam.add("b")
    before = ipam.leases()
    config = {"cniVersion": "1.0.0", "name": "net", "type": "host-local", "ipam": {"type": "host-local", "subnet": V4}}
    unheard = ("sh", "-c", 'exec "$0" >/dev/full')
    answer = host.cni("host-local", "ADD", config, netns="/run/netns/x", container_id="a", prefix=unheard)
    assert answer.status == 1 and ipam.leases() == before, answer


def test_closed_descriptors(ipam: Ipam, host: PretendHost) -> None:
    """No file of the store becomes stdout or stderr, where it would receive the answer or a message."""
    ipam.add("b")
    config = {"cniVersion": "1.0.0", "name": "net", "type": "host-local", "ipam": {"type": "host-local", "subnet": V4}}
    script = 'exec strace -qq -o /run/trace -e trace=openat sh -c \'exec "$0" >&- 2>&-\' "$0"'
    answer = host.cni("host-local", "ADD", config, netns="/run/netns/x", container_id="a", prefix=("sh", "-c", script))
    assert answer.status == 1 and set(ipam.leases().values()) == {"b\r\neth0"}, answer
    opened = re.findall(r'"(/var/lib/cni[^"]*)".* = (\d+)$', host.run("cat", "/run/trace").stdout, re.MULTILINE)
    assert len(opened) >= 2 and all(int(descriptor) > 2 for _, descriptor in opened), opened


def test_delete_is_repeatable(ipam: Ipam) -> None:
    ipam.delete()
    assert ipam.files() == {}  # nothing is made for it
    ipam.add()
    for _ in range(3):
        ipam.delete()
    assert ipam.leases() == {}


@pytest.mark.parametrize("content", ["", "\0\0\0\0\0\0", "\udcff\udcfe"])
def test_garbled_files_are_reclaimed(ipam: Ipam, host: PretendHost, content: str) -> None:
    """A power cut leaves them; each would be an address lost for good."""
    ipam.add()
    ipam.delete()
    for number in range(1, 7):
        (host.root / STORE[1:] / f"10.1.0.{number}").write_bytes(content.encode(errors="surrogateescape"))
    assert len({ipam.add(pod, subnet="10.1.0.0/29")[0] for pod in "bcdef"}) == 5
    assert set(ipam.leases()) - {"10.1.0.1"} == {f"10.1.0.{number}" for number in range(2, 7)}


def test_garbage_collection(ipam: Ipam, host: PretendHost) -> None:
    """Leases that are not valid are freed; a file placed by hand, in a form that no plugin writes, stays."""
    for pod in "abc":
        ipam.add(pod)
    ipam.add("a", ifname="net1")
    (host.root / STORE[1:] / "10.1.0.99").write_text("reserved for the printer")
    top = {"cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}]}
    answer = ipam.call("GC", version="1.1.0", top=top)
    assert (answer.status, answer.stdout) == (0, "")
    assert ipam.leases() == {"10.1.0.2": "a\r\neth0", "10.1.0.99": "reserved for the printer"}
    assert ipam.call("GC", version="1.1.0").code == 7


def test_status(ipam: Ipam, host: PretendHost) -> None:
    small: dict[str, Any] = {"subnet": "10.1.0.0/30", "version": "1.1.0"}
    assert ipam.call("STATUS", **small).status == 0 and ipam.files() == {}
    ipam.add(**small)
    full = ipam.call("STATUS", **small)
    assert full.code == 50 and "10.1.0.1-10.1.0.2" in full.json["msg"]
    ipam.delete(**small)
    assert ipam.call("STATUS", **small).status == 0
    host.run("mount", "-o", "remount,ro", "/var/lib/cni")
    assert ipam.call("STATUS", **small).code == 50


def test_status_counts_no_addresses_of_other_ranges(ipam: Ipam, host: PretendHost) -> None:
    """It does not count the gateway's either."""
    small: dict[str, Any] = {"subnet": "10.1.0.0/30", "version": "1.1.0"}
    ipam.add(subnet="10.2.0.0/30")
    (host.root / STORE[1:] / "10.1.0.1").write_text("router")
    assert ipam.call("STATUS", **small).status == 0
    assert ipam.add("b", **small) == ["10.1.0.2/30"]
    assert ipam.call("STATUS", **small).code == 50


def test_a_network_whose_name_no_directory_can_have(ipam: Ipam) -> None:
    """ADD refuses it before it creates anything; DEL and GC have nothing to free."""
    long: dict[str, Any] = {"version": "1.1.0", "top": {"name": "n" * 256}}
    ipam.refused(7, '"name".*255 bytes', **long)
    assert ipam.files() == {}
    assert ipam.call("STATUS", **long).code == 7
    assert ipam.call("DEL", **long).status == 0
    assert ipam.call("ADD", version="1.1.0", top={"name": "n" * 255}).status == 0


# -- the reference


def test_the_references_bytes(ipam: Ipam, host: PretendHost, reference_bin: str) -> None:
    """Each file equals the reference's. Leases are 0600, as in newer references; Debian's are readable for all."""
    keys: dict[str, Any] = {"ranges": [[{"subnet": V4}], [{"subnet": V6}]]}
    stores = []
    for bin_dir in (host.bin_dir, reference_bin):
        for pod in ("a", "b"):
            ipam.add(pod, bin_dir=bin_dir, **keys)
        ipam.delete("a", bin_dir=bin_dir, **keys)
        stores.append(ipam.files())
        modes = host.run("sh", "-c", f"stat -c %a {STORE}/*[.:][0-9]").stdout.split()
        assert bin_dir == reference_bin or set(modes) == {"600"}
        host.run("rm", "-r", "/var/lib/cni/networks")
    assert stores[0] == stores[1]


@pytest.mark.parametrize("start", [0, 1])
def test_by_turns_with_the_reference(ipam: Ipam, host: PretendHost, reference_bin: str, start: int) -> None:
    """On one store, each plugin in turn deletes the other's leases while other pods live."""
    bins = [host.bin_dir, reference_bin]
    keys: dict[str, Any] = {"subnet": "10.1.0.0/29"}
    given = [ipam.add(f"p{number}", bin_dir=bins[(start + number) % 2], **keys)[0] for number in range(5)]
    assert given == [f"10.1.0.{number}/29" for number in range(2, 7)]
    assert (
        ipam.call("ADD", "p9", bin_dir=bins[0], **keys).status
        == 1
        == ipam.call("ADD", "p9", bin_dir=bins[1], **keys).status
    )
    for number in range(4):
        checked = {"cniVersion": "1.0.0", "ips": [{"address": given[number]}]}
        assert (
            ipam.call(
                "CHECK", f"p{number}", bin_dir=bins[(start + number + 1) % 2], top={"prevResult": checked}, **keys
            ).status
            == 0
        )
        ipam.delete(f"p{number}", bin_dir=bins[(start + number + 1) % 2], **keys)
        assert f"10.1.0.{number + 2}" not in ipam.leases()
        again = ipam.add(f"q{number}", bin_dir=bins[(start + number) % 2], **keys)
        assert again == [given[number]]
    assert len(ipam.leases()) == 5
    assert ipam.call("ADD", "q0", bin_dir=bins[0], **keys).status == 1  # the reference's lease or our own, a duplicate
    for number in range(4):
        ipam.delete(f"q{number}", bin_dir=bins[number % 2], **keys)
    ipam.delete("p4", bin_dir=bins[0], **keys)
    assert ipam.leases() == {}


def test_leases_of_old(ipam: Ipam, host: PretendHost) -> None:
    """A lease without interface is freed by any DEL, checked for any interface, and kept by GC with the container."""
    ipam.add("z")
    for number, pod in ((50, "old"), (51, "f" * 64)):
        (host.root / STORE[1:] / f"10.1.0.{number}").write_text(pod)
    previous = {"prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.50/24"}]}}
    assert ipam.call("CHECK", "old", top=previous).status == 0
    ipam.refused(999, "10.1.0.50 has been allocated to old eth0, duplicate", "old")
    top = {"cni.dev/valid-attachments": [{"containerID": "f" * 64, "ifname": "eth0"}]}
    assert ipam.call("GC", version="1.1.0", top=top).status == 0
    assert set(ipam.leases()) == {"10.1.0.50", "10.1.0.51"}
    assert ipam.call("GC", version="1.1.0", top={"cni.dev/valid-attachments": []}).status == 0
    assert set(ipam.leases()) == {"10.1.0.50"}  # an id that somebody may have made up stays
    ipam.delete("old")
    assert ipam.leases() == {}


TWO_SETS: dict[str, Any] = {"ranges": [[{"subnet": V4}], [{"subnet": V6}]]}


@pytest.mark.parametrize("files", [["10.1.0.2"], ["fd00:1::2"], ["10.1.0.2", "fd00:1::2"]])
def test_files_rewritten_in_place_in_the_form_of_old(ipam: Ipam, host: PretendHost, files: list[str]) -> None:
    """No seal detects it: CHECK and a second ADD still know the owner, another interface does not count, DEL frees."""
    previous = {"prevResult": ipam.call("ADD", **TWO_SETS).json}
    ipam.add("b", **TWO_SETS)
    others = {name: text for name, text in ipam.leases().items() if text.startswith("b")}
    for name in files:
        (host.root / STORE[1:] / name).write_text("a")
    assert ipam.call("CHECK", top=previous, **TWO_SETS).status == 0
    ipam.refused(999, "duplicate", "a", **TWO_SETS)
    ipam.delete(ifname="net1", **TWO_SETS)
    assert len(ipam.leases()) == 4
    ipam.delete(**TWO_SETS)
    assert ipam.leases() == others


@pytest.mark.parametrize("first", ["a", "c"])
def test_a_file_rewritten_in_place_as_anothers(ipam: Ipam, host: PretendHost, first: str) -> None:
    """The lease is the new owner's from then on, and only that owner's DEL frees it, in either order."""
    ipam.add("a", **TWO_SETS)
    ipam.add("b", **TWO_SETS)
    (host.root / STORE[1:] / "10.1.0.2").write_text("c\r\neth0")
    previous = {"prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/24"}]}}
    assert ipam.call("CHECK", "c", top=previous, **TWO_SETS).status == 0
    assert ipam.call("CHECK", "a", top=previous, **TWO_SETS).code == 999
    ipam.delete(first, **TWO_SETS)
    kept = {"10.1.0.2"} if first == "a" else {"fd00:1::2"}
    assert set(ipam.leases()) == {"10.1.0.3", "fd00:1::3"} | kept
    ipam.delete("a" if first == "c" else "c", **TWO_SETS)
    assert set(ipam.leases()) == {"10.1.0.3", "fd00:1::3"}


def test_gc_frees_files_that_were_rewritten_in_place(ipam: Ipam, host: PretendHost) -> None:
    for pod in "abc":
        ipam.add(pod)
    (host.root / STORE[1:] / "10.1.0.2").write_text("a")
    (host.root / STORE[1:] / "10.1.0.3").write_text("z\r\neth0")
    top = {"cni.dev/valid-attachments": [{"containerID": "c", "ifname": "eth0"}]}
    assert ipam.call("GC", version="1.1.0", top=top).status == 0
    assert ipam.leases() == {"10.1.0.4": "c\r\neth0"}


def test_leases_of_an_earlier_boot(ipam: Ipam, host: PretendHost) -> None:
    """No namespace survives a boot: this suite's leases are free, files placed by hand stay."""
    ipam.add("a")
    (host.root / STORE[1:] / "10.1.0.9").write_text("router")
    ipam.add("b")
    index = "/var/lib/cni/networks/.pycni/net/boot"
    host.run("ln", "-sfn", "6f1a3c9e-0000-4000-8000-000000000000", index)
    assert ipam.add("c") == ["10.1.0.4/24"]
    assert ipam.leases() == {"10.1.0.4": "c\r\neth0", "10.1.0.9": "router"}


# -- the cost of a call, in counts


def counted(host: PretendHost, command: str) -> dict[str, int]:
    """Return how often one call makes each system call."""
    top = {
        "cniVersion": "1.1.0",
        "name": "net",
        "type": "host-local",
        "ipam": {"type": "host-local", "subnet": "10.0.0.0/8"},
    }
    prefix = ("strace", "-f", "-qq", "-c", "-o", "/run/trace")
    answer = host.cni("host-local", command, top, netns="/run/netns/x", container_id="counted", prefix=prefix)
    assert answer.status == 0, answer
    rows = [line.split() for line in host.run("cat", "/run/trace").stdout.splitlines() if re.match(r"\s*\d", line)]
    counts = {row[-1]: int(row[3]) for row in rows if row[-1] != "total"}
    assert counts["openat"] > 0
    return counts


@pytest.fixture
def stores(host: PretendHost, installed: Any) -> Iterator[dict[int, PretendHost]]:
    """Yield two hosts with stores of 10 and 3,000 leases."""
    hosts = {10: host, 3000: PretendHost(installed)}
    for leases, one in hosts.items():
        ipam = Ipam(one)
        ipam.add("first", subnet="10.0.0.0/8")
        directory = one.root / STORE[1:]
        for number in range(leases):
            (directory / f"10.0.{1 + number // 250}.{number % 250}").write_bytes(f"c{number}\r\neth0".encode())
        ipam.add("second", subnet="10.0.0.0/8")  # makes the index
    yield hosts
    hosts[3000].close()


def test_the_cost_does_not_depend_on_the_number_of_leases(stores: dict[int, PretendHost]) -> None:
    counts = {leases: [counted(host, command) for command in ("ADD", "DEL")] for leases, host in stores.items()}
    few, many = counts[10], counts[3000]
    for few_calls, many_calls in zip(few, many, strict=True):
        names = ("openat", "read", "getdents64", "newfstatat", "readlinkat", "unlinkat")
        assert {name: many_calls.get(name, 0) for name in names} == {name: few_calls.get(name, 0) for name in names}
    assert not {"clone", "clone3", "fork", "vfork", "socket"} & {name for calls in many for name in calls}
