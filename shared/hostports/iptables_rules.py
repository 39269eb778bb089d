"""The rules of an attachment's host ports, as iptables-save shows them; shared/hostports/iptables.py makes them."""

from __future__ import annotations

from shared.cni.ip import Address
from shared.cni.names import CHAIN_NAME_BYTES, is_chain_name
from shared.hostports.nftables import LOCALHOST_6
from shared.iptables.variants import HOSTPORTS
from shared.net.owner import digest
from shared.net.reference_names import container_digest, shortened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shared.cni.ip import Prefix
    from shared.hostports.conditions import Match, Value
    from shared.hostports.nftables import HostPort
    from shared.net.owner import Owner

NAT, DNAT = HOSTPORTS
RAW, SETMARK, MASQ = "raw", "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ"
PREFIX = "CNI-DN-"
TRIAL = "CNI-DN-trial"  # digits of a container's are hexadecimal
ENTRY = '-m comment --comment "dnat name: \\"'
INTERFACE = 'if: \\"'
LOCALNET = [
    f'-A PREROUTING {option} 127.0.0.0/8 ! -i lo -m comment --comment "CNI portfwd localhost from outside" -j DROP'
    for option in ("-d", "-s")
]
PORTS_IN_A_RULE = 15  # XT_MULTI_PORTS in linux/netfilter/xt_multiport.h
MARK_BIT = 13
CONDITIONS = "conditions: "  # and a digest of those that iptables-save prints in words of its own
WILDCARD = "*"  # of a link's name in conditions
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
        self.conditions = conditions

    def entries(self, version: int, *, is_at: bool) -> list[str]:
        """The rules that lead to the chain, of ports of one address or of any."""
        grouped: dict[tuple[str, str], list[int]] = {}
        for port in self.ports:
            if port.version == version and port.is_at == is_at:
                grouped.setdefault((port.host, port.protocol), []).append(port.port)
        names = (shortened(self.owner.network), shortened(self.owner.container_id))
        comment = f'{ENTRY}{names[0]}\\" id: \\"{names[1]}\\" {interface_words(self.owner.ifname)}"'
        others = self._others(version)
        return [
            f"-A {DNAT} {matching}-p {protocol} {comment}{others} -m multiport"
            f" --dports {','.join(map(str, ports[place : place + PORTS_IN_A_RULE]))} -j {self.chain}"
            for (host, protocol), ports in grouped.items()
            for matching in self._matching(version, host)
            for place in range(0, len(ports), PORTS_IN_A_RULE)
        ]

    def _matching(self, version: int, host: str) -> list[str]:
        """Return the conditions, in as many alternatives as they have, and the address unless they say more of it."""
        choices = {"daddr": [f"-d {host}/{128 if version == 6 else 32} "]} if host else {}
        for field, operator, values in self.conditions.get(version, ()):
            is_negated = operator == "neq"
            if field not in OPTIONS or (is_negated and len(values) > 1):
                continue
            is_met = field == "daddr" and host and any(Address.parse(host) in one for one in values) != is_negated
            if not is_met:
                choices[field] = [("! " if is_negated else "") + _option(OPTIONS[field], one) for one in values]
        found = [""]
        for field in OPTIONS:
            found = [before + one for before in found for one in choices.get(field, [""])]
        return found

    def _others(self, version: int) -> str:
        """Return the matches that iptables alone knows, and a comment by which CHECK finds their rule.

        iptables-save prints the matches in words of its own.
        """
        line = _words(self.conditions.get(version, ()))
        if not line:
            return ""
        return f' {line} -m comment --comment "{CONDITIONS}{digest(line.encode())[:12]}"'

    def inside(self, version: int, *, is_at: bool) -> list[str]:
        """The rules of the chain, in which a port of any address is not one of IPv6 localhost."""
        found = []
        if is_at == any(port.version == version and port.is_at for port in self.ports):  # first of all
            found += [
                f"-A {self.chain} {_option(OPTIONS[field], one)}{self._own} -j RETURN"
                for field, operator, values in self.conditions.get(version, ())
                if field in OPTIONS and operator == "neq" and len(values) > 1
                for one in values
            ]
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
    for field, operator, values in conditions:
        if field not in OPTIONS:
            continue
        negation = "not " if operator == "neq" else ""
        shown = f"has {negation}{OPTIONS[field]} {','.join(map(str, values))}"
        if field in fields:
            raise ValueError(f"{shown}, which is the second {OPTIONS[field]}: iptables takes one")
        fields.add(field)
        for value in values:
            if isinstance(value, str) and value != WILDCARD and not is_chain_name(value.removesuffix(WILDCARD)):
                raise ValueError(f"{shown}, which is no name that iptables takes safely")
            if negation and not _option(OPTIONS[field], value):
                raise ValueError(f"{shown}, which nothing fulfils")


def trial_of(conditions: Sequence[Match]) -> list[str]:
    """Return the commands by which iptables-restore shows whether it takes conditions; none for those known here."""
    line = _words(conditions)
    return [f"-N {TRIAL}", f"-A {TRIAL} -p tcp {line} -j RETURN"] if line else []


def _words(conditions: Sequence[Match]) -> str:
    """Return the matches that iptables alone knows, as part of a line."""
    return " ".join(str(word) for field, _, words in conditions if field not in OPTIONS for word in words)


def is_there(rule: str, lines: Sequence[str]) -> bool:
    """Return True if one of iptables-save's lines is the rule.

    iptables-save prints further matches in its own words: such a rule is known by its beginning, comments and end.
    """
    _, has_others, tail = rule.partition(f' -m comment --comment "{CONDITIONS}')
    if not has_others:
        return rule in lines
    head, _, rest = rule.partition("-p ")
    protocol, _, words = rest.partition(" ")
    comment = words[: words.index('\\""')]
    return any(
        line.startswith(head) and f"-p {protocol} " in line and comment in line and line.endswith(has_others + tail)
        for line in lines
    )


def interface_words(ifname: str) -> str:
    """The words of a comment that say for which interface a rule is, as iptables-save shows them."""
    return f'{INTERFACE}{ifname if is_chain_name(ifname) else digest(ifname.encode())[:12]}\\"'


def _option(option: str, value: Value) -> str:
    """As iptables-save shows it, which leaves out what every packet fulfils."""
    if isinstance(value, str):
        return f"{option} {value.replace(WILDCARD, '+')} " if value != WILDCARD else ""
    return f"{option} {value} " if value.length else ""
