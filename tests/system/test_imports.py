"""What the executables load: start-up is most of a plugin's run time, so every module has to be wanted."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.pretend import Answer, PretendHost
from tests.pythons import found

# Beyond what the interpreter loads by itself with -I -S. All are built in or small and written in C.
STANDARD = {
    "__future__",  # annotations without their cost
    "_blake2",  # host link names; hashlib costs 3 ms more
    "_ctypes",  # setns, umount and prctl below Python 3.12; ctypes costs 3 ms
    "_sha2",  # names of the reference, from Python 3.12; below it is
    "_json",  # scanner and encoder; json costs 8 ms
    "_sha512",  # the reference's names of iptables chains; hashlib costs 3 ms
    "_socket",  # netlink and inet_pton; socket costs 7 ms
    "_struct",
    "errno",
    "fcntl",  # flock
    "gc",  # to switch it off
    "struct",  # netlink headers; 20 lines around _struct
}
PROTOCOL = re.compile(r"shared(\.(cni(\.\w+)?|launch|preload|libc|signals|sockets|steps|undo))?")
KERNEL = re.compile(r"shared\.net(\.(?!tc_wire|qdisc|shaping|subnets)\w+)?")
TC = re.compile(r"shared\.net\.(tc_wire|qdisc|shaping)")
# connection tracking and conditions only where there are any
NFT = re.compile(
    r"shared\.nft"
    r"(\.(wire|expressions|former|registry|ruleset|transaction))?"
)
IPAM = re.compile(r"ipam(\.host_local(\.\w+)?)?")
POD = re.compile(r"shared\.pod(\.(attachment|inside))?")
# What an executable may load of this project beyond the protocol.
OWN = {
    "loopback": (KERNEL, re.compile(r"plugins(\.loopback)?")),
    "bandwidth": (KERNEL, TC, re.compile(r"plugins(\.bandwidth)?")),
    "bridge": (KERNEL, POD, IPAM, re.compile(r"plugins(\.bridge)?")),
    "firewall": (
        KERNEL,
        NFT,
        re.compile(
            r"plugins(\.firewall)?|shared\.admission(\.(backends|claims|iptables|nftables|isolation|firewalld))?"
            r"|shared\.(iptables|dbus)(\.(bus|variants))?"
        ),
    ),
    "host-local": (IPAM, re.compile(r"shared\.net(\.liveness)?")),
    "portmap": (
        KERNEL,
        NFT,
        re.compile(r"plugins(\.portmap)?|shared\.hostports(\.\w+)?|shared\.iptables(\.variants)?"),
    ),
    "tuning": (KERNEL, re.compile(r"plugins(\.tuning)?")),
}
# The keys of plugins that come after another one.
CHAINED: dict[str, dict[str, Any]] = {
    "portmap": {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}},
    "bandwidth": {"ingressRate": 10**6, "ingressBurst": 10**6, "egressRate": 10**6, "egressBurst": 10**6},
    "firewall": {},
    "tuning": {"mtu": 1400, "promisc": True, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}},
}
# Parts that a plain attachment has no use for, and the verbs of its life that need them all the same.
RARE: dict[str, list[str]] = {
    "shared.net.verify": ["CHECK"],
    "shared.net.vlans": [],
    "shared.net.uplinks": [],
    "shared.net.peers": [],
    "shared.net.readiness": ["STATUS"],
    "shared.cni.execute": [],
    "shared.cni.log": [],
    "shared.cni.log_config": [],
}
# The keys that load a part of nf_tables, which, and the verbs that do without it.
NFT_KEYS = {
    "ipMasq": ("masquerade.nftables", {"VERSION"}),
    "macspoofchk": ("frames.spoofcheck", {"VERSION"}),
    "promiscMode": ("frames.dedup", {"VERSION", "STATUS"}),
}
# Executes a launcher and tells, at the only exit, what is in sys.modules that was not at the start.
OBSERVER = """
import posix, sys
before, leave = set(sys.modules), posix._exit
def tell(status):
    posix.write(2, "\\n".join(["MODULES", *sorted(set(sys.modules) - before)]).encode())
    leave(status)
