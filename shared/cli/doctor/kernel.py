"""Check the kernel: its features, its sysctls, its packet filters."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pyroute2.nftables.main import NFTables

from shared.cli.doctor import cluster, switches
from shared.cli.doctor.findings import Finding, error, note, warning
from shared.cli.doctor.network import Network
from shared.cli.doctor.node import Node
from shared.net import sysctl

NFPROTO_UNSPEC, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6 = 0, 1, 2, 10  # linux/netfilter.h
NF_INET_FORWARD, NF_DROP = 2, 0  # linux/netfilter.h
PROGRAMS = {NFPROTO_IPV4: "iptables", NFPROTO_IPV6: "ip6tables"}
CONTAINER_CHAIN = re.compile(r"CNI-(DN-|SN-)?[0-9a-f]{20,24}")
CHAIN_LENGTH = 28  # the reference cuts its chain names at this length
NFTABLES = "nftables"  # the name of the backend in configurations
ISOLATED = "isolated"  # the strictest ingressPolicy


def _is_type(*types: str) -> Callable[[Network], bool]:
    return lambda network: any(kind in types for kind in network.types)


def _has_subnets(network: Network) -> bool:
    return any(network.plugin("bandwidth").get(key) for key in ("shapedSubnets", "unshapedSubnets"))


def _redirects(network: Network) -> bool:
    return _is_type("bandwidth")(network) or bool(network.plugin("tap").get("redirect"))


def _has(key: str) -> Callable[[Network], bool]:
    return lambda network: bool(network.bridge and getattr(network.bridge, key))


def _backends(network: Network) -> set[str]:
    """Return the packet filter backends that the network's plugins use, as far as its configuration tells."""
    found = {_masquerading(network), _port_mapping(network), str(network.plugin("firewall").get("backend") or "")}
    return {*found, NFTABLES} - {""} if _has_policy(network) else found - {""}


def _masquerading(network: Network) -> str:
    """Return the backend that masquerades the network's pods, empty if none does."""
    if network.bridge and network.bridge.ipMasq:
        return network.bridge.ipMasqBackend or NFTABLES
    ptp = network.plugin("ptp")
    return str(ptp.get("ipMasqBackend") or NFTABLES) if ptp.get("ipMasq") else ""


def _port_mapping(network: Network) -> str:
    """Return the backend of portmap, empty if the network does not have portmap."""
    return str(network.plugin("portmap").get("backend") or NFTABLES) if "portmap" in network.types else ""


def _has_policy(network: Network) -> bool:
    return network.plugin("firewall").get("ingressPolicy") in ("same-bridge", ISOLATED)


def _is_isolated(network: Network) -> bool:
    return network.plugin("firewall").get("ingressPolicy") == ISOLATED


def _needs_nftables(network: Network) -> bool:
    return _needs_inet_tables(network) or _needs_bridge_tables(network)


def _needs_inet_tables(network: Network) -> bool:
    return NFTABLES in _backends(network)


def _needs_nat(network: Network) -> bool:
    return NFTABLES in (_masquerading(network), _port_mapping(network))


def _needs_fib(network: Network) -> bool:
    has_exempt = _has("nonMasqueradeCIDRs")(network) or bool(network.plugin("ptp").get("nonMasqueradeCIDRs"))
    is_exempting = has_exempt and _masquerading(network) == NFTABLES
    return is_exempting or _port_mapping(network) == NFTABLES


def _needs_labels(network: Network) -> bool:
    return _port_mapping(network) == NFTABLES or _is_isolated(network)


def _needs_conntrack(network: Network) -> bool:
    return _port_mapping(network) == NFTABLES or _has_policy(network)


def _needs_packet_sockets(network: Network) -> bool:
    """Return True if IPAM leases addresses, or looks for other hosts that have them."""
    return "dhcp" in network.types or any(section.get("probeSeconds") for _, section in network.ipam)


def _needs_bridge_tables(network: Network) -> bool:
    return _has("macspoofchk")(network) or _is_isolated(network)


@dataclass(frozen=True)
class Feature:
    """A part that a kernel may lack: its option, its module if it can be one, and the networks that need it."""

    name: str
    option: str
    module: str
    needed: Callable[[Network], bool]


