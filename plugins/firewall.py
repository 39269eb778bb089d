"""firewall: lets through what a pod sends and the replies to it, and keeps pods apart if asked to."""

from __future__ import annotations

from shared import steps
from shared.cni import config
from shared.cni.config import choice, field
from shared.cni.errors import (
    CniError,
    InternalError,
    InvalidConfig,
    InvalidNetns,
    PluginNotAvailable,
)
from shared.cni.plugin import each, previous_result, valid_attachments
from shared.net.owner import Owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from typing import Any

    from shared.cni.call import Call
    from shared.cni.ip import Address
    from shared.cni.result import Result
    from shared.dbus.firewalld import Firewalld
    from shared.iptables.firewall import Iptables
    from shared.net import claims
    from shared.nft.admission import Admission
    from shared.undo import Undo

NFTABLES, IPTABLES, FIREWALLD = "nftables", "iptables", "firewalld"
ZONE_NAME_LENGTH = 64  # firewalld has 17 and fewer, by its version
TAKEN_NAMES = ("ACCEPT", "DROP", "QUEUE", "RETURN", "INPUT", "FORWARD", "OUTPUT", "CNI-FORWARD")


def _admin_chain(value: Any) -> str:
    name: str = config.chain_name.parse(value)
    if name in TAKEN_NAMES:
        raise ValueError("is a name that iptables or this plugin uses itself")
    return name


admin_chain = config.Kind(_admin_chain, config.chain_name.schema, empty_is_unset=True)


