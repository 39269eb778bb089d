"""portmap: host ports that lead to a pod which another plugin has attached before."""

from __future__ import annotations

from shared.cni import config
from shared.cni.config import address, boolean, choice, field, integer, invalid, list_of, section, text
from shared.cni.errors import CniError, InternalError, InvalidConfig, PluginNotAvailable, UnsupportedField
from shared.cni.ip import Address
from shared.cni.plugin import previous_result, valid_attachments
from shared.net import links, netns, routes, sysctl
from shared.net.netlink import Netlink
from shared.net.owner import Owner
from shared.net.verify import own_ips
from shared.nft import hostports
from shared.nft.hostports import LOCALHOST, LOCALHOST_6, PROTOCOLS, Forwarding, HostPort
from shared.nft.transaction import Nfnetlink, NoNfTables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shared.cni.call import Call
    from shared.cni.ip import Prefix
    from shared.cni.result import Result
    from shared.nft.conntrack import Flow
    from shared.nft.expressions import Expression
    from shared.undo import Undo

LONGEST_CHAIN = 28  # bytes: XT_EXTENSION_MAXNAMELEN in linux/netfilter/x_tables.h, less the closing NUL
CONDITIONS = {"conditionsV4": 4, "conditionsV6": 6}


def _protocol(value: Any) -> str:
    lowered = value.lower() if isinstance(value, str) else ""
    if lowered not in PROTOCOLS:
        raise ValueError(f"must be one of {', '.join(PROTOCOLS)}")
    return lowered


def _chain(value: Any) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value or value[0] in "-!":
        raise ValueError("must be the name of an iptables chain")
    if len(value) > LONGEST_CHAIN:
        raise ValueError(f"must be the name of an iptables chain, which has at most {LONGEST_CHAIN} characters")
    return value


port = integer(1, 65535)
protocol = config.Kind(_protocol, {"type": "string"}, empty_is_unset=True)
chain = config.Kind(_chain, {"type": "string", "maxLength": LONGEST_CHAIN}, empty_is_unset=True)


class PortMapping(config.Config):
    """One entry of portMappings."""

    hostPort: int = field(port, 0, "port of the host", required=True)
    containerPort: int = field(port, 0, "port of the pod", required=True)
    protocol: str = field(protocol, "tcp", "tcp, udp or sctp, in any case")
    hostIP: Address | None = field(
        address, None, "address of the host; 0.0.0.0 or :: for all of the family, none for all"
    )

    @property
    def versions(self) -> tuple[int, ...]:
        """The families that are meant."""
        return hostports.VERSIONS if self.hostIP is None else (self.hostIP.version,)

    @property
    def one_address(self) -> Address | None:
        """The address that is meant alone."""
        return self.hostIP if self.hostIP is not None and self.hostIP.value else None

    @property
    def is_for_localhost(self) -> bool:
        """Whether packets to 127.0.0.1 are meant, too."""
        return 4 in self.versions and (self.one_address is None or self.one_address in LOCALHOST)


class RuntimeConfig(config.Config):
    """What the runtime adds for the `portMappings` capability."""

    portMappings: list[PortMapping] = field(
        list_of(section(PortMapping)), (), "the ports to map (capability `portMappings`)"
    )


class Config(config.Config):
    """portmap's keys."""

    backend: str = field(choice("iptables", "nftables"), "", "what maps ports (iptables is not supported yet)")
    snat: bool = field(boolean, True, "masquerade what comes from the pod's subnet or from localhost")
    masqAll: bool = field(boolean, False, "with snat: masquerade all that goes to mapped ports")
    markMasqBit: int | None = field(
        integer(0, 31), None, "bit of the packets' mark (iptables only; default 13; excludes externalSetMarkChain)"
    )
    externalSetMarkChain: str = field(chain, "", "chain that marks packets (iptables only; excludes markMasqBit)")
    conditionsV4: list[str] = field(list_of(text), (), "what IPv4 packets must match for their port to be mapped")
    conditionsV6: list[str] = field(list_of(text), (), "what IPv6 packets must match for their port to be mapped")
    runtimeConfig: RuntimeConfig | None = field(section(RuntimeConfig), None, "see runtimeConfig")


class Wanted:
    """A call's configuration, validated before anything is touched."""

    def __init__(self, call: Call) -> None:
        keys: Config = Config.read(call.config)
        if keys.markMasqBit is not None and keys.externalSetMarkChain:
            raise invalid("markMasqBit", keys.markMasqBit, 'and "externalSetMarkChain" exclude each other')
        if keys.backend == "iptables":
            raise UnsupportedField('"backend": "iptables" is not supported by this version of the portmap plugin')
        self.keys = keys
        self.owner = Owner(call.network, call.container_id, call.ifname)
        self.mappings = keys.runtimeConfig.portMappings if keys.runtimeConfig else []
        self.conditions = {version: _conditions(key, getattr(keys, key)) for key, version in CONDITIONS.items()}
        taken: dict[tuple[object, ...], int] = {}
        for place, mapping in enumerate(self.mappings):
            if mapping.hostIP is not None and mapping.hostIP in LOCALHOST_6:
                reason = "cannot be mapped: the kernel routes nothing from IPv6 localhost to a pod"
                raise _invalid(place, "hostIP", mapping.hostIP, reason)
            for version in mapping.versions:
                key = (version, mapping.one_address, mapping.protocol, mapping.hostPort)
                first = taken.setdefault(key, place)
                if first != place:
                    reason = f"with protocol {mapping.protocol} is in portMappings[{first}] already"
                    raise _invalid(place, "hostPort", mapping.hostPort, reason)

    def forwarding(self, host: Netlink, result: Result, call: Call) -> tuple[Forwarding, Address | None]:
        """What is to be made for the pod of a result, and its address if localhost's packets are to find it."""
        pods: dict[int, Prefix] = {}
        for ip in own_ips(result, call):
            pods.setdefault(ip.address.version, ip.address)
        if not pods:
            raise InvalidConfig(f'invalid configuration: "prevResult" has no address of {call.ifname}')
        ports = []
        for place, mapping in enumerate(self.mappings):
            one = mapping.one_address
            if one:
                _require_local(host, place, one, pods)
            ports += [
                HostPort(
                    str(one or ""), mapping.protocol, mapping.hostPort, pods[version].address, mapping.containerPort
                )
                for version in mapping.versions
                if version in pods
            ]
        made = Forwarding(ports, pods, self.conditions, snat=self.keys.snat, masq_all=self.keys.masqAll)
        needs_localnet = self.keys.snat and 4 in pods and any(mapping.is_for_localhost for mapping in self.mappings)
        return made, pods[4].address if needs_localnet else None


