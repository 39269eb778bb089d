"""bridge: a veth pair from the pod to a bridge on the host, which may be the pods' gateway."""

from __future__ import annotations

from shared import steps
from shared.cni import config, delegate
from shared.cni.call import folded
from shared.cni.config import boolean, choice, either, field, integer, invalid, link_name, list_of, prefix, section
from shared.cni.errors import CniError, InternalError
from shared.cni.ip import Address, Prefix
from shared.cni.names import is_link_name
from shared.cni.plugin import supported
from shared.cni.result import Result, Route
from shared.net import addresses, announce, bridges, links, netns, sysctl, veth, wait
from shared.net.netlink import Netlink
from shared.net.wire import IFF_UP
from shared.pod import attachment, inside
from shared.pod.attachment import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.cni.call import Call
    from shared.net.netlink import Message, Request
    from shared.net.netns import Netns
    from shared.net.owner import Owner
    from shared.undo import Undo

CONTAINER_INTERFACE = 2  # its place in the result: bridge, host veth, container veth
LEAST_IPV6_MTU = 1280  # bytes; IPV6_MIN_MTU in linux/ipv6.h
DEFAULT_ROUTES = {4: Prefix(Address(4, 0), 0), 6: Prefix(Address(6, 0), 0)}
vlan_id = integer(1, 4094)


class Trunk(config.Config):
    """One entry of vlanTrunk: a VLAN, or a range of them."""

    id: int | None = field(vlan_id, None, "one VLAN")
    minID: int | None = field(vlan_id, None, "first VLAN of a range")
    maxID: int | None = field(vlan_id, None, "last VLAN of a range")

    def vids(self) -> list[int]:
        """The VLANs it names; raises config.Invalid for half a range or one that runs backwards."""
        if (self.minID is None) != (self.maxID is None):
            raise config.Invalid("minID", self.minID, 'and "maxID" go together')
        single = [] if self.id is None else [self.id]
        if self.minID is None or self.maxID is None:
            return single
        if self.maxID < self.minID:
            raise config.Invalid("minID", self.minID, f'is greater than "maxID" {self.maxID}')
        return [*single, *range(self.minID, self.maxID + 1)]


class Config(attachment.Keys, attachment.MasqueradeKeys, attachment.MacKeys):
    """bridge's keys."""

    bridge: str = field(link_name, "cni0", "name of the bridge; it is made if it does not exist")
    isGateway: bool = field(
        boolean, False, "give the bridge the gateway address of each of the pod's networks", needs=("ipam",)
    )
    isDefaultGateway: bool = field(
        boolean, False, "isGateway, and the pod's default route leads there", needs=("ipam",)
    )
    forceAddress: bool = field(
        boolean, False, "replace a gateway address of the bridge that conflicts",
        needs=("isGateway", "isDefaultGateway"),
    )  # fmt: skip
    nonMasqueradeCIDRs: list[Prefix] = field(
        list_of(prefix),
        (),
        "with ipMasq: what goes to these networks, or to an address of the node, is left as it is, too",
        needs=("ipMasq",),
    )
    mtu: int | str = field(  # type: ignore[assignment]
        either(integer(0, 65535), choice("auto")), 0,
        'MTU of bridge and veth in bytes; 0: the kernel\'s default; "auto": the smallest of the host\'s up links that'
        " are neither loopback nor point-to-point",
    )  # fmt: skip
    hairpinMode: bool = field(boolean, False, "let the pod reach itself by way of the bridge")
    promiscMode: bool = field(
        boolean, False, "make the bridge promiscuous, without the pod getting frames twice (excludes hairpinMode)"
    )
    vlan: int = field(integer(0, 4094), 0, "VLAN of the pod, untagged inside; 0: none")
    vlanTrunk: list[Trunk] = field(list_of(section(Trunk)), (), "VLANs that the pod gets tagged")
    preserveDefaultVlan: bool = field(
        boolean, False, "with vlan: stay in the bridge's default VLAN too", needs=("vlan",)
    )
    uplinks: list[str] = field(
        list_of(link_name), (), "links of the host, without addresses, that ADD makes ports of the bridge"
    )
    fdbMaxLearned: int | None = field(
        integer(0, 2**32 - 1), None,
        "the most MACs that the bridge learns from frames, 0: any number (needs Linux 6.8); without it: left as it is",
    )  # fmt: skip
    macspoofchk: bool = field(boolean, False, "drop what the pod sends from another MAC than its interface gets here")
    bridgeNfCallIptables: bool | None = field(
        boolean, None,
        "true: what the bridge passes on goes through iptables and ip6tables; false: neither this bridge's nor, for the"
        " host as a whole, any other's; without it: left as it is",
    )  # fmt: skip
    enabledad: bool = field(boolean, False, "wait for IPv6 duplicate address detection instead of skipping it")
    disableContainerInterface: bool = field(boolean, False, "leave the pod's interface down (excludes ipam)")
    portIsolation: bool = field(boolean, False, "let the pod reach the bridge but not its other ports")


