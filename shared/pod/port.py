"""Make a pod's veth pair a port of a bridge, with the bridge plugin's configuration: for ADD and for a repair."""

from __future__ import annotations

from shared import steps
from shared.cni import delegate
from shared.net import bridges, gateways, links, veth, wait
from shared.net.wire import IFF_UP
from shared.undo import Undo

CONTAINER_INTERFACE = 2  # its place in the result: bridge, host veth, container veth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from shared.cni.call import Call
    from shared.cni.plugin import Part
    from shared.cni.result import Result
    from shared.net.bridges import Ports
    from shared.net.gateways import Gateway, VlanPort
    from shared.net.netlink import Message, Netlink, Request
    from shared.net.netns import Netns
    from shared.net.owner import Owner

    class Pod(Protocol):
        """A bridge's `Attachment`."""

        call: Call
        keys: Any
        owner: Owner
        bridge: str
        uplinks: list[str]
        trunk: list[int]
        gateway: bool
        vlan_link: str
        vlan_port: VlanPort | None
        frame_filters: set[str]

        @property
        def own_mac(self) -> str:
            """Return the MAC of the pod's interface."""


def find_mtu(host: Netlink, pod: Pod) -> int:
    """Return the MTU in bytes for new links, 0: the kernel's default."""
    mtu = pod.keys.mtu
    return links.smallest_mtu(host, pod.bridge, pod.uplinks) if isinstance(mtu, str) else mtu


def find_uplinks(host: Netlink, pod: Pod) -> list[Message]:
    """Return the uplinks. Raise InvalidConfig for one that cannot be a port of the bridge."""
    if not pod.uplinks:
        return []
    from shared.net import uplinks

    return uplinks.require(host, pod.bridge, pod.uplinks)


def has_to_enable_ipv6(host: Netlink, pod: Pod, mtu: int) -> bool:
    """Return True if the bridge needs IPv6, and the host's sysctls disable it there.

    Raises InternalError if the pod gets an IPv6 address, as far as the IPAM plugin says, and can have none here.
    """
    if not bridges.is_ipv6_off(pod.bridge) and not 0 < mtu < bridges.LEAST_IPV6_MTU:
        return False
    from shared.net import readiness

    if not readiness.has_ipv6(delegate.networks(pod.call)):
        return False
    on_bridge = pod.gateway and not pod.vlan_link
    readiness.require_ipv6(mtu, links.get(host, pod.bridge) if on_bridge else None)
    return on_bridge


def join(
    host: Netlink, undo: Undo, pod: Pod, port: Message, uplinks: list[Message], *, mtu: int, ipv6: bool, mac: str = ""
) -> Message:
    """Make the host's end a port of the bridge, which is created if need be, with `mac` or a random MAC."""
    keys = pod.keys
    steps.begin("bridge")
    return bridges.attach(
        host, undo, pod.bridge, lambda bridge: _join_requests(pod, port["index"], bridge),
        own=ports_of(port, uplinks), mtu=mtu, mac=mac, vlan_filtering=bool(keys.vlan or pod.trunk),
        fdb_max_learned=keys.fdbMaxLearned, promisc=keys.promiscMode, ipv6=ipv6, dad=keys.enabledad,
    )  # fmt: skip


def ports_of(port: Message, uplinks: list[Message]) -> Ports:
    """Return the indexes of a call's own ports of the bridge."""
    return (port["index"], *(link["index"] for link in uplinks))


def _join_requests(pod: Pod, index: int, bridge: Message) -> list[Request]:
    """Return requests that make the host's end a port of the bridge. It comes up last, when its VLANs are set."""
    keys = pod.keys
    requests = bridges.keep_mac_requests(bridge) if pod.gateway else []
    requests += bridges.join_requests(
        index, bridge["index"], alias=pod.owner.alias, hairpin=keys.hairpinMode, isolated=keys.portIsolation
    )
    if keys.vlan or pod.trunk:
        from shared.net import vlans

        requests += vlans.requests(
            index, default=bridges.default_vlan(bridge), native=keys.vlan, trunk=pod.trunk,
            keep_default=keys.preserveDefaultVlan,
        )  # fmt: skip
    if keys.macspoofchk:
        from shared.net import learning

        requests += learning.skip_link_local_requests(bridge)
    return [*requests, links.flags_request(index, IFF_UP, IFF_UP)]


def complete(host: Netlink, undo: Undo, pod: Pod, bridge: Message, uplinks: list[Message], own: Ports) -> None:
    """Set the bridge's limit of learned MACs, and make the uplinks its ports."""
    if pod.keys.fdbMaxLearned is not None:
        from shared.net import learning

        learning.limit(host, undo, bridge, pod.keys.fdbMaxLearned, own)
    if uplinks:
        from shared.net import uplinks as joining

        joining.join(host, undo, bridge, uplinks, own)


