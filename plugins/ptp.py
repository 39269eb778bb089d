"""ptp: a veth pair between the pod and the host, which routes to the pod and is its gateway."""

from __future__ import annotations

from shared import steps
from shared.cni import delegate
from shared.cni.errors import InternalError, InvalidNetns
from shared.net import forwarding, sysctl, veth, wait
from shared.net.netlink import Netlink
from shared.net.wire import IFF_UP
from shared.pod import attachment, gateway, inside, removal
from shared.pod.attachment import Attachment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.cni.call import Call
    from shared.cni.plugin import Part
    from shared.cni.result import IP, Result
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.undo import Undo

CONTAINER_INTERFACE = 1  # its place in the result: host veth, container veth


class Config(attachment.Keys, attachment.MasqueradeKeys, attachment.MacKeys):
    """ptp's keys."""


def read(call: Call) -> Attachment:
    """Return a call's configuration. Raise InvalidConfig before anything is touched."""
    return Attachment(call, Config)


def add(call: Call, undo: Undo) -> Result:
    """Attach the pod: a veth pair, addresses by IPAM, routes on both ends. Answer when packets can pass."""
    pod = read(call)
    pod_netns = pod.open_netns()
    if pod_netns.is_own:  # CNI_NETNS_OVERRIDE: each end's gateway would be a local address, which the kernel refuses
        raise InvalidNetns(f"CNI_NETNS {call.netns!r} is the host's own network namespace; ptp routes between two")
    host = Netlink()
    steps.begin("veth")
    port = veth.make(host, undo, pod.owner, pod_netns, mac=pod.own_mac, mtu=pod.keys.mtu)
    result = pod.assign(undo, interface=CONTAINER_INTERFACE)
    _require_gateways(pod, result.ips)
    steps.begin("gateway")
    _connect_host(host, pod, port, result.ips)
    steps.begin("pod")
    link, _ = inside.configure(
        pod_netns, call.ifname, result, dad=False,
        before_routes=lambda pod, link: gateway.replace_routes(pod, link, result.ips),
    )  # fmt: skip
    steps.begin("gateway")
    pod.masquerade(undo, result)
    port = _await_host(host, port, result.ips)
    steps.begin("result")
    result.interfaces = [attachment.interface(port), attachment.interface(link, call.netns)]
    return result


def _require_gateways(pod: Attachment, ips: list[IP]) -> None:
    """Raise InternalError for an address without a gateway that the host's end can have."""
    for ip in ips:
        if ip.gateway is None or ip.gateway.version != ip.address.version or ip.gateway == ip.address.address:
            raise InternalError(
                f'IPAM plugin {pod.ipam} returned {ip.address} with "gateway" {ip.gateway or "missing"}; ptp needs one'
                " of the same family, other than the pod's address, for the host's end of the veth pair",
                'set a gateway in "ipam"',
            )


def _connect_host(host: Netlink, pod: Attachment, port: Message, ips: list[IP]) -> None:
    """Bring the host's end up, with the gateways' addresses and a route to each of the pod's."""
    index, name = port["index"], port["IFLA_IFNAME"]
    if any(ip.address.version == 6 for ip in ips):
        if sysctl.read(f"ipv6/conf/{name}/disable_ipv6") is None:
            from shared.net import readiness

            raise InternalError("; ".join(readiness.ipv6(port["IFLA_MTU"])) or f"link {name} has no IPv6")
        sysctl.ensure(f"ipv6/conf/{name}/disable_ipv6", "0")
        # The kernel asks for the pod with the link-local address, and only once duplicate address detection is over.
        sysctl.prefer(f"ipv6/conf/{name}/accept_dad", "0")
    host.batch([veth.up_request(index, pod.owner), *gateway.end_requests(index, ips)])


def _await_host(host: Netlink, port: Message, ips: list[IP]) -> Message:
    """Wait until packets pass through the host's end, and let the host forward them. Return the end."""
    port = wait.carrier(host, port["IFLA_IFNAME"])
    if any(ip.address.version == 6 for ip in ips):
        wait.link_local_settled(host, port["index"])
        wait.addresses_local(host, port["index"], [one.address for one in gateway.addresses_of(ips)])
    forwarding.ensure(host, gateway.addresses_of(ips))  # last: a call that fails leaves it as it was
    return port


def check(call: Call) -> None:
    """Raise InternalError that names all differences from the state that ADD left."""
    pod = read(call)
    pod.check("veth", lambda *there: _find_parts(pod, *there))


def repair(call: Call) -> list[str]:
    """Make again the addresses, routes and rules on the host that CHECK would miss. Return its texts for these."""
    pod = read(call)
    return pod.repair("veth", lambda *there: _find_parts(pod, *there))


def _find_parts(pod: Attachment, host: Netlink, pod_netns: Netns, link: Message | None, previous: Result) -> list[Part]:
    """Return the pod's routes, which only an ADD makes, and the host's end."""
    from shared.net import verify

    own = verify.own_ips(previous, pod.call)

    def compare_routes() -> list[str]:
        return gateway.route_problems(pod_netns, link, own) if link else []

    def compare_host() -> list[str]:
        steps.begin("gateway")
        port = veth.find(host, pod.owner, pod_netns, link)
        problems = forwarding.problems(gateway.addresses_of(own))
        if port is None:
            return [*problems, f"the host's end of the veth pair, {pod.owner.host_link}, is missing"]
        return problems + gateway.end_problems(host, port, own)

    def connect_again() -> None:
        port = veth.find(host, pod.owner, pod_netns, link)
        if port is not None:
            _connect_host(host, pod, port, own)
            forwarding.ensure(host, gateway.addresses_of(own))
            if link and link["flags"] & IFF_UP:  # else the pair has no carrier
                _await_host(host, port, own)

    return [(compare_routes, None), (compare_host, connect_again)]


def delete(call: Call) -> None:
    """Remove the pod's masquerading and the veth pair, then release the addresses."""
    removal.delete(call, veth.remove, lambda host, owner, netns: veth.remove_foreign(host, call, owner, netns))


def gc(call: Call) -> None:
    """Remove what this network's attachments that are not valid any more have left."""
    removal.collect(call, veth.is_left_behind)


def status(call: Call) -> None:
    """Raise PluginNotAvailable if an ADD could not succeed."""
    pod = read(call)

    def look() -> list[str]:
        from shared.net import readiness

        sysctl.require_visible()
        networks = delegate.networks(call)
        problems = readiness.ipv6(pod.keys.mtu) if readiness.has_ipv6(networks) else []
        return [*problems, *readiness.forwarding(networks)]

    pod.status(look)