class Attachment(attachment.Attachment):
    """A call's configuration. Making one validates it, and changes nothing."""

    keys: Config

    def __init__(self, call: Call) -> None:
        super().__init__(call, Config)
        keys = self.keys
        self.gateway = keys.isGateway or keys.isDefaultGateway
        self.exempt = keys.nonMasqueradeCIDRs
        if keys.nonMasqueradeCIDRs and not keys.ipMasq:
            raise invalid("nonMasqueradeCIDRs", [str(one) for one in keys.nonMasqueradeCIDRs], 'needs "ipMasq": true')
        if keys.hairpinMode and keys.promiscMode:
            raise invalid("hairpinMode", True, 'and "promiscMode" exclude each other')
        if keys.disableContainerInterface and self.ipam:
            raise invalid("disableContainerInterface", True, 'and "ipam" exclude each other')
        self.trunk = self._read_trunk()
        self._name_links(keys.bridge, keys.uplinks)

    def _read_trunk(self) -> list[int]:
        trunk: list[int] = []
        for place, entry in enumerate(self.keys.vlanTrunk):
            try:
                trunk += entry.vids()
            except config.Invalid as error:
                raise invalid(f"vlanTrunk[{place}].{error.path}", error.value, error.reason) from None
        return trunk

    def use_own_names(self, host: Netlink) -> None:
        """Call the host's links by their own names, as sysctls do, if the configuration has alternative ones."""
        uplinks = [links.own_name(uplink, host) for uplink in self.keys.uplinks]
        self._name_links(links.own_name(self.keys.bridge, host), uplinks)

    def _name_links(self, bridge: str, uplinks: list[str]) -> None:
        self.bridge = bridge
        self.vlan_link = f"{bridge}.{self.keys.vlan}" if self.keys.vlan and self.gateway else ""
        if self.vlan_link and not is_link_name(self.vlan_link):
            raise invalid("bridge", bridge, f"is too long for the VLAN gateway port {self.vlan_link}")
        for place, uplink in enumerate(uplinks):
            if uplink in (bridge, self.vlan_link):
                raise invalid(f"uplinks[{place}]", self.keys.uplinks[place], "is the bridge's own link")
        self.uplinks = list(dict.fromkeys(uplinks))


read = Attachment  # for validate, which touches nothing


