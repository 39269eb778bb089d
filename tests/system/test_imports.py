"""The modules that the executables load: start-up is most of a plugin's run time, so each module needs a reason."""

from __future__ import annotations

import re
from typing import Any

import pytest

from shared.executables import PLUGINS
from tests import dhcp_lan
from tests.plugins import PORTS, SAMPLES
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
PROTOCOL = re.compile(r"shared(\.(cni(\.\w+)?|handover|launch|preload|libc|signals|sockets|steps|undo))?")
KERNEL = re.compile(
    r"shared\.net(\.(?!tc_wire|qdisc|shaping|subnets|kinds_wire|sublinks|masters|uppers|placements|host_access|slaac"
    r"|neighbours|neighbour_wire|rule_wire|policy_rules|tables|link_routes)\w+)?"
)
# links in pods that nothing on the host leads to
SUBLINKS = re.compile(r"shared\.(pod\.master|net\.(kinds_wire|sublinks|masters|uppers|placements))")
RULES = re.compile(r"shared\.net\.(rule_wire|policy_rules|tables|link_routes)")
TC = re.compile(r"shared\.net\.(tc_wire|qdisc|shaping)")
# connection tracking and conditions only where there are any
NFT = re.compile(
    r"shared\.nft"
    r"(\.(wire|chains|expressions|former|labels|registry|ruleset|transaction))?"
)
IPAM = re.compile(r"ipam(\.(host_local|static)(\.\w+)?)?")
POD = re.compile(r"shared\.pod(\.(attachment|gateway|inside|port|removal))?")
# Modules that a plugin may load beyond the protocol, KERNEL and its own module.
MORE: dict[str, tuple[re.Pattern[str], ...]] = {
    "bandwidth": (TC,),
    "dummy": (SUBLINKS,),
    "ipvlan": (SUBLINKS,),
    "macvlan": (SUBLINKS, re.compile(r"shared\.net\.(host_access|neighbours|neighbour_wire)")),
    "vlan": (SUBLINKS,),
    "firewall": (
        NFT,
        re.compile(r"shared\.admission(\.(backends|claims|drops|iptables|nftables|isolation|firewalld|restoration))?"),
        re.compile(r"shared\.(iptables|dbus)(\.(bus|variants))?"),
    ),
    "sbr": (RULES,),
    "tap": (SUBLINKS,),
    "vrf": (RULES, re.compile(r"shared\.net\.kinds_wire")),
    "portmap": (NFT, re.compile(r"shared\.hostports(\.\w+)?|shared\.iptables(\.variants)?")),
}
# Plain configurations of plugins with rare parts in their samples.
PLAIN: dict[str, dict[str, Any]] = {
    "firewall": {"type": "firewall"},
    "portmap": {"type": "portmap", "runtimeConfig": {"portMappings": PORTS[:1]}},
}


def allowed(plugin: str) -> tuple[re.Pattern[str], ...]:
    """Return the modules that a plugin may load. A plugin with interfaces also calls IPAM and uses shared/pod."""
    if plugin == "static":
        return PROTOCOL, IPAM
    if plugin == "host-local":
        return PROTOCOL, IPAM, re.compile(r"shared\.net(\.liveness)?")
    if plugin == "dhcp":
        return PROTOCOL, KERNEL, re.compile(r"ipam(\.dhcp)?|shared\.dhcp(\.\w+)?")
    own = re.compile(rf"plugins(\.{plugin.replace('-', '_')})?")
    of_main = (IPAM, POD) if "ipam" in SAMPLES[plugin].keys else ()
    return PROTOCOL, KERNEL, own, *of_main, *MORE.get(plugin, ())


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
    "shared.cni.record": ["ADD"],  # the node's first call makes a directory
    "shared.net.announce": ["ADD"],
    "shared.net.renamed": [],
    "shared.pod.port": ["STATUS", "ADD", "CHECK"],
    "ipam.host_local.resolv": [],
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
before, leave, process = set(sys.modules), posix._exit, posix.getpid()
def tell(status):
    if posix.getpid() == process:
        posix.write(2, "\\n".join(["MODULES", *sorted(set(sys.modules) - before)]).encode())
    leave(status)
