"""bandwidth: limits how fast a pod receives (ingress) and sends (egress), on the host's end of its veth pair."""

from __future__ import annotations

from shared import steps
from shared.cni import config
from shared.cni.config import field, integer, invalid, list_of, prefix, section
from shared.cni.errors import CniError, InternalError, InvalidConfig, PluginNotAvailable
from shared.cni.plugin import previous_result, readable_result, valid_attachments
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
    from shared.cni.result import Result
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.net.shaping import Limit

BYTE = 8  # bits: the kernel counts whole bytes
SUBNETS = ("shapedSubnets", "unshapedSubnets")
rate = integer(0, 2**64 - 1)
burst = integer(0, BYTE * (2**32 - 1) - 1)  # its bytes are less than what 32 bits hold, as in the reference


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
    """What the runtime adds for the `bandwidth` capability."""

    bandwidth: Bandwidth | None = field(
        section(Bandwidth),
        None,
        "the same (capability `bandwidth`): limits if the configuration has none, subnets if it has none",
    )


class Config(Bandwidth):
    """bandwidth's keys."""

    runtimeConfig: RuntimeConfig | None = field(section(RuntimeConfig), None, "see runtimeConfig")


class Wanted:
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
        ingress = _bucket(limits, path, "ingressRate", "ingressBurst")
        egress = _bucket(limits, path, "egressRate", "egressBurst")
        # The subnets are those of the pod's peers.
        self.ingress: Limit | None = ingress and _of_subnets(ingress, subnets, "source")
        self.egress: Limit | None = egress and _of_subnets(egress, subnets, "destination")


read = Wanted  # for validate, which touches nothing


def _of_subnets(bucket: Bucket, keys: Bandwidth, field: str) -> Limit:
    """Return the bucket itself, or its limit of a part of the packets."""
    chosen = keys.shapedSubnets or keys.unshapedSubnets
    if not chosen:
        return bucket
    from shared.net.subnets import Part

    return Part(bucket, chosen, field, inside=bool(keys.shapedSubnets))


def _bucket(limits: Bandwidth, path: str, *names: str) -> Bucket | None:
    """The token bucket of a direction, None where it has no limit; raises InvalidConfig for half of one."""
    values = {name: getattr(limits, name) or 0 for name in names}
    if not any(values.values()):
        return None
    for name, value in values.items():
        if not value:
            (other,) = set(names) - {name}
            raise invalid(f"{path}{other}", values[other], f'needs "{name}" beside it')
        if value < BYTE:
            raise invalid(f"{path}{name}", value, f"must be at least {BYTE}, a byte, or 0")
    return Bucket(*values.values())


def add(call: Call, undo: Undo) -> Result:
    """Limits the pod; the result is that of the plugin before, with the ifb where the pod's sending is limited."""
    wanted = Wanted(call)
    result = previous_result(call)
    if result is None:
        raise InvalidConfig(
            'invalid configuration: "prevResult" is required: bandwidth limits what another plugin made'
        )
    pod_netns = netns.open_netns(call.netns)
    host = Netlink()
    owner = Owner(call.network, call.container_id, call.ifname)
    _remove_stale_ifb(host, owner)
    if not wanted.ingress and not wanted.egress:
        return result
    link = _host_end(host, owner, pod_netns)
    if link is None:
        raise InternalError(
            f"{call.ifname} in {call.netns} has no other end on the host: bandwidth limits veth pairs only"
        )
    ifb = _limit(host, undo, owner, link, wanted)
    if ifb is not None:
        result.interfaces.append(Interface(ifb["IFLA_IFNAME"], ifb["IFLA_ADDRESS"], mtu=ifb["IFLA_MTU"]))
    return result


def _remove_stale_ifb(host: Netlink, owner: Owner) -> None:
    """Remove the ifb of a veth pair that was lost with its namespace: the one that is there now does not lead to it."""
    ifb = links.get(host, owner.ifb)
    link = _host_end(host, owner, None) if ifb else None
    if ifb and link and ifb["index"] not in shaping.redirections(TrafficControl(), link["index"]).values():
        links.delete(host, owner.ifb)


def _host_end(host: Netlink, owner: Owner, pod_netns: Netns | None) -> Message | None:
    """Return the host's end of the pod's veth pair: of the name that this suite gives it, or found from the pod's.

    Raises peers.Strange if that is another attachment's.
    """
    link = links.get(host, owner.host_link)
    if link is not None and links.kind(link) == "veth" and not peers.is_strange(link, owner):
        return link
    return peers.of_pod(host, pod_netns, owner) if pod_netns else None