def add(call: Call, undo: Undo) -> Result:
    """Attaches the pod: bridge, veth pair, addresses by IPAM, routes, gateway; answers when the port forwards."""
    pod = Attachment(call)
    keys = pod.keys
    if keys.bridgeNfCallIptables:
        supported("bridgeNfCallIptables", bridges.require_netfilter)
    pod_netns = netns.open_netns(call.netns)
    sysctl.require_visible()
    host = Netlink()
    pod.use_own_names(host)
    mtu = _mtu(host, pod)
    uplinks = _uplinks(host, pod)
    indexes = tuple(link["index"] for link in uplinks)
    ipv6 = _has_to_enable_ipv6(call, host, pod, mtu)
    _require_free_mac(host, pod)

    undo.push(f"remove bridge {pod.bridge} if it is new", lambda: bridges.remove_if_new(host, pod.bridge, indexes))
    steps.begin("veth")
    port = veth.make(host, undo, pod.owner, pod_netns, mac=pod.own_mac, mtu=mtu)
    own = (port["index"], *indexes)
    _guard(host, undo, pod)
    steps.begin("bridge")
    bridge = bridges.attach(
        host, undo, pod.bridge, lambda bridge: _joining(pod, port["index"], bridge), own=own, mtu=mtu,
        vlan_filtering=bool(keys.vlan or pod.trunk), fdb_max_learned=keys.fdbMaxLearned, promisc=keys.promiscMode,
        ipv6=ipv6, dad=keys.enabledad,
    )  # fmt: skip
    _require_free_mac(host, pod)  # again: of two calls that ask for one MAC at once, at least one sees the other's port
    _complete_bridge(host, undo, pod, bridge, uplinks, own)
    result = pod.assign(undo, interface=CONTAINER_INTERFACE, keep=_own_filters(keys))
    _add_gateways(result, pod)
    steps.begin("pod")
    link, announce_pod = inside.configure(
        pod_netns, call.ifname, result, dad=keys.enabledad, is_up=not keys.disableContainerInterface
    )

    gateway_link = bridge
    steps.begin("gateway")
    if result.ips and pod.vlan_link:
        from shared.net import vlans

        gateway_link = vlans.ensure_gateway_port(
            host, undo, bridge, pod.vlan_link, vlan=keys.vlan, keep_default=keys.preserveDefaultVlan, own=own,
            ipv6=any(ip.address.version == 6 for ip in result.ips), dad=keys.enabledad,
        )  # fmt: skip
    given = _be_gateway(host, undo, pod, bridge, own, gateway_link, result) if pod.gateway else []
    _use_netfilter(host, undo, pod, own, result)
    port = (links.require if keys.disableContainerInterface else wait.carrier)(host, pod.owner.host_link)
    bridge_now = wait.gateway_carrier(host, pod.bridge)
    gateway_link = bridge_now if gateway_link is bridge else gateway_link
    if pod.gateway:
        _await_gateway(host, pod, gateway_link, result, given)
    announce_pod()
    announce.Announcement(gateway_link["IFLA_IFNAME"], gateway_link["IFLA_ADDRESS"], given).send()

    steps.begin("result")
    if port.get("IFLA_MASTER") != bridge_now["index"]:
        raise InternalError(f"bridge {pod.bridge} was replaced while the pod was attached to it")
    bridges.note_attached(host, undo, bridge_now, (*own, gateway_link["index"]))
    result.interfaces = [
        attachment.interface(bridge_now), attachment.interface(port), attachment.interface(link, call.netns),
        *([attachment.interface(gateway_link)] if gateway_link is not bridge_now else []),
    ]  # fmt: skip
    return result


def _complete_bridge(
    host: Netlink, undo: Undo, pod: Attachment, bridge: Message, uplinks: list[Message], own: tuple[int, ...]
) -> None:
    """Limit the MACs that the bridge learns, and make the uplinks its ports."""
    if pod.keys.fdbMaxLearned is not None:
        bridges.limit_learning(host, undo, bridge, pod.keys.fdbMaxLearned, own)
    if uplinks:
        from shared.net import uplinks as joining

        joining.join(host, undo, bridge, uplinks, own)


def _mtu(host: Netlink, pod: Attachment) -> int:
    """Return the MTU in bytes for new links, 0: the kernel's default."""
    mtu = pod.keys.mtu
    return links.smallest_mtu(host, pod.bridge, pod.uplinks) if isinstance(mtu, str) else mtu


def _uplinks(host: Netlink, pod: Attachment) -> list[Message]:
    """Return the uplinks; raise InvalidConfig for one that cannot be a port of the bridge."""
    if not pod.uplinks:
        return []
    from shared.net import uplinks

    return uplinks.require(host, pod.bridge, pod.uplinks)


def _require_free_mac(host: Netlink, pod: Attachment) -> None:
    """Raise InvalidConfig if the MAC that is asked for is another link's on the bridge."""
    bridge = links.get(host, pod.keys.bridge) if pod.mac else None
    if bridge is not None:
        from shared.net import macs

        macs.require_free(host, bridge, pod.mac_key, pod.mac, own=pod.owner.host_link)


