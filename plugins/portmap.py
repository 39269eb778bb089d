"""portmap: host ports that lead to a pod which another plugin has attached before."""

from __future__ import annotations

from shared.cni import config
from shared.cni.config import address, boolean, chain_name, choice, field, integer, invalid, list_of, section, text
from shared.cni.errors import CniError, InternalError, InvalidConfig, PluginNotAvailable
from shared.cni.ip import Address
from shared.cni.plugin import each, previous_result, valid_attachments
from shared.hostports import nftables as hostports
from shared.hostports.nftables import LOCALHOST, LOCALHOST_6, PROTOCOLS, Forwarding, HostPort
from shared.iptables import variants
from shared.net import links, liveness, localnet, netns, renamed, routes, sysctl
from shared.net.netlink import Netlink, TooLarge
from shared.net.owner import Owner
from shared.net.verify import own_ips
from shared.nft.transaction import Nfnetlink
from shared.undo import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from typing import Any

    from shared.cni.call import Call
    from shared.cni.ip import Prefix
    from shared.cni.result import Result
    from shared.hostports.conditions import Match, Parts
    from shared.hostports.iptables_rules import Forwarding as Rules
    from shared.net.netlink import Message
    from shared.nft.conntrack import Flow
    from shared.undo import Undo

CONDITIONS = {"conditionsV4": 4, "conditionsV6": 6}
BY_MARKS = (("backend", ("iptables",)), ("snat", (True,)))


def _protocol(value: Any) -> str:
    lowered = value.lower() if isinstance(value, str) else ""
    if lowered not in PROTOCOLS:
        raise ValueError(f"must be one of {', '.join(PROTOCOLS)}")
    return lowered


port = integer(1, 65535)
protocol = config.Kind(_protocol, {"type": "string"}, empty_is_unset=True)


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
    """The runtime's keys for the capability `portMappings`."""

    portMappings: list[PortMapping] = field(
        list_of(section(PortMapping)), (), "the ports to map (capability `portMappings`)"
    )


class Config(config.Config):
    """portmap's keys."""

    backend: str = field(choice("iptables", "nftables"), "", "what maps ports: nftables, also by default, or iptables")
    snat: bool = field(boolean, True, "masquerade what comes from the pod's subnet or from localhost")
    masqAll: bool = field(
        boolean, False, "with snat: masquerade all that goes to mapped ports", only_with=(("snat", (True,)),)
    )
    markMasqBit: int | None = field(
        integer(0, 31),
        None,
        "bit of the packets' mark (iptables only; default 13; excludes externalSetMarkChain)",
        only_with=BY_MARKS,
    )
    externalSetMarkChain: str = field(
        chain_name,
        "",
        "chain of table nat that marks packets (iptables only; excludes markMasqBit)",
        only_with=BY_MARKS,
    )
    conditionsV4: list[str] = field(list_of(text), (), "what IPv4 packets must match for their port to be mapped")
    conditionsV6: list[str] = field(list_of(text), (), "what IPv6 packets must match for their port to be mapped")
    runtimeConfig: RuntimeConfig | None = field(section(RuntimeConfig), None, "see runtimeConfig")


class Wanted:
    """A call's configuration, validated before anything is touched."""

    def __init__(self, call: Call) -> None:
        keys: Config = Config.read(call.config)
        if keys.markMasqBit is not None and keys.externalSetMarkChain:
            raise invalid("markMasqBit", keys.markMasqBit, 'and "externalSetMarkChain" exclude each other')
        self.keys = keys
        self.by_iptables = keys.backend == "iptables"
        self.owner = Owner(call.network, call.container_id, call.ifname)
        self.mappings = keys.runtimeConfig.portMappings if keys.runtimeConfig else []
        self.conditions = {
            version: _conditions(key, getattr(keys, key), by_iptables=self.by_iptables)
            for key, version in CONDITIONS.items()
        }
        taken: dict[tuple[object, ...], int] = {}
        for place, mapping in enumerate(self.mappings):
            if mapping.hostIP is not None and mapping.hostIP in LOCALHOST_6:
                reason = "cannot be mapped: the kernel routes nothing from IPv6 localhost to a pod"
                raise _invalid(place, "hostIP", mapping.hostIP, reason)
            for version in mapping.versions:
                key = (version, mapping.one_address, mapping.protocol, mapping.hostPort)
                first = taken.setdefault(key, place)
                elsewhere = self.mappings[first].containerPort
                if elsewhere != mapping.containerPort:
                    reason = (
                        f"with protocol {mapping.protocol} leads to port {mapping.containerPort} of the pod, "
                        f"and in portMappings[{first}] to port {elsewhere}"
                    )
                    raise _invalid(place, "hostPort", mapping.hostPort, reason)

        self.mark = liveness.mark(call.netns)

    def guard(self) -> None:
        """Drop packets to and from 127.0.0.0/8 that come from outside, as route_localnet needs it."""
        if self.by_iptables:
            from shared.hostports import iptables

            iptables.guard()
        else:
            hostports.guard(Nfnetlink())

    def complain(self) -> None:
        """Report on stderr what this backend does otherwise than a key says: the administrator's chain is not asked."""
        chain = self.keys.externalSetMarkChain
        if chain and self.keys.snat and not self.by_iptables:
            complain(
                f'portmap: "externalSetMarkChain": "{chain}" has no effect: nf_tables masquerades as snat says, and'
                ' nobody asks the chain; with "backend": "iptables" it decides'
            )

    def destination(self, host: Netlink, result: Result, call: Call) -> Destination:
        """What is to be made for the pod of a result."""
        pods: dict[int, Prefix] = {}
        for ip in own_ips(result, call):
            pods.setdefault(ip.address.version, ip.address)
        if not pods:
            raise InvalidConfig(f'invalid configuration: "prevResult" has no address of {call.ifname}')
        ports: dict[tuple[object, ...], HostPort] = {}  # entries that lead to the same place are one
        for place, mapping in enumerate(self.mappings):
            one = mapping.one_address
            if one:
                _require_local(host, place, one, pods)
            for version in mapping.versions:
                if version in pods:
                    port = HostPort(
                        str(one or ""), mapping.protocol, mapping.hostPort, pods[version].address, mapping.containerPort
                    )
                    ports.setdefault((version, *port.key), port)
        needs_localnet = self.keys.snat and 4 in pods and any(mapping.is_for_localhost for mapping in self.mappings)
        return Destination(self, list(ports.values()), pods, pods[4].address if needs_localnet else None)


