"""bandwidth: limits the rate at which a pod receives (ingress) and sends (egress) on its veth pair's host end."""

from __future__ import annotations

from shared import steps
from shared.cni import config
from shared.cni.config import field, integer, invalid, list_of, prefix, section
from shared.cni.errors import CniError, InternalError, PluginNotAvailable
from shared.cni.plugin import check_and_repair, readable_result, required_result, valid_attachments
from shared.cni.result import Interface
from shared.net import links, netns, peers, renamed, shaping
from shared.net.netlink import Netlink
from shared.net.owner import IFB_PREFIX, Owner, is_ifb
from shared.net.qdisc import Bucket, TrafficControl
from shared.net.shaping import limit_link
from shared.net.wire import IFF_UP
from shared.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.cni.call import Call
    from shared.cni.ip import Prefix
    from shared.cni.plugin import Part
    from shared.cni.result import Result
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.net.shaping import Limit

BYTE_BITS = 8  # the kernel counts whole bytes
SUBNETS = ("shapedSubnets", "unshapedSubnets")
rate = integer(0, 2**64 - 1)
burst = integer(0, BYTE_BITS * (2**32 - 1) - 1)  # the reference's limit: the number of bytes fits into 32 bits


class Bandwidth(config.Config):
    """The limits, in the configuration and from the runtime."""

    ingressRate: int | None = field(rate, None, "bits per second that the pod may receive; 0: no limit")
    ingressBurst: int | None = field(burst, None, "bits that the pod may receive at once; goes with ingressRate")
    egressRate: int | None = field(rate, None, "bits per second that the pod may send; 0: no limit")
    egressBurst: int | None = field(burst, None, "bits that the pod may send at once; goes with egressRate")
    shapedSubnets: list[Prefix] | None = field(
        list_of(prefix), None, "limits traffic to and from these subnets only; excludes unshapedSubnets"
    )
    unshapedSubnets: list[Prefix] | None = field(
        list_of(prefix), None, "traffic to and from these subnets is not limited; excludes shapedSubnets"
    )


class RuntimeConfig(config.Config):
    """The runtime's keys for the capability `bandwidth`."""

    bandwidth: Bandwidth | None = field(
        section(Bandwidth),
        None,
        "limits and subnets from the runtime (capability `bandwidth`), each used if the configuration has none",
    )


class Config(Bandwidth):
    """bandwidth's keys."""

    runtimeConfig: RuntimeConfig | None = field(section(RuntimeConfig), None, "see runtimeConfig")


class Attachment:
    """A call's configuration, validated before anything is touched."""

    def __init__(self, call: Call) -> None:
        keys: Config = Config.read(call.config)
        of_runtime = keys.runtimeConfig.bandwidth if keys.runtimeConfig else None
        limits: Bandwidth = keys
        subnets: Bandwidth = keys
        path, place = "", ""
        if of_runtime and all(getattr(keys, name) is None for name in Bandwidth.fields if name not in SUBNETS):
            limits, path = of_runtime, "runtimeConfig.bandwidth."
        if of_runtime and not keys.shapedSubnets and not keys.unshapedSubnets:
            subnets, place = of_runtime, "runtimeConfig.bandwidth."
        if subnets.shapedSubnets and subnets.unshapedSubnets:
            raise invalid(
                f"{place}shapedSubnets", [str(one) for one in subnets.shapedSubnets], 'excludes "unshapedSubnets"'
            )
        ingress = _read_bucket(limits, path, "ingressRate", "ingressBurst")
        egress = _read_bucket(limits, path, "egressRate", "egressBurst")
        # The subnets are the pod's peers: sources of received packets, destinations of sent ones.
        self.ingress: Limit | None = ingress and _restrict(ingress, subnets, "source")
        self.egress: Limit | None = egress and _restrict(egress, subnets, "destination")


read = Attachment  # for validate, which touches nothing


def _restrict(bucket: Bucket, keys: Bandwidth, field: str) -> Limit:
    """Return the bucket, restricted to packets of the subnets if there are any."""
    chosen = keys.shapedSubnets or keys.unshapedSubnets
    if not chosen:
        return bucket
    from shared.net.subnets import Part

    return Part(bucket, chosen, field, inside=bool(keys.shapedSubnets))


