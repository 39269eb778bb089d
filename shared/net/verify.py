"""CHECK a link inside the pod: compare its MAC, state, addresses and routes with the result."""

from __future__ import annotations

from shared.net import addresses, routes
from shared.net.wire import IFF_UP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.cni.call import Call
    from shared.cni.result import IP, Result
    from shared.net.netlink import Message, Netlink


def link(message: Message, call: Call, problems: list[str], *, mac: str, is_up: bool) -> None:
    """Add to `problems` a MAC that differs from `mac` (empty: any), and a link that is down but should be up."""
    name = message["IFLA_IFNAME"]
    if mac and message.get("IFLA_ADDRESS") != mac:
        problems.append(f"link {name} has MAC {message.get('IFLA_ADDRESS', 'none')}, not {mac}")
    if is_up and not message["flags"] & IFF_UP:
        problems.append(f"link {name} is down in {call.netns}")


def layer_3(inside: Netlink, message: Message, call: Call, previous: Result, problems: list[str]) -> None:
    """Add to `problems` the result's addresses and routes that the link does not have."""
    name, index = message["IFLA_IFNAME"], message["index"]
    ours = own_ips(previous, call)
    have = addresses.found(inside, index, {ip.address for ip in ours})
    problems += [f"address {ip.address} is missing on {name}" for ip in ours if ip.address not in have]
    families = {ip.address.version for ip in ours}
    wanted = [(route, (route.dst.network, route.gw)) for route in previous.routes if route.dst.version in families]
    present = routes.found(inside, index, {key for _, key in wanted})
    problems += [
        f"route to {route.dst}{f' via {route.gw}' if route.gw else ''} is missing in {call.netns}"
        for route, key in wanted
        if key not in present
    ]


def own_mac(previous: Result, call: Call) -> str:
    """Return the MAC of the pod's interface in the result, empty if it has none."""
    own = (one for one in previous.interfaces if one.sandbox and one.name == call.ifname)
    return next((one.mac.lower() for one in own), "")


def own_ips(previous: Result, call: Call) -> list[IP]:
    """Return this attachment's addresses in the result. In a chain, it may have addresses of other interfaces."""
    return [ip for ip in previous.ips if _is_ours(ip, previous, call)]


def _is_ours(ip: IP, previous: Result, call: Call) -> bool:
    if ip.interface is None:
        return True
    interface = previous.interfaces[ip.interface]
    return bool(interface.sandbox) and interface.name == call.ifname