def call_iptables(host: Netlink, undo: Undo, pod: Pod, own: Ports) -> None:
    """Have bridged packets traverse iptables, or not, if the configuration has the key."""
    if (on := pod.keys.bridgeNfCallIptables) is not None:
        from shared.net import bridge_netfilter

        bridge_netfilter.switch(host, undo, links.require(host, pod.bridge), on=on, own=own)


def await_ready(host: Netlink, pod: Pod, gateway: Gateway) -> tuple[Message, Message]:
    """Wait until the pod's port forwards, and the gateway reaches pods. Return the port and the bridge."""
    port = (links.require if pod.keys.disableContainerInterface else wait.carrier)(host, pod.owner.host_link)
    bridge = wait.gateway_carrier(host, pod.bridge)
    if pod.gateway:
        gateway.await_ready(bridge)
    return port, bridge


class Parts:
    """The parts of an attachment on the host: frame filters, port and bridge, gateway."""

    def __init__(self, host: Netlink, pod_netns: Netns, link: Message | None, previous: Result, pod: Pod) -> None:
        """Take the pod's link, None if it is missing."""
        self.host = host
        self.pod_netns = pod_netns
        self.link = link
        self.pod = pod
        self.wanted = gateways.of_result(previous, CONTAINER_INTERFACE) if pod.gateway else []
        named = (one.mac for one in previous.interfaces if not one.sandbox and one.name == pod.bridge)
        self.mac = next(named, "")

    def each(self) -> list[Part]:
        """Return the parts in the order in which a repair makes them: no frame passes before it is filtered."""
        port: list[Part] = [(self._port_problems, self._join_again), (self._gateway_problems, self._give_gateway)]
        return [(self._filter_problems, self._filter), *port] if self.pod.frame_filters else port

    def _bridge(self) -> Message | None:
        bridge = links.get(self.host, self.pod.bridge)
        return bridge if bridge and links.kind(bridge) == "bridge" else None

    def _port(self) -> Message | None:
        return veth.find(self.host, self.pod.owner, self.pod_netns, self.link)

    def _filter_problems(self) -> list[str]:
        from shared import frames

        return frames.problems(self.pod.owner, self.pod.own_mac, self.pod.frame_filters)

    def _filter(self) -> None:
        from shared import frames

        frames.install(self.host, Undo(), self.pod.owner, self.pod.own_mac, self.pod.frame_filters)

    def _port_problems(self) -> list[str]:
        from shared.net import bridge_state

        steps.begin("bridge")
        bridge, keys = self._bridge(), self.pod.keys
        if bridge is None:
            return [f"bridge {self.pod.bridge} is missing"]
        return bridge_state.problems(
            self.host, bridge, self._port(), port_name=self.pod.owner.host_link,
            hairpin=keys.hairpinMode, isolated=keys.portIsolation,
            vlans=(keys.vlan, self.pod.trunk, keys.preserveDefaultVlan), uplinks=self.pod.uplinks,
            most_learned=keys.fdbMaxLearned, skip_link_local=keys.macspoofchk, calls_iptables=keys.bridgeNfCallIptables,
        )  # fmt: skip

    def _join_again(self) -> None:
        host, pod, undo, port = self.host, self.pod, Undo(), self._port()
        if port is None:
            return
        uplinks, mtu = find_uplinks(host, pod), find_mtu(host, pod)
        own = ports_of(port, uplinks)
        ipv6 = has_to_enable_ipv6(host, pod, mtu)
        bridge = join(host, undo, pod, port, uplinks, mtu=mtu, ipv6=ipv6, mac=self.mac)
        complete(host, undo, pod, bridge, uplinks, own)
        call_iptables(host, undo, pod, own)
        bridges.note_attached(host, undo, links.require(host, pod.bridge), own)
        wait.gateway_carrier(host, pod.bridge)

    def _gateway_problems(self) -> list[str]:
        bridge = self._bridge()
        return gateways.problems(self.host, bridge, self.wanted, self.pod.vlan_port) if bridge else []

    def _give_gateway(self) -> None:
        from shared.net import announce

        port, bridge, keys = self._port(), self._bridge(), self.pod.keys
        if port is None or bridge is None:
            return
        gateway = gateways.Gateway(self.host, bridge, (port["index"],), self.pod.vlan_port, dad=keys.enabledad)
        gateway.ensure(Undo(), self.wanted, force=keys.forceAddress, several=keys.severalGateways)
        gateway.await_ready(wait.gateway_carrier(self.host, self.pod.bridge))
        if gateway.given:
            announce.Announcement(gateway.link["IFLA_IFNAME"], gateway.link["IFLA_ADDRESS"], gateway.given).send()