posix._exit = tell
del sys.argv[0]
exec(compile(open(sys.argv[0], "rb").read(), sys.argv[0], "exec"))
"""

CONFIG: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net"}
# Each plugin by each Python; those that may have to run on the slow stock kernel by one.
PLAYED = [
    pytest.param(plugin, version, marks=[getattr(pytest.mark, needs)] if needs else [])
    for plugin in PLUGINS
    for needs in [SAMPLES[plugin].needs]
    for version in (found() if not needs else list(found())[:1])
]


def observed_by(version: str) -> tuple[str, ...]:
    # -B: this Python's compiled files have no place in an installation for another one.
    return (found()[version], "-I", "-S", "-B", "-c", OBSERVER)


def loaded(answer: Answer) -> set[str]:
    assert answer.status == 0, f"{answer.stdout}{answer.stderr}"
    return set(answer.stderr.partition("MODULES\n")[2].split())


def life(host: PretendHost, plugin: str, version: str, **more: Any) -> dict[str, Answer]:
    """Every verb once, in the order of an attachment's life, with the answer that each got."""
    netns = host.netns("pod")
    sample = SAMPLES[plugin]
    host.run("sh", "-c", sample.links, check=False)  # a second life finds them
    if sample.is_served:
        dhcp_lan.prepare(host, "pod")
    own: dict[str, Any] = {}
    for before in sample.before:
        own = {"prevResult": host.cni(before["type"], "ADD", CONFIG | before | own, netns=netns).json}

    def call(verb: str, **keys: Any) -> Answer:
        config = CONFIG | PLAIN.get(plugin, sample.keys) | own | more | keys
        return host.cni(plugin, verb, config, netns=netns, prefix=observed_by(version))

    answers = {verb: call(verb) for verb in ("VERSION", "STATUS", "ADD")}
    result = answers["ADD"].json
    answers["CHECK"] = call("CHECK", prevResult=result)
    answers["GC"] = call("GC", **{"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]})
    answers["DEL"] = call("DEL", prevResult=result)
    for before in reversed(sample.before):
        assert host.cni(before["type"], "DEL", CONFIG | before, netns=netns).status == 0
    return answers


@pytest.mark.parametrize(("plugin", "version"), PLAYED)
def test_executable_loads_only_what_it_wants(host: PretendHost, plugin: str, version: str) -> None:
    for verb, answer in life(host, plugin, version).items():
        modules = loaded(answer)
        assert "shared.cni.plugin" in modules
        beyond = {name for name in modules - STANDARD if not any(one.fullmatch(name) for one in allowed(plugin))}
        assert beyond == set(), f"{plugin} {verb} on Python {version} loads {', '.join(sorted(beyond))}"


@pytest.mark.parametrize(
    ("plugin", "version"), [(name, version) for name in PLUGINS if not SAMPLES[name].needs for version in found()]
)
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
        all_of_it = (*allowed("bridge"), NFT, either, re.compile(rf"shared\.{mechanism}"))
        assert {name for name in modules - STANDARD if not any(one.fullmatch(name) for one in all_of_it)} == set()
        others = {f"shared.{one}" for one, _ in NFT_KEYS.values()} - {f"shared.{mechanism}"}
        assert (f"shared.{mechanism}" in modules) == (verb not in without) and not others & modules


@pytest.mark.parametrize("version", found())
def test_calls_of_iptables_need_no_more(host: PretendHost, version: str) -> None:
    """An attribute of the bridge is all of it."""
    for answer in life(host, "bridge", version, bridgeNfCallIptables=True).values():
        assert not any(NFT.fullmatch(name) for name in loaded(answer))