FEATURES = (
    Feature("veth pairs", "CONFIG_VETH", "veth", _is_type("bridge", "ptp")),
    Feature("bridges", "CONFIG_BRIDGE", "bridge", _is_type("bridge")),
    Feature("bridges that filter VLANs", "CONFIG_BRIDGE_VLAN_FILTERING", "", lambda network: network.has_vlans),
    Feature("nf_tables", "CONFIG_NF_TABLES", "nf_tables", _needs_nftables),
    Feature("inet tables in nf_tables", "CONFIG_NF_TABLES_INET", "", _needs_inet_tables),
    Feature("bridge tables in nf_tables", "CONFIG_NF_TABLES_BRIDGE", "", _needs_bridge_tables),
    Feature("NAT in nf_tables", "CONFIG_NFT_NAT", "nft_nat", _needs_nat),
    Feature("masquerading in nf_tables", "CONFIG_NFT_MASQ", "nft_masq", _needs_nat),
    Feature("address types in nf_tables", "CONFIG_NFT_FIB_INET", "nft_fib_inet", _needs_fib),
    Feature("connection states in nf_tables", "CONFIG_NFT_CT", "nft_ct", _needs_conntrack),
    Feature("conntrack labels", "CONFIG_NF_CONNTRACK_LABELS", "", _needs_labels),
    Feature("br_netfilter", "CONFIG_BRIDGE_NETFILTER", "br_netfilter", _has("bridgeNfCallIptables")),
    Feature("IFB links", "CONFIG_IFB", "ifb", _is_type("bandwidth")),
    Feature("the TBF queue", "CONFIG_NET_SCH_TBF", "sch_tbf", _is_type("bandwidth")),
    Feature("the HTB queue", "CONFIG_NET_SCH_HTB", "sch_htb", _has_subnets),
    Feature("the ingress queue", "CONFIG_NET_SCH_INGRESS", "sch_ingress", _redirects),
    Feature("the u32 classifier", "CONFIG_NET_CLS_U32", "cls_u32", _redirects),
    Feature("the redirecting action", "CONFIG_NET_ACT_MIRRED", "act_mirred", _redirects),
    Feature("macvlan links", "CONFIG_MACVLAN", "macvlan", _is_type("macvlan")),
    Feature("ipvlan links", "CONFIG_IPVLAN", "ipvlan", _is_type("ipvlan")),
    Feature("VLAN links", "CONFIG_VLAN_8021Q", "8021q", _is_type("vlan")),
    Feature("dummy links", "CONFIG_DUMMY", "dummy", _is_type("dummy")),
    Feature("tap links", "CONFIG_TUN", "tun", _is_type("tap")),
    Feature("packet sockets", "CONFIG_PACKET", "af_packet", _needs_packet_sockets),
    Feature("routing rules", "CONFIG_IP_MULTIPLE_TABLES", "", _is_type("sbr")),
    Feature("IPv6 routing rules", "CONFIG_IPV6_MULTIPLE_TABLES", "", _is_type("sbr")),
    Feature("VRFs", "CONFIG_NET_VRF", "vrf", _is_type("vrf")),
    Feature("VXLAN links", "CONFIG_VXLAN", "vxlan", lambda network: cluster.needs(network.name, "tunnels", "always")),
    Feature(
        "WireGuard links",
        "CONFIG_WIREGUARD",
        "wireguard",
        lambda network: cluster.needs(network.name, "encryption", "wireguard"),
    ),
)


def features(node: Node) -> Iterator[Finding]:
    """Report features that a network needs and the kernel lacks; note those that no network needs."""
    kernel = f"kernel {os.uname().release}"
    modules = Path("/lib/modules", os.uname().release)
    missing = [feature for feature in FEATURES if has_feature(feature, _options(), modules) is False]
    unneeded = []
    for feature in missing:
        users = [network.path for network in node.networks if feature.needed(network)]
        if not users:
            unneeded.append(feature)
            continue
        todo = f"boot a kernel with {feature.option}"
        if feature.module:
            todo = f"apt-get install linux-modules-extra-$(uname -r) && modprobe {feature.module}  # or {todo}"
        yield error(kernel, f"lacks {feature.name} ({feature.option}), but {', '.join(users)} needs this", todo)
    if unneeded:
        names, options = (", ".join(getattr(one, key) for one in unneeded) for key in ("name", "option"))
        yield note(kernel, f"lacks {names}; no configuration needs this", f"nothing, or boot a kernel with {options}")