read = Wanted  # for validate, which touches nothing


class Destination:
    """Where a call's ports lead; `localnet` is the pod's address if localhost's packets are to find it."""

    def __init__(
        self, wanted: Wanted, ports: list[HostPort], pods: dict[int, Prefix], localnet: Address | None
    ) -> None:
        self.wanted = wanted
        self.ports = ports
        self.pods = pods
        self.localnet = localnet

    def map(self, undo: Undo) -> None:
        """Makes the rules; raises InternalError where a port is another attachment's, by whichever backend.

        Who wants the same by the other backend at the same time is seen by one of the two, perhaps by both.
        """
        make, require_free = (
            (self._map_by_iptables, self._require_free_of_nftables)
            if self.wanted.by_iptables
            else (self._map_by_nftables, self._require_free_of_iptables)
        )
        require_free()
        try:
            make(undo)
        except TooLarge as error:
            raise error.naming("runtimeConfig.portMappings", len(self.ports)) from None
        require_free()

    def _map_by_iptables(self, undo: Undo) -> None:
        from shared.hostports import iptables

        iptables.add(undo, self._by_iptables(), self.wanted.mark, _forget)

    def _map_by_nftables(self, undo: Undo) -> None:
        kernel = Nfnetlink()
        owner, forwarding = self.wanted.owner, self._by_nftables()
        hostports.evict(kernel, owner, [pod.address for pod in self.pods.values()], _forget)
        flows = hostports.add(kernel, owner, forwarding, self.wanted.mark, _forget)
        undo.push(f"remove host ports of {owner.container_id}", lambda: hostports.remove(kernel, owner, _forget))
        if flows:
            _forget(flows)

    def _require_free_of_nftables(self) -> None:
        if kernel := Nfnetlink.if_there():
            hostports.require_free(kernel, self.ports, self.wanted.owner, _forget)

    def _require_free_of_iptables(self) -> None:
        if variants.with_rules(*variants.HOSTPORTS):
            from shared.hostports import iptables

            iptables.require_free(self.ports, self.wanted.owner.container_id, _forget)

    def problems(self) -> list[str]:
        """What is not as `map` left it, each in words."""
        if self.wanted.by_iptables:
            from shared.hostports import iptables

            return iptables.problems(self._by_iptables())
        return hostports.problems(Nfnetlink(), self.wanted.owner, self._by_nftables())

    def _by_nftables(self) -> Forwarding:
        keys = self.wanted.keys
        conditions = {version: _parts(matches) for version, matches in self.wanted.conditions.items() if matches}
        return Forwarding(self.ports, self.pods, conditions, snat=keys.snat, masq_all=keys.masqAll)

    def _by_iptables(self) -> Rules:
        from shared.hostports.iptables_rules import Forwarding as Rules

        keys = self.wanted.keys
        return Rules(
            self.wanted.owner, self.ports, self.pods, self.wanted.conditions, snat=keys.snat, masq_all=keys.masqAll,
            localnet=self.localnet is not None, mark_bit=keys.markMasqBit, set_mark_chain=keys.externalSetMarkChain,
        )  # fmt: skip