def _has_to_enable_ipv6(call: Call, host: Netlink, pod: Attachment, mtu: int) -> bool:
    """Return True if the bridge needs IPv6, and the host's sysctls disable it on new links.

    Raises InternalError if the pod can have no IPv6 address here, as far as the IPAM plugin's networks are known.
    """
    disabled = sysctl.read(f"ipv6/conf/{pod.bridge}/disable_ipv6")
    if disabled is None and sysctl.read(f"ipv4/conf/{pod.bridge}/forwarding") is None:
        disabled = sysctl.read("ipv6/conf/default/disable_ipv6")  # the bridge is still to be made
    if disabled == "0" and not 0 < mtu < LEAST_IPV6_MTU:
        return False
    from shared.net import readiness

    if not readiness.has_ipv6(delegate.networks(call)):
        return False
    on_bridge = pod.gateway and not pod.vlan_link
    problems = readiness.ipv6(mtu)
    problems += readiness.ipv6_gateway(links.get(host, pod.bridge)) if on_bridge else []
    if problems:
        raise InternalError(problems[0], "; ".join(problems[1:]))
    return on_bridge


def _guard(host: Netlink, undo: Undo, pod: Attachment) -> None:
    """The rules for frames are there before the port is one of the bridge's, and until it is silent again."""
    if pod.keys.macspoofchk:
        from shared.frames import spoofcheck

        supported("macspoofchk", lambda: spoofcheck.add(undo, pod.owner, pod.own_mac))
        undo.push(f"take link {pod.owner.host_link} down", lambda: links.silence(host, pod.owner.host_link))
    if pod.keys.promiscMode:
        from shared.frames import dedup

        dedup.add(undo, pod.owner, pod.own_mac)


def _joining(pod: Attachment, index: int, bridge: Message) -> list[Request]:
    """What makes the host's end a port of the bridge; it comes up last, when its VLANs are set."""
    keys = pod.keys
    requests = bridges.join(
        index, bridge["index"], alias=pod.owner.alias, hairpin=keys.hairpinMode, isolated=keys.portIsolation
    )
    if keys.vlan or pod.trunk:
        from shared.net import vlans

        requests += vlans.requests(
            index, default=bridges.default_vlan(bridge), native=keys.vlan, trunk=pod.trunk,
            keep_default=keys.preserveDefaultVlan,
        )  # fmt: skip
    if keys.macspoofchk:
        requests += bridges.learn_no_link_local(bridge)
    if pod.gateway:
        requests = [*bridges.keep_mac(bridge), *requests]
    return [*requests, links.change_flags(index, IFF_UP, IFF_UP)]


def _own_filters(keys: Config) -> set[str]:
    """Return the mechanisms of shared/pod/filters.py that an ADD sets up before it has addresses."""
    wanted = {"spoofcheck": keys.macspoofchk, "dedup": keys.promiscMode}
    return {name for name, is_wanted in wanted.items() if is_wanted}


def _add_gateways(result: Result, pod: Attachment) -> None:
    """Add the gateways that the IPAM plugin left out, and default routes."""
    for ip in result.ips:
        if ip.gateway is None and pod.gateway:
            ip.gateway = ip.address.first + 1
        default = DEFAULT_ROUTES[ip.address.version]
        if pod.keys.isDefaultGateway and all(route.dst != default for route in result.routes):
            result.routes.append(Route(default, ip.gateway))


def _be_gateway(
    host: Netlink, undo: Undo, pod: Attachment, bridge: Message, own: tuple[int, ...], link: Message, result: Result
) -> list[Address]:
    """Give the gateway link its addresses, and let the host forward. Return the addresses that it did not have."""
    have = addresses.of_link(host, link["index"])
    wanted = [Prefix(ip.gateway, ip.address.length) for ip in result.ips if ip.gateway]
    missing = [one for one in wanted if one not in have]
    for one in missing:
        bridges.ensure_gateway(
            host, undo, link, one, bridge=bridge["index"], own=own, force=pod.keys.forceAddress,
            dad=pod.keys.enabledad,
        )  # fmt: skip
    # last, so that a call that fails leaves them as they were
    for version in {one.version for one in wanted}:
        if sysctl.read(sysctl.FORWARDING[version]) != "1":
            from shared.net import forwarding

            forwarding.turn_on(host, version)
    return [one.address for one in missing]