def lacks_something(network: Network) -> bool:
    """Return True if the kernel lacks a feature that a network needs."""
    modules = Path("/lib/modules", os.uname().release)
    needed = [feature for feature in FEATURES if feature.needed(network)]
    return any(has_feature(feature, _options(), modules) is False for feature in needed)


def has_feature(feature: Feature, options: Mapping[str, str], modules: Path) -> bool | None:
    """Return True if the kernel has a feature, None if neither its options nor the files of its modules tell."""
    value = options.get(feature.option, "n") if options else "m" if feature.module else "y"
    if value != "m":
        return value == "y"
    if Path("/sys/module", feature.module).is_dir():
        return True
    lists = [modules / "modules.dep", modules / "modules.builtin"]
    if not all(path.is_file() for path in lists):
        return None
    return any(re.search(rf"/{feature.module}\.ko", path.read_text()) for path in lists)


@cache
def _options() -> dict[str, str]:
    """Return the kernel's build options, empty if no file has them."""
    release = os.uname().release
    text = ""
    for path in (Path("/proc/config.gz"), Path(f"/boot/config-{release}"), Path(f"/lib/modules/{release}/config")):
        if not text:
            with suppress(OSError):
                content = path.read_bytes()
                text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return dict(re.findall(r"^(CONFIG_\w+)=(.+)$", text, re.MULTILINE))


def backends(node: Node) -> Iterator[Finding]:
    """Report nf_tables that does not answer, missing iptables programs, and firewalld."""
    try:
        _nft_chains()
    except Exception as reason:  # noqa: BLE001 - pyroute2 raises many kinds of errors
        users = [network.path for network in node.networks if _needs_nftables(network)]
        finding = error if users else note
        yield finding("nf_tables", f"does not answer: {reason}", "modprobe nf_tables")
    for network in node.networks:
        for version in network.versions or {4}:
            program = "iptables" if version == 4 else "ip6tables"
            if "iptables" in _backends(network) and shutil.which(program) is None:
                yield error(
                    network.path, f"uses backend iptables, but {program} is not in PATH", "apt-get install iptables"
                )
    bridges = [network for network in node.networks if network.bridge and not _is_type("firewall")(network)]
    if bridges and _is_running("firewalld"):
        name = bridges[0].bridge_link
        yield note(
            "firewalld", f"is running, and drops the traffic of {name} unless this link is in a zone that accepts it",
            f"firewall-cmd --permanent --zone=trusted --add-interface={name} && firewall-cmd --reload",
        )  # fmt: skip