def _conditions(key: str, texts: list[str], *, by_iptables: bool) -> list[Match]:
    if not texts:
        return []
    from shared.hostports import conditions

    try:
        if not by_iptables:
            return conditions.by_own_names(conditions.parse(texts, CONDITIONS[key]))
        from shared.hostports.iptables_matches import Taker
        from shared.hostports.iptables_rules import require_usable

        found = conditions.by_own_names(conditions.parse(texts, CONDITIONS[key], Taker()))
        require_usable(found)
    except ValueError as error:
        raise invalid(key, texts, str(error)) from None
    return found


def _parts(matches: list[Match]) -> Parts:
    from shared.hostports import conditions

    return conditions.Parts(matches)


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
    links_here = _links_here(result)
    if wanted.mappings:
        host = Netlink()
        destination = wanted.destination(host, result, call)
        if destination.ports:
            wanted.complain()
            link = _localnet_link(host, destination, links_here)
            if link:
                undo.push("set route_localnet back", _set_localnet_back)
            destination.map(undo)
            if link:  # not before the rules are there that make it safe
                localnet.turn_on(link)
                return result
    _guard_if_open(wanted, links_here)
    return result


def _links_here(result: Result) -> list[str]:
    """Return the names of the host's links in a result."""
    return [links.own_name(interface.name) for interface in result.interfaces if not interface.sandbox]


def _localnet_link(host: Netlink, destination: Destination, named: list[str]) -> Message | None:
    """Return the link whose route_localnet packets of 127.0.0.1 need to find the pod, None if they are not to."""
    if destination.localnet is None:
        return None
    link = localnet.towards(host, destination.localnet, named)
    if link is None:
        complain(f"portmap: localhost's packets do not find {destination.localnet}: no link of pods leads there")
    return link


def _guard_if_open(wanted: Wanted, links_here: list[str]) -> None:
    """Restore the rules if an earlier call turned route_localnet on and somebody removed them."""
    try:
        if any(localnet.is_on(name) for name in links_here):
            wanted.guard()
    except CniError as error:  # this pod needs neither
        complain(f"portmap: route_localnet may be on without the rules that make it safe: {error}")


def _set_localnet_back() -> None:
    from shared.hostports import iptables

    iptables.set_localnet_back()


def _forget(flows: set[Flow]) -> None:
    from shared.nft import conntrack

    conntrack.forget(flows)


def check(call: Call) -> None:
    """Raises InternalError that names everything that is not as ADD left it."""
    wanted = Wanted(call)
    netns.open_netns(call.netns)
    previous = previous_result(call)
    if not wanted.mappings or previous is None:
        return
    host = Netlink()
    destination = wanted.destination(host, previous, call)
    problems = destination.problems()
    link = _localnet_link(host, destination, _links_here(previous))
    if link and not localnet.is_on(link["IFLA_IFNAME"]):
        path = localnet.switch(link["IFLA_IFNAME"])
        problems.append(f"sysctl net/{path} is not 1: localhost's packets do not find the pod")
    if problems:
        raise InternalError(
            f"host ports of {call.network} {call.ifname} are not as they were made", "; ".join(problems)
        )


def delete(call: Call) -> None:
    """Removes an attachment's host ports by whichever backend, the reference's too.

    Needs neither result nor namespace nor the keys.
    """
    pod_netns = netns.open_if_there(call.netns)
    own = Owner(call.network, call.container_id, call.ifname)

    from shared.hostports import iptables

    def end(owner: Owner) -> None:
        each(lambda: _remove(owner), lambda: iptables.remove(owner, _forget))

    def end_former() -> None:
        each(*(lambda owner=owner: end(owner) for owner in renamed.former(own, pod_netns)))

    each(lambda: end(own), end_former, iptables.set_localnet_back)


def _remove(owner: Owner) -> None:
    if kernel := Nfnetlink.if_there():
        hostports.remove(kernel, owner, _forget)
        hostports.remove_references(kernel, owner.container_id)


def gc(call: Call) -> None:
    """Removes the host ports of this network's attachments that are not valid any more, by whichever backend."""
    valid = valid_attachments(call)
    from shared.hostports import iptables

    each(
        lambda: _collect(call.network, valid),
        lambda: iptables.collect(call.network, valid, _forget),
        iptables.set_localnet_back,
    )


def _collect(network: str, valid: AbstractSet[tuple[str, str]]) -> None:
    if kernel := Nfnetlink.if_there():
        hostports.collect(kernel, network, valid, _forget)


def status(call: Call) -> None:
    """Raises PluginNotAvailable where an ADD could not succeed."""
    wanted = Wanted(call)
    wanted.complain()
    try:
        sysctl.require_visible()
        if wanted.by_iptables:
            from shared.hostports import iptables

            iptables.try_out(wanted.conditions)
        else:
            hostports.try_out(Nfnetlink())
    except CniError as error:
        raise PluginNotAvailable(f"host ports cannot be mapped: {error.msg}", error.details) from None