def _end_by_ifb(host: Netlink, owner: Owner, pod_netns: Netns | None, ifb: Message | None) -> Message | None:
    """Return the host's end that leads to the attachment's ifb, None if the path leads to a pod whose end does not."""
    if ifb is None or pod_netns is None or pod_netns.is_own:
        return None
    end = peers.attempt(lambda: peers.of_pod(host, pod_netns, owner))
    return end if end and ifb["index"] in shaping.redirections(TrafficControl(), end["index"]).values() else None


def _limit(host: Netlink, undo: Undo, owner: Owner, link: Message, wanted: Wanted) -> Message | None:
    """Sets the limits on the host's end of the pod's veth pair; the ifb, where one is needed."""
    tc = TrafficControl()
    if wanted.ingress:
        steps.begin("ingress")
        limit_link(tc, undo, link, wanted.ingress)
    if not wanted.egress:
        return None
    steps.begin("egress")
    ifb = shaping.add_ifb(host, undo, owner, link)
    limit_link(tc, undo, ifb, wanted.egress)
    shaping.redirect(tc, undo, link, ifb)
    return ifb


def _reference_ifb(owner: Owner) -> str:
    """The name that the reference gives a container's ifb: it has one for each network and container only."""
    from shared.net.reference_names import container_digest

    return IFB_PREFIX + container_digest(owner.network, owner.container_id)[:12]


def _ifb(host: Netlink, owner: Owner) -> Message | None:
    """The attachment's ifb, or the one that the reference made for its container."""
    link = links.get(host, owner.ifb) or links.get(host, _reference_ifb(owner))
    return link if link is not None and links.kind(link) == "ifb" else None


def check(call: Call) -> None:
    """Raises InternalError that names every limit that is missing or another one."""
    wanted = Wanted(call)
    pod_netns = netns.open_netns(call.netns)
    if not wanted.ingress and not wanted.egress:
        return
    host = Netlink()
    owner = Owner(call.network, call.container_id, call.ifname)
    problems: list[str] = []
    tc = TrafficControl()
    link = _host_end(host, owner, pod_netns)
    if link is None:
        problems.append(f"{call.ifname} in {call.netns} has no other end on the host")
    elif wanted.ingress:
        problems += wanted.ingress.problems(tc, link)
    if wanted.egress:
        ifb = _ifb(host, owner)
        if ifb is None:
            problems.append(f"ifb {owner.ifb} is missing")
        else:
            problems += wanted.egress.problems(tc, ifb)
            if not ifb["flags"] & IFF_UP:
                problems.append(f"ifb {ifb['IFLA_IFNAME']} is down")
        if link is not None and (ifb and ifb["index"]) not in shaping.redirections(tc, link["index"]).values():
            problems.append(f"nothing leads what comes in at {link['IFLA_IFNAME']} through the ifb")
    if problems:
        raise InternalError(f"{call.network} {call.ifname} is not limited as it was", "; ".join(problems))


def delete(call: Call) -> None:
    """End the limits on the host's end of the veth pair, if that is there, and remove the ifb.

    The path can lead to another pod by now. A link is the attachment's if it has the derived name, if the result names
    it, or if it leads to the ifb. The limit of any other link goes with that link.
    """
    pod_netns = netns.open_if_there(call.netns)
    steps.begin("del")
    host = Netlink()
    owner = Owner(call.network, call.container_id, call.ifname)
    owners = (owner, *renamed.former(owner, pod_netns))
    ifb = next(filter(None, (_ifb(host, one) for one in owners)), None)
    link = next(filter(None, (_host_end(host, one, None) for one in owners)), None)
    link = link or peers.of_result(host, owner, readable_result(call)) or _end_by_ifb(host, owner, pod_netns, ifb)
    if link is not None:
        # Release the link before the ifb goes: packets that are led to a deleted ifb are dropped.
        shaping.release(TrafficControl(), link["index"], {ifb["index"]} if ifb else set())
    if ifb is not None:
        links.delete(host, ifb["IFLA_IFNAME"])


def gc(call: Call) -> None:
    """Removes the ifbs of this network's attachments that are not valid any more."""
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
    """Raises PluginNotAvailable where the kernel cannot limit as it should: tried out on a namespace that goes away."""
    wanted = Wanted(call)
    if not wanted.ingress and not wanted.egress:
        return
    try:
        with netns.throw_away():
            host = Netlink()
            _limit(host, Undo(), Owner(call.network, "status", "lo"), links.require(host, "lo"), wanted)
    except (CniError, OSError) as error:
        raise PluginNotAvailable("the kernel cannot limit a pod", str(error)) from None
