"""bridge: a veth pair from the pod to a bridge on the host, which may be the pods' gateway."""

from __future__ import annotations

from shared import steps
from shared.cni import config, delegate
from shared.cni.call import folded
from shared.cni.config import boolean, choice, either, field, integer, invalid, link_name, list_of, section
from shared.cni.errors import InternalError
from shared.cni.names import is_link_name
from shared.cni.plugin import supported
from shared.net import links, sysctl, veth
from shared.net.netlink import Netlink
from shared.pod import attachment, removal
from shared.pod.attachment import interface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shared.cni.call import Call
    from shared.cni.plugin import Part
    from shared.cni.result import Result
    from shared.net.bridges import Ports
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.undo import Undo

vlan_id = integer(1, 4094)


class Trunk(config.Config):
    """One entry of vlanTrunk: a VLAN, or a range of them."""

    id: int | None = field(vlan_id, None, "one VLAN")
    minID: int | None = field(vlan_id, None, "first VLAN of a range")
    maxID: int | None = field(vlan_id, None, "last VLAN of a range")

    def __init__(self, raw: dict[str, Any]) -> None:
        super().__init__(raw)
        if (self.minID is None) != (self.maxID is None):
            raise config.Invalid("minID", self.minID, 'and "maxID" go together')
        if self.minID is not None and self.maxID is not None and self.maxID < self.minID:
            raise config.Invalid("minID", self.minID, f'is greater than "maxID" {self.maxID}')

    def vids(self) -> list[int]:
        """Return the VLANs that it names."""
        single = [] if self.id is None else [self.id]
        return [*single, *range(self.minID or 0, (self.maxID or -1) + 1)]