def _is_running(name: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            if path.read_text().strip() == name:
                return True
    return False


def forwarding(node: Node) -> Iterator[Finding]:
    """Report forwarding that is off although the host is a gateway of pods.

    Before the first pod it may be off: ADD switches it on.
    """
    for network in node.networks:
        wires = node.wires_of(network) if network.is_gateway else []
        for version in sorted({held.ip.version for wire in wires for held in wire.inside.addresses}):
            switch = sysctl.FORWARDING[version]
            own = f"ipv{version}/conf/{network.gateway_link}/forwarding"
            for path in (switch, own):
                if sysctl.read(path) == "0":
                    before = switches.keep_routes() if path == sysctl.FORWARDING[6] else []
                    yield error(
                        f"net/{path}",
                        f"is 0, but must be 1: IPv{version} of network {network.name} works only between pods",
                        " && ".join([*before, f"sysctl -w net/{path}=1"]),
                    )  # fmt: skip
                    break


def bridge_nf(node: Node) -> Iterator[Finding]:
    """Report that bridged packets traverse iptables; warn if its FORWARD chain drops by default."""
    if not any(network.bridge for network in node.networks):
        return
    for family, program in PROGRAMS.items():
        path = f"bridge/bridge-nf-call-{program}"
        if sysctl.read(path) != "1":
            continue
        dropping = _dropping_chains(family, program)
        if dropping:
            yield warning(
                f"net/{path}", f"is 1: {dropping[0]} drops packets between pods of a bridge that no rule accepts",
                f"sysctl -w net/{path}=0  # or, if kube-proxy needs it, accept the pods in that chain",
            )  # fmt: skip
        else:
            yield note(
                f"net/{path}", f"is 1: packets between pods of one bridge also traverse the FORWARD chain of {program}",
                f"nothing if kube-proxy needs it; otherwise sysctl -w net/{path}=0",
            )  # fmt: skip


def _dropping_chains(family: int, program: str) -> list[str]:
    """Return the base chains of FORWARD that drop by default."""
    found = []
    for where, chain in _nft_chains():
        hook = chain.get_nested("NFTA_CHAIN_HOOK", "NFTA_HOOK_HOOKNUM")
        is_drop = chain.get_attr("NFTA_CHAIN_POLICY") == NF_DROP
        if where in (family, NFPROTO_INET) and hook == NF_INET_FORWARD and is_drop:
            found.append(f"nf_tables' {chain.get_attr('NFTA_CHAIN_TABLE')} {chain.get_attr('NFTA_CHAIN_NAME')}")
    if ":FORWARD DROP" in _legacy(program, "filter"):
        found.append(f"{program}-legacy's FORWARD")
    return found


def ipv6(node: Node) -> Iterator[Finding]:
    """Report IPv6 that is off although a configuration has IPv6 ranges."""
    for network in node.networks:
        if 6 not in network.versions:
            continue
        if sysctl.read("ipv6/conf/all/disable_ipv6") is None:
            yield error(network.path, "has IPv6 ranges, but this kernel has no IPv6", "boot with ipv6.disable=0")
            continue
        link = network.gateway_link
        new = link if node.link(link) else "default"
        for name in dict.fromkeys(("all", new if link else "all")):
            if sysctl.read(f"ipv6/conf/{name}/disable_ipv6") == "1":
                yield error(
                    f"net/ipv6/conf/{name}/disable_ipv6", f"is 1, but {network.path} has IPv6 ranges",
                    f"sysctl -w net/ipv6/conf/{name}/disable_ipv6=0",
                )  # fmt: skip


def leftover_chains(node: Node) -> Iterator[Finding]:
    """Report chains of the reference's plugins that belong to a container that is gone."""
    known = {mark[:2] for mark in (*node.alive, *(wire.mark for wire in node.wires if wire.mark))}
    digests = [hashlib.sha512((network + container).encode()).hexdigest() for network, container in known]
    live = {f"CNI-{kind}{digest}"[:CHAIN_LENGTH] for digest in digests for kind in ("", "DN-", "SN-")}
    found = []
    for family, chain in _nft_chains():
        if family in PROGRAMS and chain.get_attr("NFTA_CHAIN_TABLE") == "nat":
            tool = PROGRAMS[family]
            found.append((f"{tool}-nft" if shutil.which(f"{tool}-nft") else tool, chain.get_attr("NFTA_CHAIN_NAME")))
    for tool in PROGRAMS.values():
        found += [(f"{tool}-legacy", name) for name in re.findall(r"^:(\S+)", _legacy(tool, "nat"), re.MULTILINE)]
    for tool, name in found:
        if CONTAINER_CHAIN.fullmatch(name) and name not in live:
            rules = f"{tool} -t nat -S | sed -n 's/^-A \\(.* -j {name}\\)$/{tool} -t nat -D \\1/p' | sh"
            yield warning(
                f"{tool} nat {name}", "belongs to a container that is gone",
                f"{rules}; {tool} -t nat -F {name} && {tool} -t nat -X {name}",
            )  # fmt: skip


def _nft_chains() -> list[tuple[int, Any]]:
    """Return nf_tables' chains, each with its family."""
    with NFTables(nfgen_family=NFPROTO_UNSPEC) as nft:  # of all families
        return [(chain["nfgen_family"], chain) for chain in nft.get_chains()]


def _legacy(program: str, table: str) -> str:
    """Return a table of iptables-legacy, empty if it is not in use: reading it would load it."""
    names = Path("/proc/net", "ip_tables_names" if program == "iptables" else "ip6_tables_names")
    save = shutil.which(f"{program}-legacy-save")
    try:
        if save is None or table not in names.read_text().split():
            return ""
    except OSError:
        return ""
    return subprocess.run([save, "-t", table], capture_output=True, text=True, check=True, timeout=10).stdout