def _await_gateway(host: Netlink, pod: Attachment, link: Message, result: Result, given: list[Address]) -> None:
    """Wait until the host reaches the pod through its gateway link, with packets that it forwards, too."""
    if pod.vlan_link:
        for end in (link, links.peer_here(host, link) or link):
            wait.gateway_carrier(host, end["IFLA_IFNAME"])
    if pod.keys.enabledad:
        wait.addresses_settled(host, link["index"])
    elif any(ip.gateway and ip.gateway.version == 6 for ip in result.ips):
        wait.link_local_settled(host, link["index"])
    wait.addresses_local(host, link["index"], given)


def _use_netfilter(host: Netlink, undo: Undo, pod: Attachment, ports: tuple[int, ...], result: Result) -> None:
    pod.masquerade(undo, result)
    if pod.keys.bridgeNfCallIptables is not None:
        bridge = links.require(host, pod.bridge)
        bridges.call_netfilter(host, undo, bridge, on=pod.keys.bridgeNfCallIptables, own=ports)


def check(call: Call) -> None:
    """Raise InternalError that names all differences from the state that ADD left."""
    pod = Attachment(call)

    def look(host: Netlink, pod_netns: Netns, link: Message | None, previous: Result) -> list[str]:
        steps.begin("bridge")
        return [*_host_problems(host, pod, pod_netns, link, previous), *_frame_problems(pod)]

    pod.check("veth", look, is_up=not pod.keys.disableContainerInterface)


def _frame_problems(pod: Attachment) -> list[str]:
    problems: list[str] = []
    if pod.keys.macspoofchk:
        from shared.frames import spoofcheck

        problems += spoofcheck.problems(pod.owner, pod.own_mac)
    if pod.keys.promiscMode:
        from shared.frames import dedup

        problems += dedup.problems(pod.owner, pod.own_mac)
    return problems


def _host_problems(
    host: Netlink, pod: Attachment, pod_netns: Netns, link: Message | None, previous: Result
) -> list[str]:
    keys = pod.keys
    pod.use_own_names(host)
    bridge = links.get(host, pod.bridge)
    if bridge is None or links.kind(bridge) != "bridge":
        return [f"bridge {pod.bridge} is missing"]
    problems = _bridge_problems(bridge, keys)
    port = veth.find(host, pod.owner, pod_netns, link)
    if port is None:
        problems.append(f"the host's end of the veth pair, {pod.owner.host_link}, is missing")
    else:
        _check_port(host, bridge, port, keys, pod.trunk, problems)
    if pod.uplinks:
        from shared.net import uplinks

        problems += uplinks.problems(host, bridge, pod.uplinks)
    gateways = [ip for ip in previous.ips if ip.interface == CONTAINER_INTERFACE and ip.gateway] if pod.gateway else []
    for version in sorted({ip.address.version for ip in gateways}):
        if (now := sysctl.read(sysctl.FORWARDING[version])) in ("0", None):
            problems.append(f"the host does not forward: sysctl net/{sysctl.FORWARDING[version]} is {now}")
    if gateways:
        gateway_link = links.get(host, pod.vlan_link) if pod.vlan_link else bridge
        if pod.vlan_link:
            _check_gateway_port(host, bridge, gateway_link, pod, problems)
        have_addresses = addresses.of_link(host, gateway_link["index"]) if gateway_link else []
        problems += [
            f"gateway address {ip.gateway} is missing on {pod.vlan_link or pod.bridge}"
            for ip in gateways
            if ip.gateway and Prefix(ip.gateway, ip.address.length) not in have_addresses
        ]
    return problems


def _check_port(
    host: Netlink, bridge: Message, port: Message, keys: Config, trunk: list[int], problems: list[str]
) -> None:
    name = port["IFLA_IFNAME"]
    if port.get("IFLA_MASTER") != bridge["index"]:
        problems.append(f"link {name} is not a port of {bridge['IFLA_IFNAME']}")
    if not port["flags"] & IFF_UP:
        problems.append(f"link {name} is down")
    if keys.vlan or trunk:
        from shared.net import vlans

        problems += vlans.problems(
            host, bridge, port, native=keys.vlan, trunk=trunk, keep=keys.preserveDefaultVlan
        )  # fmt: skip


