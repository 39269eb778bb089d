"""ipvlan: an interface of the pod with the MAC of a link of the host, told from others by its addresses."""

from __future__ import annotations

import errno

from shared import steps
from shared.cni.config import choice, field, invalid
from shared.cni.plugin import previous_result
from shared.net import links, placements, sublinks
from shared.net.netlink import Netlink
from shared.pod import attachment, master, removal
from shared.pod.attachment import Attachment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.cni.call import Call
    from shared.cni.result import Result
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.pod.below import Master
    from shared.undo import Undo

KIND = "ipvlan"
POD_INTERFACE = 0  # its place in the result
MODES = {"l2": 0, "l3": 1, "l3s": 2}  # enum ipvlan_mode in linux/if_link.h
FLAGS = {"bridge": 0, "private": 1, "vepa": 2}  # IPVLAN_F_* in linux/if_link.h


class Config(attachment.Keys, master.MasterKeys):
    """ipvlan's keys."""

    mode: str = field(choice(*MODES), "l2", "l2: the pod's frames pass; l3, l3s: the host routes its packets")
    flag: str = field(
        choice(*FLAGS), "bridge", "bridge: pods on one master reach each other; private: never; vepa: through a switch"
    )


def read(call: Call) -> Attachment:
    """Return a call's configuration. Raise InvalidConfig before anything is touched."""
    pod = Attachment(call, Config)
    key, mac = attachment.wanted_mac(call, attachment.MacKeys.read(call.config))
    if mac:
        raise invalid(key, mac, "cannot be set: an ipvlan has its master's MAC; macvlan gives each pod its own")
    if pod.keys.mode != "l2" and pod.ipam == "dhcp":
        raise invalid("mode", pod.keys.mode, 'excludes the IPAM plugin dhcp, whose broadcasts pass in mode "l2" alone')
    return pod


def add(call: Call, undo: Undo) -> Result:
    """Attach the pod: an ipvlan of the master, addresses by IPAM, routes. Answer when packets can pass."""
    from shared.net import rules_lock
    from shared.pod.below import Master

    pod = read(call)
    pod_netns = pod.open_netns()
    steps.begin("link")
    below = Master(Netlink(), pod, pod_netns, KIND)
    with rules_lock.hold(placements.DIRECTORY):
        _require_same_mode(pod, below)
        below.make(undo, {"IFLA_IPVLAN_MODE": MODES[pod.keys.mode], "IFLA_IPVLAN_FLAGS": FLAGS[pod.keys.flag]})
    result = pod.assign(undo, interface=POD_INTERFACE, given=previous_result(call))
    if pod.keys.mode != "l2":
        _route_through_link(result)
    steps.begin("pod")
    link = _configure(pod_netns, call.ifname, result, below)
    own = attachment.interface(link, call.netns)
    if pod.ipam:
        return pod.complete(result, own)
    result.interfaces = [own]  # it has the addresses of the result before
    return result


def _require_same_mode(pod: Attachment, below: Master) -> None:
    """Raise InvalidConfig if the master's other links have another mode or flag: a new link would change theirs."""
    from shared.net import uppers

    # the kernel makes a link on an ipvlan on the link below that one, which is in another namespace here
    path = below.pod_netns.path if below.in_pod else ""
    own = uppers.Upper(below.link, path) if links.kind(below.link) == KIND else None
    other = own or below.find_upper(lambda _, link: links.kind(link) == KIND, KIND)
    if other is None:
        return
    for key, name in _names(other.link).items():
        wanted = getattr(pod.keys, key)
        if name != wanted:
            reason = f"differs from {name} of {other}: all ipvlans of {below.name} have one {key}, also those in pods"
            raise invalid(key, wanted, reason)


def _names(link: Message) -> dict[str, str]:
    """Return the link's mode and flag as the configuration names them."""
    data = sublinks.read_data(link)
    numbers = {"mode": (MODES, data.get("IFLA_IPVLAN_MODE", 0)), "flag": (FLAGS, data.get("IFLA_IPVLAN_FLAGS", 0))}
    return {
        key: next((one for one in names if names[one] == number), str(number))
        for key, (names, number) in numbers.items()
    }


def _route_through_link(result: Result) -> None:
    """Drop the gateways: in these modes the pod's link resolves no neighbours, and the host routes each packet."""
    for ip in result.ips:
        ip.gateway = None
    for route in result.routes:
        route.gw = None


def _configure(pod_netns: Netns, ifname: str, result: Result, below: Master) -> Message:
    """Give the link its addresses and routes. Raise InternalError that names the pod that has one of the addresses."""
    from shared.net import addresses, uppers
    from shared.pod import inside

    own = [ip.address.address for ip in result.ips]

    def configure() -> Message:
        with pod_netns:
            within = Netlink()
            # the kernel announces the addresses that a link has when it comes up, and no MAC can be set for that
            links.set_down(within, links.require(within, ifname)["index"])
        # its operational state stays unknown
        refused = False if result.ips else None
        return inside.configure(pod_netns, ifname, result, dad=False, has_carrier=False, advertisements=refused)[0]

    def has_address(within: Netlink, link: Message) -> bool:
        if links.kind(link) != KIND or sublinks.is_own(link, below.pod.owner, KIND):
            return False
        return any(prefix.address in own for prefix in addresses.of_link(within, link["index"]))

    return uppers.when_free(
        configure, errno.EADDRINUSE, lambda: below.find_upper(has_address),
        f"one of the addresses {', '.join(map(str, own))}",
        "an address is for one ipvlan of a link",
    )  # fmt: skip


def check(call: Call) -> None:
    """Raise InternalError with all differences from the state that ADD left."""
    pod = read(call)
    wanted = {"mode": pod.keys.mode, "flag": pod.keys.flag}

    def find_differences(link: Message) -> list[str]:
        where = f"link {call.ifname} in {call.netns}"
        return [
            f"{where} has {key} {name}, not {wanted[key]}" for key, name in _names(link).items() if name != wanted[key]
        ]

    master.check(pod, KIND, find_differences)


def delete(call: Call) -> None:
    """Remove the link, then release the addresses. Neither the master nor the pod needs to exist."""
    master.delete(call, KIND)


def gc(call: Call) -> None:
    """Remove the remains of this network's attachments that are not valid any more."""
    removal.collect(call, None)


def status(call: Call) -> None:
    """Raise PluginNotAvailable if an ADD could not succeed, or nothing would pass."""
    master.status(read(call), KIND)