def _zone_name(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or " " in value or len(value) > ZONE_NAME_LENGTH:
        raise ValueError(f"must be 1 to {ZONE_NAME_LENGTH} printable characters, and no blank")
    return value


zone_name = config.Kind(_zone_name, {"type": "string", "maxLength": ZONE_NAME_LENGTH}, empty_is_unset=True)


class Config(config.Config):
    """firewall's keys."""

    backend: str = field(
        choice(NFTABLES, IPTABLES, FIREWALLD),
        "",
        "what lets pods through; by default firewalld where it runs, else iptables where its FORWARD chain drops or has"
        " rules, else nftables",
    )
    iptablesAdminChainName: str = field(
        admin_chain, "CNI-ADMIN", "with iptables: chain of the administrator's, which comes before the pods' rules"
    )
    firewalldZone: str = field(
        zone_name, "trusted", "with firewalld: zone of which pods are sources; it must be one that lets through"
    )
    ingressPolicy: str = field(
        choice("open", "same-bridge", "isolated"),
        "open",
        "from where the pod can be reached; same-bridge: not from other bridges whose pods have a policy; isolated:"
        " neither from other pods of its bridge",
    )


class Wanted:
    """A call's configuration, validated before anything is touched."""

    def __init__(self, call: Call) -> None:
        self.keys: Config = Config.read(call.config)
        self.owner = Owner(call.network, call.container_id, call.ifname)
        self.keeps_apart = self.keys.ingressPolicy != "open"

    def by_others(self) -> Firewalld | Iptables | None:
        """What lets pods through here other than nf_tables, which does where there is none."""
        backend, variant = self.keys.backend, None
        if not backend:
            backend, variant = in_use()
        if backend == FIREWALLD:
            from shared.dbus.firewalld import Firewalld

            return Firewalld(self.keys.firewalldZone)
        if backend == IPTABLES:
            from shared.iptables import variants
            from shared.iptables.firewall import Iptables

            return Iptables(variants.in_use() if variant is None else variant, self.keys.iptablesAdminChainName)
        return None

    def admission(self, result: Result, *, by_nftables: bool) -> Admission | None:
        """What nf_tables has to do; None where that is nothing."""
        if not by_nftables and not self.keeps_apart:
            return None
        from shared.nft.admission import Admission

        bridge, port = _place(result) if self.keeps_apart else ("", "")
        port = port if self.keys.ingressPolicy == "isolated" else ""
        return Admission(self.owner, _addresses(result), is_admitted=by_nftables, bridge=bridge, port=port)


def in_use() -> tuple[str, str]:
    """The backend that a configuration without one gets on this host now, and the variant of iptables."""
    from shared.dbus import firewalld

    if firewalld.is_running():
        return FIREWALLD, ""
    from shared.iptables import variants

    variant = variants.in_use()
    return IPTABLES if variant else NFTABLES, variant


def _addresses(result: Result) -> list[Address]:
    return list(dict.fromkeys(ip.address.address for ip in result.ips))


def _place(result: Result) -> tuple[str, str]:
    """The bridge on the host and the pod's port of it, whatever their places in the result."""
    from shared.net import links
    from shared.net.netlink import Netlink

    steps.begin("bridge")
    host = Netlink()
    for interface in result.interfaces:
        link = None if interface.sandbox else links.get(host, interface.name)
        # a port whose other end is elsewhere: a bridge's gateway port for a VLAN has both ends here
        if link is None or "IFLA_LINK_NETNSID" not in link:
            continue
        master = links.by_index(host, link["IFLA_MASTER"]) if link.get("IFLA_MASTER") else None
        if master is not None and links.kind(master) == "bridge":
            return master["IFLA_IFNAME"], link["IFLA_IFNAME"]
    raise InvalidConfig(
        'invalid configuration: "ingressPolicy" needs a pod on a bridge: "prevResult" has no interface that is a port'
    )


def add(call: Call, undo: Undo) -> Result:
    """Admits the pod's addresses; the result is that of the plugin before."""
    wanted = Wanted(call)
    result = previous_result(call)
    if result is None:
        raise InvalidConfig('invalid configuration: "prevResult" is required: firewall is for what another plugin made')
    others = wanted.by_others()
    admission = wanted.admission(result, by_nftables=others is None)
    addresses = _addresses(result)
    _evict(wanted.owner, addresses, by_nftables=others is None)
    if admission:
        steps.begin(NFTABLES)
        admission.add(undo)
    if others and addresses:
        steps.begin(others.name)
        others.add(undo, wanted.owner, addresses)
    return result


def _evict(owner: Owner, addresses: list[Address], *, by_nftables: bool) -> None:
    """Remove what nf_tables has under the addresses from pods that had them before, whatever this one gets."""
    from shared.net import filter_tables

    if by_nftables or filter_tables.INET in filter_tables.present():
        from shared.nft import admission

        admission.evict(owner, addresses)


def check(call: Call) -> None:
    """Raises InternalError that names everything that is not as ADD left it."""
    wanted = Wanted(call)
    result = previous_result(call)
    if result is None:
        return
    others = wanted.by_others()
    admission = wanted.admission(result, by_nftables=others is None)
    problems = admission.problems() if admission else []
    if others:
        problems += others.problems(_addresses(result))
    if problems:
        raise InternalError(f"{call.network} {call.ifname} is not admitted as it was", "; ".join(problems))


def delete(call: Call) -> None:
    """Removes what ADD made, by whichever backend, and for the result's addresses what the reference's ADD made."""
    own = Owner(call.network, call.container_id, call.ifname)
    try:
        result = previous_result(call)
    except CniError:  # what cannot be read names no address
        result = None
    from shared.iptables import firewall
    from shared.net import claims
    from shared.nft import admission

    addresses = _addresses(result) if result else ()
    take = _from_firewalld(_zone(call))

    def end(owner: Owner) -> None:
        each(
            lambda: admission.remove(owner),
            lambda: claims.end(owner, addresses, firewall.remove, take),
        )

    each(lambda: end(own), lambda: each(*(lambda owner=owner: end(owner) for owner in _former(own, call.netns))))


def _former(owner: Owner, path: str) -> list[Owner]:
    """Return the attachment under the name that its network had, as renamed.former does."""
    from shared.net import liveness

    if not path or liveness.is_link(owner.host_link):
        return []
    from shared.net import netns, renamed

    try:
        pod_netns = netns.open_if_there(path)
    except InvalidNetns:  # the host's own, which is no pod's: nothing is looked for there
        return []
    return renamed.former(owner, pod_netns)


def _from_firewalld(zone: str) -> claims.Taker:
    """What takes addresses out of a zone; firewalld's part is loaded when there are any."""

    def take(addresses: AbstractSet[Address], note: claims.Note) -> None:
        from shared.dbus.firewalld import Firewalld

        Firewalld(zone).remove(addresses, note)

    return take


def _zone(call: Call) -> str:
    """The zone that the reference's ADD can have used; empty where the configuration has another backend."""
    try:
        keys: Config = Config.read(call.config)
    except InvalidConfig:
        return ""
    return keys.firewalldZone if keys.backend in ("", FIREWALLD) else ""


def gc(call: Call) -> None:
    """Removes what this network's attachments that are not valid any more have left, by whichever backend."""
    valid = valid_attachments(call)
    from shared.iptables import firewall
    from shared.net import claims
    from shared.nft import admission

    each(
        lambda: admission.collect(call.network, valid),
        lambda: claims.collect(call.network, valid, firewall.remove, _from_firewalld("")),
    )


def status(call: Call) -> None:
    """Raises PluginNotAvailable where an ADD could not succeed."""
    wanted = Wanted(call)
    try:
        others = wanted.by_others()
        if others:
            others.try_out()
        if others is None or wanted.keeps_apart:
            from shared.nft import admission

            admission.try_out(is_isolated=wanted.keys.ingressPolicy == "isolated")
    except CniError as error:
        raise PluginNotAvailable(f"the backend cannot be used: {error.msg}", error.details) from None