class Config(attachment.Keys, attachment.MasqueradeKeys, attachment.MacKeys):
    """bridge's keys."""

    bridge: str = field(link_name, "cni0", "name of the bridge; it is made if it does not exist")
    isGateway: bool = field(boolean, False, "give the bridge the pods' gateway addresses", needs=("ipam",))
    isDefaultGateway: bool = field(boolean, False, "isGateway, and the pod's default route", needs=("ipam",))
    forceAddress: bool = field(
        boolean, False, "replace a gateway address of the bridge that conflicts",
        needs=("isGateway", "isDefaultGateway"),
    )  # fmt: skip
    severalGateways: bool = field(
        boolean, False, "let the bridge have IPv4 gateway addresses of several networks, which may not overlap",
        needs=("isGateway", "isDefaultGateway"),
    )  # fmt: skip
    mtu: int | str = field(  # type: ignore[assignment]
        either(integer(0, 65535), choice("auto")), 0,
        'MTU of bridge and veth in bytes; 0: the kernel\'s default; "auto": the smallest of the host\'s up links that'
        " are neither loopback nor point-to-point",
    )  # fmt: skip
    hairpinMode: bool = field(boolean, False, "let the pod reach itself by way of the bridge")
    promiscMode: bool = field(
        boolean, False, "make the bridge promiscuous, and drop the duplicate frames to pods (excludes hairpinMode)"
    )
    vlan: int = field(integer(0, 4094), 0, "VLAN of the pod, untagged inside; 0: none")
    vlanTrunk: list[Trunk] = field(list_of(section(Trunk)), (), "VLANs that the pod gets tagged")
    preserveDefaultVlan: bool = field(boolean, False, "with vlan: stay in the default VLAN too", needs=("vlan",))
    uplinks: list[str] = field(list_of(link_name), (), "links without addresses that ADD makes ports of the bridge")
    fdbMaxLearned: int | None = field(
        integer(0, 2**32 - 1), None,
        "limit of the MACs that the bridge learns from frames, 0: no limit; unset: unchanged (needs Linux 6.8)",
    )  # fmt: skip
    macspoofchk: bool = field(boolean, False, "drop frames from the pod with another source MAC than its interface's")
    bridgeNfCallIptables: bool | None = field(
        boolean, None,
        "true: bridged packets traverse iptables and ip6tables; false: they do not, and the sysctls of the host that"
        " demand it for all bridges are switched off; unset: unchanged",
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
        if keys.hairpinMode and keys.promiscMode:
            raise invalid("hairpinMode", True, 'and "promiscMode" exclude each other')
        if keys.disableContainerInterface and self.ipam:
            raise invalid("disableContainerInterface", True, 'and "ipam" exclude each other')
        filters = {"spoofcheck": keys.macspoofchk, "dedup": keys.promiscMode}  # names of shared/pod/filters.py
        self.frame_filters = {name for name, is_wanted in filters.items() if is_wanted}
        self.trunk = [vid for entry in keys.vlanTrunk for vid in entry.vids()]
        self._name_links(keys.bridge, keys.uplinks)

    def use_own_names(self, host: Netlink) -> None:
        """Call the host's links by their own names, as sysctls do, if the configuration has alternative ones."""
        uplinks = [links.own_name(uplink, host) for uplink in self.keys.uplinks]
        self._name_links(links.own_name(self.keys.bridge, host), uplinks)

    def find_parts(self, host: Netlink, pod_netns: Netns, link: Message | None, previous: Result) -> list[Part]:
        """Return the parts of the attachment on the host."""
        from shared.pod import port

        self.use_own_names(host)
        return port.Parts(host, pod_netns, link, previous, self).each()

    def _name_links(self, bridge: str, uplinks: list[str]) -> None:
        self.bridge = bridge
        self.vlan_link = f"{bridge}.{self.keys.vlan}" if self.keys.vlan and self.gateway else ""
        if self.vlan_link and not is_link_name(self.vlan_link):
            raise invalid("bridge", bridge, f"is too long for the VLAN gateway port {self.vlan_link}")
        self.vlan_port = (self.vlan_link, self.keys.vlan, self.keys.preserveDefaultVlan) if self.vlan_link else None
        for place, uplink in enumerate(uplinks):
            if uplink in (bridge, self.vlan_link):
                raise invalid(f"uplinks[{place}]", self.keys.uplinks[place], "is the bridge's own link")
        self.uplinks = list(dict.fromkeys(uplinks))


read = Attachment  # for validate, which touches nothing


def add(call: Call, undo: Undo) -> Result:
    """Attach the pod to the bridge. Return when its port forwards, and the gateway reaches it."""
    # not for DEL
    from shared.net import announce, bridges, gateways
    from shared.pod import inside, port
    from shared.pod.port import CONTAINER_INTERFACE

    pod = Attachment(call)
    keys = pod.keys
    pod_netns = pod.open_netns()
    host = Netlink()
    pod.use_own_names(host)
    bridge, own = _connect(host, undo, pod, pod_netns)
    result = pod.assign(
        undo, interface=CONTAINER_INTERFACE, is_gateway=pod.gateway, has_default_routes=keys.isDefaultGateway,
        keep=pod.frame_filters,
    )  # fmt: skip
    steps.begin("pod")
    link, announce_pod = inside.configure(
        pod_netns, call.ifname, result, dad=keys.enabledad, is_up=not keys.disableContainerInterface
    )
    steps.begin("gateway")
    gateway = gateways.Gateway(host, bridge, own, pod.vlan_port, dad=keys.enabledad)
    if pod.gateway:
        wanted = gateways.of_result(result, CONTAINER_INTERFACE)
        gateway.ensure(undo, wanted, force=keys.forceAddress, several=keys.severalGateways)
    pod.masquerade(undo, result)
    port.call_iptables(host, undo, pod, own)
    end, bridge_now = port.await_ready(host, pod, gateway)
    announce_pod()
    announce.Announcement(gateway.link["IFLA_IFNAME"], gateway.link["IFLA_ADDRESS"], gateway.given).send()
    steps.begin("result")
    if end.get("IFLA_MASTER") != bridge_now["index"]:
        raise InternalError(f"bridge {pod.bridge} was replaced while the pod was attached to it")
    bridges.note_attached(host, undo, bridge_now, (*own, gateway.link["index"]))
    result.interfaces = [interface(bridge_now), interface(end), interface(link, call.netns)]
    if pod.vlan_link and gateway.wanted:
        result.interfaces.append(interface(gateway.link))
    return result


def _connect(host: Netlink, undo: Undo, pod: Attachment, pod_netns: Netns) -> tuple[Message, Ports]:
    """Create the veth pair, and the bridge if need be. Return the bridge and the indexes of its ports by this call."""
    from shared.net import bridges
    from shared.pod import port

    if pod.keys.bridgeNfCallIptables:
        from shared.net import bridge_netfilter

        supported("bridgeNfCallIptables", bridge_netfilter.require)
    mtu, uplinks = port.find_mtu(host, pod), port.find_uplinks(host, pod)
    indexes = tuple(link["index"] for link in uplinks)
    ipv6 = port.has_to_enable_ipv6(host, pod, mtu)
    _require_free_mac(host, pod)
    undo.push(f"remove bridge {pod.bridge} if it is new", lambda: bridges.remove_if_new(host, pod.bridge, indexes))
    steps.begin("veth")
    end = veth.make(host, undo, pod.owner, pod_netns, mac=pod.own_mac, mtu=mtu)
    own = port.ports_of(end, uplinks)
    if pod.frame_filters:
        from shared import frames

        frames.install(host, undo, pod.owner, pod.own_mac, pod.frame_filters)
    bridge = port.join(host, undo, pod, end, uplinks, mtu=mtu, ipv6=ipv6)
    _require_free_mac(host, pod)  # again: of two calls that ask for one MAC at once, at least one sees the other's port
    port.complete(host, undo, pod, bridge, uplinks, own)
    return bridge, own


def _require_free_mac(host: Netlink, pod: Attachment) -> None:
    """Raise InvalidConfig if another link on the bridge has the MAC that the configuration demands."""
    bridge = links.get(host, pod.keys.bridge) if pod.mac else None
    if bridge is not None:
        from shared.net import macs

        macs.require_free(host, bridge, pod.mac_key, pod.mac, own=pod.owner.host_link)


def check(call: Call) -> None:
    """Raise InternalError with all differences from the state that ADD left."""
    pod = Attachment(call)
    pod.check("veth", pod.find_parts, is_up=not pod.keys.disableContainerInterface)


def repair(call: Call) -> list[str]:
    """Make again the port, the bridge, its gateway addresses and the rules that CHECK would miss. Return its texts."""
    pod = Attachment(call)
    return pod.repair("veth", pod.find_parts, is_up=not pod.keys.disableContainerInterface)


def delete(call: Call) -> None:
    """Remove the pod's packet filters and the veth pair, then release the addresses."""
    bridge = folded(call.config, "bridge") or Config.fields["bridge"].default
    removal.delete(
        call, veth.remove, lambda host, owner, pod_netns: veth.remove_foreign(host, call, owner, pod_netns, bridge)
    )


def gc(call: Call) -> None:
    """Remove the remains of this network's attachments that are not valid any more."""
    removal.collect(call, veth.is_left_behind)


def status(call: Call) -> None:
    """Raise PluginNotAvailable if an ADD could not succeed."""
    pod = Attachment(call)
    keys = pod.keys

    def look() -> list[str]:
        from shared.net import readiness
        from shared.pod import port

        steps.begin("bridge")
        sysctl.require_visible()
        host = Netlink()
        pod.use_own_names(host)
        return readiness.problems(
            host, pod.bridge, lambda: delegate.networks(call), uplinks=pod.uplinks, vlan_link=pod.vlan_link,
            mtu=port.find_mtu(host, pod), filters_vlans=bool(keys.vlan or pod.trunk),
            limits_learning=keys.fdbMaxLearned is not None, is_gateway=pod.gateway, force=keys.forceAddress,
            several=keys.severalGateways,
        )  # fmt: skip

    trials: list[tuple[str, Callable[[], object]]] = []
    if pod.frame_filters:
        from shared import frames

        trials = frames.trials(pod.frame_filters)
    if keys.bridgeNfCallIptables:
        from shared.net import bridge_netfilter

        trials.append(("bridgeNfCallIptables", bridge_netfilter.require))
    pod.status(look, *trials)