def _check_gateway_port(
    host: Netlink, bridge: Message, link: Message | None, pod: Attachment, problems: list[str]
) -> None:
    if link is None:
        problems.append(f"link {pod.vlan_link} is missing")
        return
    if not link["flags"] & IFF_UP:
        problems.append(f"link {pod.vlan_link} is down")
    port = links.peer_here(host, link)
    if port is not None:
        _check_port(host, bridge, port, pod.keys, [], problems)


def _bridge_problems(bridge: Message, keys: Config) -> list[str]:
    name = bridge["IFLA_IFNAME"]
    found = [] if bridge["flags"] & IFF_UP else [f"bridge {name} is down"]
    wanted_limit = keys.fdbMaxLearned
    if wanted_limit is not None and (limit := bridges.learning_limit(bridge)) != wanted_limit:
        found.append(f"bridge {name} may learn {limit or 'all'} MACs, but fdbMaxLearned is {wanted_limit}")
    if keys.macspoofchk and bridges.learns_link_local(bridge):
        found.append(f"bridge {name} learns MACs from frames to link-local groups")
    wanted = keys.bridgeNfCallIptables
    if wanted is not None and bridges.calls_netfilter(bridge) != {wanted}:
        how = "does not go" if wanted else "goes"
        found.append(f"what {name} passes on {how} through iptables or ip6tables, against bridgeNfCallIptables")
    return found


def delete(call: Call) -> None:
    """Remove the pod's part of the rules and the veth pair, then release the addresses."""
    bridge = folded(call.config, "bridge") or Config.fields["bridge"].default

    def unlink_foreign(host: Netlink, owner: Owner, pod_netns: Netns | None) -> bool:
        return veth.remove_foreign(host, call, owner, pod_netns, bridge)

    attachment.delete(call, veth.remove, unlink_foreign)


def gc(call: Call) -> None:
    """Remove the remains of this network's attachments that are not valid any more."""
    attachment.collect(call, veth.is_left_behind)


def status(call: Call) -> None:
    """Raise PluginNotAvailable if an ADD could not succeed."""
    pod = Attachment(call)
    trials: list[tuple[str, Callable[[], object]]] = []
    if pod.keys.macspoofchk:
        from shared.frames import spoofcheck

        trials.append(("macspoofchk", spoofcheck.try_out))
    if pod.keys.bridgeNfCallIptables:
        trials.append(("bridgeNfCallIptables", bridges.require_netfilter))
    pod.status(lambda: _node_problems(call, pod), *trials)


def _node_problems(call: Call, pod: Attachment) -> list[str]:
    """Return why this node cannot have one more pod, as far as links and addresses go."""
    from shared.net import readiness

    steps.begin("bridge")
    sysctl.require_visible()
    host, keys = Netlink(), pod.keys
    pod.use_own_names(host)
    bridge = links.get(host, pod.bridge)
    if bridge is not None and links.kind(bridge) != "bridge":
        return [f"link {pod.bridge} exists but is not a bridge"]
    problems: list[str] = []
    uplinks: list[Message] = []
    problems += failure(lambda: uplinks.extend(_uplinks(host, pod)))
    filters = bridge is not None and bridges.filters_vlans(bridge)
    if (keys.vlan or pod.trunk) and not filters:
        problems += failure(lambda: readiness.require_vlan_filtering(pod.bridge))
    if keys.fdbMaxLearned is not None:
        problems += failure(lambda: readiness.require_learning_limit(bridge, pod.bridge))
    try:
        networks = delegate.networks(call)
    except CniError as error:
        return [*problems, str(error)]
    gateway = links.get(host, pod.vlan_link) if pod.vlan_link else bridge
    if bridge is not None:
        to_join = [link for link in uplinks if link.get("IFLA_MASTER") != bridge["index"]]
        needs_port = bool(pod.vlan_link and networks and gateway is None)
        problems += readiness.room(host, bridge, 1 + len(to_join) + needs_port)
        if gateway and gateway is not bridge:
            from shared.net import vlans

            problems += failure(lambda: vlans.require_gateway_port(host, bridge, gateway))
    if readiness.has_ipv6(networks):
        problems += readiness.ipv6(_mtu(host, pod))
        problems += readiness.ipv6_gateway(bridge) if pod.gateway and not pod.vlan_link else []
    if pod.gateway:
        problems += [] if keys.forceAddress else readiness.gateways(host, gateway, networks)
        problems += readiness.forwarding(networks)
    return problems