posix._exit = tell
del sys.argv[0]
exec(compile(open(sys.argv[0]).read(), sys.argv[0], "exec"))
"""

CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "net",
    "isGateway": True,
    "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.10.0.0/24"}], [{"subnet": "fd00:10::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    },
}


def observed_by(version: str) -> tuple[str, ...]:
    # -B: this Python's compiled files have no place in an installation for another one.
    return (found()[version], "-I", "-S", "-B", "-c", OBSERVER)


def loaded(answer: Answer) -> set[str]:
    assert answer.status == 0, f"{answer.stdout}{answer.stderr}"
    return set(answer.stderr.partition("MODULES\n")[2].split())


def life(host: PretendHost, plugin: str, version: str, **more: Any) -> dict[str, Answer]:
    """Every verb once, in the order of an attachment's life, with the answer that each got."""
    netns = host.netns("pod")
    own = {"type": plugin}
    if plugin in CHAINED:
        own |= {"prevResult": host.cni("bridge", "ADD", CONFIG, netns=netns).json, **CHAINED[plugin]}

    def call(verb: str, **keys: Any) -> Answer:
        config = CONFIG | own | more | keys
        return host.cni(plugin, verb, config, netns=netns, prefix=observed_by(version))

    answers = {verb: call(verb) for verb in ("VERSION", "STATUS", "ADD")}
    result = answers["ADD"].json
    answers["CHECK"] = call("CHECK", prevResult=result)
    answers["GC"] = call("GC", **{"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]})
    answers["DEL"] = call("DEL", prevResult=result)
    if plugin in CHAINED:
        assert host.cni("bridge", "DEL", CONFIG, netns=netns).status == 0
    return answers


@pytest.mark.parametrize("version", found())
@pytest.mark.parametrize("plugin", OWN)
def test_executable_loads_only_what_it_wants(host: PretendHost, plugin: str, version: str) -> None:
    for verb, answer in life(host, plugin, version).items():
        modules = loaded(answer)
        assert "shared.cni.plugin" in modules
        allowed = (PROTOCOL, *OWN[plugin])
        beyond = {name for name in modules - STANDARD if not any(pattern.fullmatch(name) for pattern in allowed)}
        assert beyond == set(), f"{plugin} {verb} on Python {version} loads {', '.join(sorted(beyond))}"


@pytest.mark.parametrize("version", found())
@pytest.mark.parametrize("plugin", OWN)
def test_the_log_is_one_module_more(host: PretendHost, plugin: str, version: str) -> None:
    without = life(host, plugin, version)
    host.drop_netns("pod")
    (host.root / "etc/cni/pycni.json").write_text('{"log": "/run/pycni.log"}')
    for verb, answer in life(host, plugin, version).items():
        more = loaded(answer) - loaded(without[verb])
        # of what the log needs itself, host-local does not load these for every verb
        assert more - {"fcntl", "errno"} == {"shared.cni.log"}, f"{plugin} {verb} on Python {version}"
    lines = (host.root / "run/pycni.log").read_text().splitlines()
    assert len([line for line in lines if f'"plugin": "{plugin}"' in line]) == len(without)


@pytest.mark.parametrize("version", found())
def test_rare_parts_are_loaded_by_the_call_that_needs_them(host: PretendHost, version: str) -> None:
    modules = {verb: loaded(answer) for verb, answer in life(host, "bridge", version).items()}
    assert {part: [verb for verb in modules if part in modules[verb]] for part in RARE} == RARE


@pytest.mark.parametrize("version", found())
@pytest.mark.parametrize("key", NFT_KEYS)
def test_nf_tables_are_for_who_wants_them(host: PretendHost, key: str, version: str) -> None:
    """Without its key nothing of it is loaded, as the tests above say; with it, its mechanism and no other."""
    for verb, answer in life(host, "bridge", version, **{key: True}).items():
        modules = loaded(answer)
        # once a node has tables, all looks for what an attachment or its address has from former times, by the
        # reference, too, and from before a key was changed
        either = re.compile(
            r"shared\.pod(\.filters)?|shared\.(masquerade|frames|hostports|admission)|shared\.iptables(\.variants)?"
        )
        mechanism, without = NFT_KEYS[key]
        allowed = (PROTOCOL, *OWN["bridge"], NFT, either, re.compile(rf"shared\.{mechanism}"))
        assert {name for name in modules - STANDARD if not any(one.fullmatch(name) for one in allowed)} == set()
        others = {f"shared.{one}" for one, _ in NFT_KEYS.values()} - {f"shared.{mechanism}"}
        assert (f"shared.{mechanism}" in modules) == (verb not in without) and not others & modules


@pytest.mark.parametrize("version", found())
def test_calls_of_iptables_need_no_more(host: PretendHost, version: str) -> None:
    """An attribute of the bridge is all of it."""
    for answer in life(host, "bridge", version, bridgeNfCallIptables=True).values():
        assert not any(NFT.fullmatch(name) for name in loaded(answer))
