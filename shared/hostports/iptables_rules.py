"""The rules of an attachment's host ports, as iptables-save prints them; shared/hostports/iptables.py adds them."""

from __future__ import annotations

from shared.cni.digests import digest
from shared.cni.ip import Address
from shared.cni.names import CHAIN_NAME_BYTES, is_chain_name
from shared.hostports.mappings import LOCALHOST_6
from shared.iptables.variants import HOSTPORTS
from shared.net.reference_names import container_digest, shortened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shared.cni.ip import Prefix
    from shared.hostports.conditions import Match, Value
    from shared.hostports.mappings import HostPort
    from shared.net.owner import Owner

NAT, DNAT = HOSTPORTS
RAW, SETMARK, MASQ = "raw", "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ"
PREFIX = "CNI-DN-"
TRIAL = "CNI-DN-trial"  # no container's chain: those have hexadecimal digits
ENTRY = '-m comment --comment "dnat name: \\"'
INTERFACE = 'if: \\"'
LOCALNET = [
    f'-A PREROUTING {option} 127.0.0.0/8 ! -i lo -m comment --comment "CNI portfwd localhost from outside" -j DROP'
    for option in ("-d", "-s")
]
PORTS_IN_A_RULE = 15  # XT_MULTI_PORTS in linux/netfilter/xt_multiport.h
MARK_BIT = 13
CONDITIONS = "conditions: "  # begins a comment; a digest of the matches that iptables-save rewrites follows
WILDCARD = "*"  # ends the beginning of link names in conditions
OPTIONS = {"saddr": "-s", "daddr": "-d", "iifname": "-i"}  # as iptables-save orders them


def chain_of(network: str, container_id: str) -> str:
    """Return the name of a container's chain."""
    return (PREFIX + container_digest(network, container_id))[:CHAIN_NAME_BYTES]


class Forwarding:
    """The rules of an attachment as lines of iptables-save, by IP version."""

    def __init__(
        self, owner: Owner, ports: Sequence[HostPort], subnets: Mapping[int, Prefix],
        conditions: Mapping[int, Sequence[Match]], *, snat: bool, masq_all: bool, localnet: bool,
        mark_bit: int | None = None, set_mark_chain: str = "",
    ) -> None:  # fmt: skip
        """Take the pod's addresses with prefix lengths, and the conditions on packets, both by IP version."""
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
        """Return the rules that jump to the chain, for ports of one address (`is_at`) or of any."""
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
        """Return the alternatives of the conditions. The port's address replaces a -d condition that it meets."""
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
        """Return the matches that iptables alone knows, and a comment by which CHECK recognizes the rule.

        iptables-save rewrites the matches.
        """
        line = _words(self.conditions.get(version, ()))
        if not line:
            return ""
        return f' {line} -m comment --comment "{CONDITIONS}{digest(line.encode())[:12]}"'

    def inside(self, version: int, *, is_at: bool) -> list[str]:
        """Return the rules of the chain. Those for any address exclude IPv6 localhost."""
        found = []
        # every exclusion once, before all other rules of the chain
        if is_at == any(port.version == version and port.is_at for port in self.ports):
            found += [
                f"-A {self.chain} {_option(OPTIONS[field], one)}{self._own} -j RETURN"
                for field, operator, values in self.conditions.get(version, ())
                if field in OPTIONS and operator == "neq" and len(values) > 1
                for one in values
            ]
        if version == 6 and not is_at and any(port.version == 6 and not port.is_at for port in self.ports):
            # The kernel routes nothing from IPv6 localhost to a pod. Without a mapping the client is refused at once.
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
        """Return the rules that all attachments share, and those of this attachment's mark."""
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
        """Return the tables that have rules of an IP version."""
        return (RAW, NAT) if self.localnet and version == 4 else (NAT,)


def read_conditions(texts: Sequence[str], version: int) -> list[Match]:
    """Return the conditions of a configuration. Raise ValueError if iptables cannot have them in one rule."""
    from shared.hostports import conditions
    from shared.hostports.iptables_matches import Taker

    found = conditions.read(texts, version, Taker())
    require_usable(found)
    return found


def require_usable(conditions: Sequence[Match]) -> None:
    """Raise ValueError for conditions that iptables cannot have in one rule."""
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
                raise ValueError(f"{shown}, which no packet fulfils")


def trial_of(conditions: Sequence[Match]) -> list[str]:
    """Return the commands that try out matches that iptables alone knows; none if there are no such matches."""
    line = _words(conditions)
    return [f"-N {TRIAL}", f"-A {TRIAL} -p tcp {line} -j RETURN"] if line else []


def _words(conditions: Sequence[Match]) -> str:
    """Return the matches that iptables alone knows, as part of a line."""
    return " ".join(str(word) for field, _, words in conditions if field not in OPTIONS for word in words)


def is_there(rule: str, lines: Sequence[str]) -> bool:
    """Return True if one of iptables-save's lines is the rule.

    iptables-save rewrites further matches: such a rule is recognized by its beginning, comments and end.
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
    """Return the words of a comment that name a rule's interface, as iptables-save prints them."""
    return f'{INTERFACE}{ifname if is_chain_name(ifname) else digest(ifname.encode())[:12]}\\"'


def _option(option: str, value: Value) -> str:
    """Return the option as iptables-save prints it: empty if every packet fulfils it."""
    if isinstance(value, str):
        return f"{option} {value.replace(WILDCARD, '+')} " if value != WILDCARD else ""
    return f"{option} {value} " if value.length else ""