def _read_bucket(limits: Bandwidth, path: str, *names: str) -> Bucket | None:
    """Return the token bucket of a direction, None for no limit. Raise InvalidConfig for a rate or burst alone."""
    values = {name: getattr(limits, name) or 0 for name in names}
    if not any(values.values()):
        return None
    for name, value in values.items():
        if not value:
            (other,) = set(names) - {name}
            raise invalid(f"{path}{other}", values[other], f'needs "{name}" beside it')
        if value < BYTE_BITS:
            raise invalid(f"{path}{name}", value, f"must be at least {BYTE_BITS}, a byte, or 0")
    return Bucket(*values.values())


def add(call: Call, undo: Undo) -> Result:
    """Limit the pod. Return the previous result, with the ifb added if egress is limited."""
    attachment = Attachment(call)
    result = required_result(call)
    pod_netns = netns.open_netns(call.netns)
    host = Netlink()
    owner = Owner(call.network, call.container_id, call.ifname)
    _remove_stale_ifb(host, owner)
    if not attachment.ingress and not attachment.egress:
        return result
    link = _find_host_end(host, owner, pod_netns)
    if link is None:
        raise InternalError(
            f"{call.ifname} in {call.netns} has no other end on the host: bandwidth limits veth pairs only"
        )
    ifb = _limit(host, undo, owner, link, attachment)
    if ifb is not None:
        result.interfaces.append(Interface(ifb["IFLA_IFNAME"], ifb["IFLA_ADDRESS"], mtu=ifb["IFLA_MTU"]))
    return result


def _remove_stale_ifb(host: Netlink, owner: Owner) -> None:
    """Delete the ifb of a former veth pair: the present pair does not redirect packets to it."""
    ifb = links.get(host, owner.ifb)
    link = _find_host_end(host, owner, None) if ifb else None
    if ifb and link and ifb["index"] not in shaping.redirections(TrafficControl(), link["index"]).values():
        links.delete_index(host, ifb["index"])


def _find_host_end(host: Netlink, owner: Owner, pod_netns: Netns | None) -> Message | None:
    """Return the host's end of the pod's veth pair, by this suite's name for it or by the pod's end.

    Raise peers.Strange if it belongs to another attachment.
    """
    link = links.get(host, owner.host_link)
    if link is not None and links.kind(link) == "veth" and not peers.is_strange(link, owner):
        return link
    return peers.of_pod(host, pod_netns, owner) if pod_netns else None


def _find_end_by_ifb(host: Netlink, owner: Owner, pod_netns: Netns | None, ifb: Message | None) -> Message | None:
    """Return the host's end of the pod's veth pair if it redirects packets to the attachment's ifb, else None."""
    if ifb is None or pod_netns is None or pod_netns.is_own:
        return None
    end = peers.attempt(lambda: peers.of_pod(host, pod_netns, owner))
    return end if end and ifb["index"] in shaping.redirections(TrafficControl(), end["index"]).values() else None


def _limit(host: Netlink, undo: Undo, owner: Owner, link: Message, attachment: Attachment) -> Message | None:
    """Set the limits on the host's end of the pod's veth pair. Return the ifb that egress needs, else None."""
    tc = TrafficControl()
    if attachment.ingress:
        steps.begin("ingress")
        limit_link(tc, undo, link, attachment.ingress)
    if not attachment.egress:
        return None
    steps.begin("egress")
    ifb = shaping.add_ifb(host, undo, owner, link)
    shaping.limit_ifb(host, tc, ifb, attachment.egress)
    shaping.redirect(tc, undo, link, ifb)
    return ifb


def _reference_name(owner: Owner) -> str:
    """Return the reference's name for a container's ifb. It has only one for each network and container."""
    from shared.net.reference_names import container_digest

    return IFB_PREFIX + container_digest(owner.network, owner.container_id)[:12]


def _find_ifb(host: Netlink, owner: Owner) -> Message | None:
    """Return the attachment's ifb, or the reference's for its container; None if there is neither."""
    link = links.get(host, owner.ifb) or links.get(host, _reference_name(owner))
    return link if link is not None and links.kind(link) == "ifb" else None


