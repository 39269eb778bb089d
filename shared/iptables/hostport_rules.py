"""The rules of an attachment's host ports, as iptables-save shows them; shared/iptables/hostports.py makes them."""

from __future__ import annotations

from shared.cni.ip import Address
from shared.cni.names import CHAIN_NAME_BYTES, is_chain_name
from shared.iptables.variants import HOSTPORTS
from shared.net.owner import digest
from shared.net.reference_names import container_digest, shortened
from shared.nft.hostports import LOCALHOST_6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shared.cni.ip import Prefix
    from shared.net.owner import Owner
    from shared.nft.conditions import Match
    from shared.nft.hostports import HostPort

NAT, DNAT = HOSTPORTS
RAW, SETMARK, MASQ = "raw", "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ"
PREFIX = "CNI-DN-"
ENTRY = '-m comment --comment "dnat name: \\"'
INTERFACE = 'if: \\"'
LOCALNET = '-A PREROUTING -d 127.0.0.0/8 ! -i lo -m comment --comment "CNI portfwd localhost from outside" -j DROP'
PORTS_IN_A_RULE = 15  # XT_MULTI_PORTS in linux/netfilter/xt_multiport.h
MARK_BIT = 13
OPTIONS = {"saddr": "-s", "daddr": "-d", "iifname": "-i"}  # as iptables-save orders them


def chain_of(network: str, container_id: str) -> str:
    """The name of a container's chain."""
    return (PREFIX + container_digest(network, container_id))[:CHAIN_NAME_BYTES]


class Forwarding:
    """All that an attachment has, as lines of iptables-save, by IP version."""

    def __init__(
        self, owner: Owner, ports: Sequence[HostPort], subnets: Mapping[int, Prefix],
        conditions: Mapping[int, Sequence[Match]], *, snat: bool, masq_all: bool, localnet: bool,
        mark_bit: int | None = None, set_mark_chain: str = "",
    ) -> None:  # fmt: skip
        """Takes the pod's addresses with their prefix lengths, and what packets must match, both by IP version."""
        self.owner = owner
        self.ports = ports
        self.flows = {port.flow for port in ports if port.flow}
        self.versions = sorted({port.version for port in ports})
        self.chain = chain_of(owner.network, owner.container_id)
        self.localnet = localnet
        self.external = set_mark_chain if snat else ""
        self._marking = set_mark_chain or SETMARK
        self._bit = f"{1 << (MARK_BIT if mark_bit is None else mark_bit):#x}" if snat and not set_mark_chain else ""
        self._own = f'-m comment --comment "{interface_words(owner.ifname)}"'
        self._masqueraded = {
            version: () if not snat else ("",) if masq_all
            else (_option("-s", subnets[version].network), *(["-s 127.0.0.1/32 "] if version == 4 else []))
            for version in self.versions
        }  # fmt: skip
        self._conditions = conditions

    def entries(self, version: int, *, is_at: bool) -> list[str]:
        """The rules that lead to the chain, of ports of one address or of any."""
        grouped: dict[tuple[str, str], list[int]] = {}
        for port in self.ports:
            if port.version == version and port.is_at == is_at:
                grouped.setdefault((port.host, port.protocol), []).append(port.port)
        names = (shortened(self.owner.network), shortened(self.owner.container_id))
        comment = f'{ENTRY}{names[0]}\\" id: \\"{names[1]}\\" {interface_words(self.owner.ifname)}"'
        return [
            f"-A {DNAT} {self._matching(version, host)}-p {protocol} {comment} -m multiport"
            f" --dports {','.join(map(str, ports[place : place + PORTS_IN_A_RULE]))} -j {self.chain}"
            for (host, protocol), ports in grouped.items()
            for place in range(0, len(ports), PORTS_IN_A_RULE)
        ]

    def _matching(self, version: int, host: str) -> str:
        """The conditions, and the address unless they say more of it."""
        words = {"daddr": f"-d {host}/{128 if version == 6 else 32} "} if host else {}
        for field, operator, value in self._conditions.get(version, ()):
            negation = "! " if operator == "neq" else ""
            if isinstance(value, str):
                words[field] = f"{negation}-i {value} "
            elif field != "daddr" or not host or (Address.parse(host) in value) == bool(negation):
                words[field] = negation + _option(OPTIONS[field], value.network)
        return "".join(words[field] for field in OPTIONS if field in words)

    def inside(self, version: int, *, is_at: bool) -> list[str]:
        """The rules of the chain, in which a port of any address is not one of IPv6 localhost."""
        found = []
        if version == 6 and not is_at and any(port.version == 6 and not port.is_at for port in self.ports):
            # the kernel routes it nowhere: better refused at once than lost
            found.append(f"-A {self.chain} -d {LOCALHOST_6} {self._own} -j RETURN")
        for port in self.ports:
            if port.version != version or port.is_at != is_at:
                continue
            address = f"-d {port.host}/{port.pod.bits} " if port.host else ""
            protocol = port.protocol
            match = f"{address}-p {protocol} -m {protocol} --dport {port.port} {self._own}"
            found += [f"-A {self.chain} {one}{match} -j {self._marking}" for one in self._masqueraded[version]]
            to = f"[{port.pod}]" if version == 6 else str(port.pod)
            found.append(f"-A {self.chain} {match} -j DNAT --to-destination {to}:{port.pod_port}")
        return found

    def shared(self) -> list[str]:
        """The rules that all have in common, and those of this one's mark."""
        found = [f"-A {hook} -m addrtype --dst-type LOCAL -j {DNAT}" for hook in ("PREROUTING", "OUTPUT")]
        if self._bit:
            mark = f"{self._bit}/{self._bit}"
            found += [
                f'-A {SETMARK} -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark {mark}',
                f"-A {MASQ} -m mark --mark {mark} -j MASQUERADE",
                f'-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j {MASQ}',
            ]
        return found

    def tables(self, version: int) -> tuple[str, ...]:
        """The tables that rules of an IP version stand in."""
        return (RAW, NAT) if self.localnet and version == 4 else (NAT,)


def require_usable(conditions: Sequence[Match]) -> None:
    """Raises ValueError for conditions that iptables cannot have in one rule."""
    fields = set()
    for field, operator, value in conditions:
        shown = f"has {'not ' if operator == 'neq' else ''}{OPTIONS[field]} {value}"
        if field in fields:
            raise ValueError(f"{shown}, which is the second {OPTIONS[field]}: iptables takes one")
        fields.add(field)
        if isinstance(value, str) and not is_chain_name(value):
            raise ValueError(f"{shown}, which is no name that iptables takes safely")
        if not isinstance(value, str) and not value.length and operator == "neq":
            raise ValueError(f"{shown}, which nothing fulfils")


def interface_words(ifname: str) -> str:
    """The words of a comment that say for which interface a rule is, as iptables-save shows them."""
    return f'{INTERFACE}{ifname if is_chain_name(ifname) else digest(ifname.encode())[:12]}\\"'


def _option(option: str, prefix: Prefix) -> str:
    """As iptables-save shows it, which leaves out what every packet fulfils."""
    return f"{option} {prefix} " if prefix.length else ""