def _conditions(key: str, texts: list[str]) -> list[Expression]:
    if not texts:
        return []
    from shared.nft import conditions

    try:
        return conditions.parse(texts, CONDITIONS[key])
    except ValueError as error:
        raise invalid(key, texts, str(error)) from None


def _invalid(place: int, key: str, value: Address | int, reason: str) -> InvalidConfig:
    shown = value if isinstance(value, int) else str(value)
    return invalid(f"runtimeConfig.portMappings[{place}].{key}", shown, reason)


def _require_local(host: Netlink, place: int, one: Address, pods: dict[int, Prefix]) -> None:
    """Raises InvalidConfig for an address that is not the host's, whose packets it would take (CVE-2020-8554)."""
    if one.version not in pods:
        raise _invalid(place, "hostIP", one, f"cannot be mapped: the pod has no IPv{one.version} address")
    if not routes.is_local(host, one):
        raise _invalid(place, "hostIP", one, "is not an address of this host")


def add(call: Call, undo: Undo) -> Result:
    """Maps the ports; the result is that of the plugin before."""
    wanted = Wanted(call)
    result = previous_result(call)
    if result is None:
        raise InvalidConfig('invalid configuration: "prevResult" is required: portmap maps to what another plugin made')
    netns.open_netns(call.netns)
    if not wanted.mappings:
        return result
    host = Netlink()
    forwarding, pod = wanted.forwarding(host, result, call)
    if not forwarding.elements:
        return result
    kernel = Nfnetlink()
    flows = hostports.add(kernel, wanted.owner, forwarding)
    undo.push(f"remove host ports of {call.container_id}", lambda: hostports.remove(kernel, wanted.owner, _forget))
    if flows:
        _forget(flows)
    path = _route_localnet(host, pod)
    if path:  # not before the rules are there that make it safe
        sysctl.ensure(path, "1")
    return result


def _forget(flows: set[Flow]) -> None:
    from shared.nft import conntrack

    host = Netlink()
    conntrack.forget_udp(conntrack.Conntrack(), flows, lambda text: routes.is_local(host, Address.parse(text)))


def _route_localnet(host: Netlink, pod: Address | None) -> str:
    """The sysctl of the link that leads to a pod, without which packets of 127.0.0.1 do not; empty for no pod."""
    route = routes.towards(host, pod) if pod else None
    link = links.by_index(host, route["RTA_OIF"]) if route else None
    return f"ipv4/conf/{link['IFLA_IFNAME']}/route_localnet" if link else ""


def check(call: Call) -> None:
    """Raises InternalError that names everything that is not as ADD left it."""
    wanted = Wanted(call)
    netns.open_netns(call.netns)
    previous = previous_result(call)
    if not wanted.mappings or previous is None:
        return
    host = Netlink()
    forwarding, pod = wanted.forwarding(host, previous, call)
    problems = hostports.problems(Nfnetlink(), wanted.owner, forwarding)
    path = _route_localnet(host, pod)
    if path and sysctl.read(path) != "1":
        problems.append(f"sysctl net/{path} is not 1: localhost's packets do not find the pod")
    if problems:
        raise InternalError(
            f"host ports of {call.network} {call.ifname} are not as they were made", "; ".join(problems)
        )


def delete(call: Call) -> None:
    """Removes an attachment's host ports, the reference's too; needs neither result nor namespace nor the keys."""
    netns.open_if_there(call.netns)
    try:
        kernel = Nfnetlink()
    except NoNfTables:
        return
    hostports.remove(kernel, Owner(call.network, call.container_id, call.ifname), _forget)
    hostports.remove_references(kernel, call.container_id)


def gc(call: Call) -> None:
    """Removes the host ports of this network's attachments that are not valid any more."""
    valid = valid_attachments(call)
    try:
        kernel = Nfnetlink()
    except NoNfTables:
        return
    hostports.collect(kernel, call.network, valid, _forget)


def status(call: Call) -> None:
    """Raises PluginNotAvailable where an ADD could not succeed."""
    Wanted(call)
    try:
        hostports.try_out(Nfnetlink())
    except CniError as error:
        raise PluginNotAvailable(f"host ports cannot be mapped: {error.msg}", error.details) from None