def _read_parts(call: Call) -> tuple[str, list[Part]]:
    """Return CHECK's message, and the limits of both directions."""
    attachment = Attachment(call)
    pod_netns = netns.open_netns(call.netns)
    found = f"interface {call.ifname} of {call.network} is not limited as ADD left it: recreate the pod"
    if not attachment.ingress and not attachment.egress:
        return found, []
    host, tc = Netlink(), TrafficControl()
    owner = Owner(call.network, call.container_id, call.ifname)
    link = _find_host_end(host, owner, pod_netns)
    if link is None:
        return found, [(lambda: [f"{call.ifname} in {call.netns} has no other end on the host"], None)]
    parts: list[Part] = []
    if ingress := attachment.ingress:
        parts.append((lambda: ingress.problems(tc, link), lambda: limit_link(tc, Undo(), link, ingress)))
    if egress := attachment.egress:
        parts.append((
            lambda: _find_egress_problems(host, tc, owner, link, egress),
            lambda: _limit_egress_again(host, tc, owner, link, egress),
        ))  # fmt: skip
    return found, parts


check, repair = check_and_repair(_read_parts)


def _find_egress_problems(host: Netlink, tc: TrafficControl, owner: Owner, link: Message, limit: Limit) -> list[str]:
    ifb = _find_ifb(host, owner)
    if ifb is None:
        problems = [f"ifb {owner.ifb} is missing"]
    else:
        problems = limit.problems(tc, ifb)
        if not ifb["flags"] & IFF_UP:
            problems.append(f"ifb {ifb['IFLA_IFNAME']} is down")
    if not _is_redirected(tc, link, ifb):
        problems.append(f"{link['IFLA_IFNAME']} does not redirect the pod's packets to its ifb")
    return problems


def _is_redirected(tc: TrafficControl, link: Message, ifb: Message | None) -> bool:
    return ifb is not None and ifb["index"] in shaping.redirections(tc, link["index"]).values()


def _limit_egress_again(host: Netlink, tc: TrafficControl, owner: Owner, link: Message, limit: Limit) -> None:
    """Make the missing ones of the ifb, its limit, and the redirection to it."""
    ifb = _find_ifb(host, owner) or shaping.add_ifb(host, Undo(), owner, link)
    if not ifb["flags"] & IFF_UP:
        links.set_up(host, ifb["index"])
    if limit.problems(tc, ifb):
        limit_link(tc, Undo(), ifb, limit)
    if not _is_redirected(tc, link, ifb):
        shaping.remove_stale_redirections(tc, link["index"])
        shaping.redirect(tc, Undo(), link, ifb)


def delete(call: Call) -> None:
    """Delete the limits on the host's end of the veth pair if it exists, and the ifb.

    The namespace's path may lead to another pod by now. A link belongs to the attachment if it has the derived name, if
    the result names it, or if it redirects packets to the ifb. Any other link keeps its limit until it is deleted.
    """
    pod_netns = netns.open_if_there(call.netns)
    steps.begin("del")
    host = Netlink()
    owner = Owner(call.network, call.container_id, call.ifname)
    owners = (owner, *renamed.former_owners(owner, pod_netns))
    ifb = next(filter(None, (_find_ifb(host, one) for one in owners)), None)
    link = next(filter(None, (_find_host_end(host, one, None) for one in owners)), None)
    link = link or peers.of_result(host, owner, readable_result(call)) or _find_end_by_ifb(host, owner, pod_netns, ifb)
    if link is not None:
        # Delete the redirection before the ifb: packets redirected to a deleted ifb are dropped.
        shaping.remove_limits(TrafficControl(), link["index"], {ifb["index"]} if ifb else set())
    if ifb is not None:
        links.delete_index(host, ifb["index"])


def gc(call: Call) -> None:
    """Delete the ifbs of this network's attachments that are no longer valid."""
    from shared.net.left_behind import is_left_behind

    valid = {Owner(call.network, *one).ifb for one in valid_attachments(call)}
    steps.begin("del")

    def is_doomed(link: Message) -> bool:
        name = link["IFLA_IFNAME"]
        if links.kind(link) != "ifb" or not is_ifb(name, call.network) or name in valid:
            return False
        return is_left_behind(link, call.network)

    links.delete_all(Netlink(), is_doomed)


def status(call: Call) -> None:
    """Raise PluginNotAvailable if the kernel cannot set the limits. Try them out in a temporary namespace."""
    attachment = Attachment(call)
    if not attachment.ingress and not attachment.egress:
        return
    try:
        with netns.create_temporary():
            host = Netlink()
            _limit(host, Undo(), Owner(call.network, "status", "lo"), links.require(host, "lo"), attachment)
    except (CniError, OSError) as error:
        raise PluginNotAvailable("the kernel cannot limit the rate of a pod", str(error)) from None
