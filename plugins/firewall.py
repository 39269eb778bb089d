"""firewall: lets through what a pod sends and the replies to it, and keeps pods apart if asked to.

What is admitted where is noted (shared/admission/claims.py): CHECK looks there, and if another place decides by now, or
the rules were flushed, the next ADD or GC of the network admits all of its living pods there.
"""

from __future__ import annotations

from shared import steps
from shared.admission import claims
from shared.admission.backends import end as end_admission
from shared.admission.backends import from_firewalld
from shared.admission.claims import FIREWALLD, IPTABLES, NFTABLES
from shared.cni import config
from shared.cni.config import boolean, choice, field
from shared.cni.errors import (
    CniError,
    InternalError,
    InvalidConfig,
    PluginNotAvailable,
)
from shared.cni.plugin import each, previous_result, readable_result, valid_attachments
from shared.net import netns
from shared.net.owner import Owner
from shared.net.turns import turn
from shared.undo import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from typing import Any

    from shared.admission.claims import Claim
    from shared.admission.firewalld import Firewalld
    from shared.admission.iptables import Iptables
    from shared.cni.call import Call
    from shared.cni.ip import Address
    from shared.cni.result import Result
    from shared.net.netlink import Message, Netlink
    from shared.undo import Undo

    Place = Firewalld | Iptables

IN_NFTABLES = {"backend": NFTABLES}  # as notes say it
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
        admin_chain,
        "CNI-ADMIN",
        "with iptables: chain of the administrator's, which comes before the pods' rules",
        only_with=(("backend", ("", IPTABLES)),),
    )
    firewalldZone: str = field(
        zone_name,
        "trusted",
        "with firewalld: zone of which pods are sources; it must be one that lets through",
        only_with=(("backend", ("", FIREWALLD)),),
    )
    admitHostPorts: bool = field(
        boolean,
        False,
        "also let in connections from outside to the pod's host ports, whoever mapped them; firewalld always does",
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

    def place(self) -> Place | None:
        """Return what admits pods here other than nf_tables, which does if this is None."""
        backend, variant = (self.keys.backend, "") if self.keys.backend else in_use()
        return self._place(backend, variant)

    def place_of(self, claim: Claim) -> Place | None:
        """Return the same for pods that were admitted as a claim says."""
        return self._place(claim.backend, claim.text("variant"), claim.text(claims.ZONE))

    def _place(self, backend: str, variant: str, zone: str = "") -> Place | None:
        if backend == FIREWALLD:
            from shared.admission.firewalld import Firewalld

            return Firewalld(zone or self.keys.firewalldZone)
        if backend == IPTABLES:
            from shared.admission.iptables import Iptables
            from shared.iptables import variants

            return Iptables(variant or variants.in_use(), self.keys.iptablesAdminChainName)
        return None

    def claim(self, call: Call, result: Result, place: Place | None) -> Claim:
        """Return what an attachment claims; raises InvalidConfig if the result has no bridge that a policy needs."""
        bridge, port = _port(result, self.owner.ifname) if self.keeps_apart else ("", "")
        return claims.Claim.new(
            self.owner,
            list(dict.fromkeys(ip.address.address for ip in result.ips)),
            call.netns,
            bridge=bridge,
            port=port if self.keys.ingressPolicy == "isolated" else "",
            **({"admitHostPorts": True} if self.keys.admitHostPorts else {}),
            **(place.note if place else IN_NFTABLES),
        )


read = Wanted  # for validate, which touches nothing


def in_use() -> tuple[str, str]:
    """The backend that a configuration without one gets on this host now, and the variant of iptables."""
    from shared.admission import firewalld

    if firewalld.is_running():
        return FIREWALLD, ""
    from shared.iptables import variants

    variant = variants.in_use()
    return IPTABLES if variant else NFTABLES, variant


def _port(result: Result, ifname: str) -> tuple[str, str]:
    """The bridge on the host and the pod's port of it, whatever their places in the result."""
    from shared.net import links
    from shared.net.netlink import Netlink

    steps.begin("bridge")
    host = Netlink()
    for interface in result.interfaces:
        link = None if interface.sandbox else links.get(host, interface.name)
        # a port whose other end is elsewhere, or is the pod's: a bridge's gateway port for a VLAN has both ends here
        if link is None or ("IFLA_LINK_NETNSID" not in link and not _is_end_of(host, link, ifname)):
            continue
        master = links.by_index(host, link["IFLA_MASTER"]) if link.get("IFLA_MASTER") else None
        if master is not None and links.kind(master) == "bridge":
            return master["IFLA_IFNAME"], link["IFLA_IFNAME"]
    raise InvalidConfig(
        'invalid configuration: "ingressPolicy" needs a pod on a bridge: "prevResult" has no interface that is a port'
    )


def _is_end_of(host: Netlink, link: Message, ifname: str) -> bool:
    """Return True if the link is the other end of `ifname` in the same namespace (CNI_NETNS_OVERRIDE)."""
    from shared.net import links

    peer = links.peer_here(host, link)
    return peer is not None and peer["IFLA_IFNAME"] == ifname


def add(call: Call, undo: Undo) -> Result:
    """Admits the pod's addresses; the result is that of the plugin before."""
    wanted = Wanted(call)
    netns.refuse_own(call.netns)
    result = previous_result(call)
    if result is None:
        raise InvalidConfig('invalid configuration: "prevResult" is required: firewall is for what another plugin made')
    place = wanted.place()
    claim = wanted.claim(call, result, place)
    if not claim.addresses and not claim.text("port"):
        return result
    steps.begin(claim.backend)
    if place:
        place.open(claim)
    with turn(claims.RECORDS):
        has_lost = _has_lost(wanted.owner, place)
        before = claims.find(wanted.owner)
        _evict(claim)
        # first, since a note may be there although it could not be written to its end
        undo.push(f"end admission by {claim.backend}", before.write if before else lambda: end_admission(wanted.owner))
        claim.write()
        _admit(claim, place, renew=before is not None and before.is_past)
        if has_lost:
            _restore(wanted.owner, place)
    return result


def _evict(claim: Claim) -> None:
    """Remove the nf_tables elements that former pods left under the addresses."""
    from shared.net import filter_tables

    if claim.backend == NFTABLES or filter_tables.INET in filter_tables.present():
        from shared.admission import nftables as admission

        admission.evict(claim.owner, claim.addresses)


def _admit(claim: Claim, place: Place | None, *, renew: bool) -> None:
    if renew or claim.backend == NFTABLES or claim.text("bridge") or claim.text("port"):
        from shared.admission.nftables import Admission

        Admission(claim).add(renew=renew)
    if place:
        place.admit([claim])


def _has_lost(owner: Owner, place: Place | None) -> bool:
    """Return True if other attachments of the network may lack what admits them, as one or two of them show.

    So an ADD costs the same however many pods there are, unless somebody has removed rules, or another place decides.
    """
    found = claims.witnesses(owner)
    if not found:  # those that an older release admitted by nf_tables have no note
        return found is None or place is not None
    if any(not _is_at(place, claim) for claim in found) or (place and place.is_lost(found)):
        return True
    from shared.admission.nftables import Admission

    return any(Admission(claim).is_lost() for claim in found if claim.is_complete)


def _is_at(place: Place | None, claim: Claim) -> bool:
    return place.has(claim) if place else claim.backend == NFTABLES


def _restore(owner: Owner, place: Place | None, valid: AbstractSet[tuple[str, str]] | None = None) -> None:
    """Admit the living attachments of a network here, but for the owner. What fails is told on stderr."""
    from shared.admission import nftables as admission

    steps.begin("restore")
    found = claims.living(owner.network, valid)
    if place:
        found += [claim for claim in _unnoted(owner.network) if claims.is_alive(claim, valid)]
    own = (owner.container_id, owner.ifname)
    found = [claim for claim in found if (claim.owner.container_id, claim.owner.ifname) != own]
    moved = [claim.moved(**(place.note if place else IN_NFTABLES)) for claim in found]
    try:
        for old, new in zip(found, moved, strict=True):
            if old.text(claims.ZONE) not in ("", new.text(claims.ZONE)):
                from_firewalld(lambda claim=old: claim.addresses, old.note, "")  # type: ignore[misc]
            if new.note != old.note:
                new.write()
        restored = [admission.Admission(claim).restore for claim in moved if claim.is_complete]
        each(*([lambda: place.admit(moved)] if place and moved else []), *restored)
    except CniError as error:
        complain(f"firewall: not all pods of {owner.network} could be admitted again: {error}")


def check(call: Call) -> None:
    """Raises InternalError that names everything that is not as ADD left it, where ADD put it."""
    wanted = Wanted(call)
    netns.refuse_own(call.netns)
    result = previous_result(call)
    if result is None:
        return
    from shared.admission import nftables as admission

    noted = claims.find(wanted.owner)
    if noted is None and admission.is_admitted(wanted.owner):
        noted = claims.Claim(wanted.owner, IN_NFTABLES)
    place = wanted.place_of(noted) if noted else wanted.place()
    claim = wanted.claim(call, result, place)
    if noted:
        claim = claim.moved(admitHostPorts=noted.is_published)
    problems = admission.Admission(claim).problems()
    if place:
        problems += place.problems(claim)
    problems += _dropped(wanted, claim, place)
    if problems:
        raise InternalError(f"{call.network} {call.ifname} is not admitted as it was", "; ".join(problems))


def _dropped(wanted: Wanted, claim: Claim, place: Place | None) -> list[str]:
    """Return in words what drops the pod's packets at another place than that where it was admitted."""
    from shared.admission import firewalld
    from shared.iptables import variants

    found = []
    if claim.backend != FIREWALLD and firewalld.is_running():
        found = firewalld.Firewalld(wanted.keys.firewalldZone).dropped(claim.addresses, _link_to)
    if variants.deciding():
        from shared.admission import forwarding

        known = place.note["variant"] if place and claim.backend == IPTABLES else ""
        found += forwarding.dropped(claim.addresses, _link_to, known)
    return found


def _link_to(address: Address) -> str:
    """Return the name of the link by which the host reaches an address, empty if there is none."""
    from shared.net import links, routes
    from shared.net.netlink import Netlink

    host = Netlink()
    route = routes.towards(host, address)
    link = links.by_index(host, route["RTA_OIF"]) if route else None
    return link["IFLA_IFNAME"] if link else ""


def delete(call: Call) -> None:
    """Remove the rules of ADD from every backend, and the reference plugin's rules for the result's addresses."""
    pod_netns = netns.open_if_there(call.netns)
    own = Owner(call.network, call.container_id, call.ifname)
    result = readable_result(call)
    addresses = {ip.address.address for ip in result.ips} if result else set()

    zone = _zone(call)

    def end_former() -> None:
        from shared.net import renamed

        each(*(lambda owner=owner: end_admission(owner, addresses) for owner in renamed.former(own, pod_netns)))

    each(lambda: end_admission(own, addresses, zone), *([end_former] if pod_netns else []))


def _zone(call: Call) -> str:
    """The zone that the reference's ADD can have used; empty where the configuration has another backend."""
    try:
        keys: Config = Config.read(call.config)
    except InvalidConfig:
        return ""
    return keys.firewalldZone if keys.backend in ("", FIREWALLD) else ""


def gc(call: Call) -> None:
    """Remove the rules of attachments that are no longer valid, and admit the valid ones again if rules are missing."""
    valid = valid_attachments(call)
    from shared.admission import nftables as admission

    each(
        lambda: admission.collect(call.network, valid),
        lambda: claims.collect(call.network, valid, end_admission),
        lambda: _restore_valid(call, valid),
    )


def _unnoted(network: str) -> list[Claim]:
    from shared.admission import nftables as admission

    return admission.unnoted(network)


def _restore_valid(call: Call, valid: AbstractSet[tuple[str, str]]) -> None:
    """Admit the network's valid attachments where a new ADD would, all of them, if something of them is missing."""
    try:
        wanted = Wanted(call)
    except InvalidConfig:  # GC needs no keys otherwise
        return
    place = wanted.place()
    if claims.living(call.network, valid) or (place and _unnoted(call.network)):
        with turn(claims.RECORDS):
            _restore(wanted.owner, place, valid)


def status(call: Call) -> None:
    """Raises PluginNotAvailable where an ADD could not succeed."""
    wanted = Wanted(call)
    try:
        place = wanted.place()
        if place:
            place.try_out()
        if place is None or wanted.keeps_apart:
            from shared.admission import nftables as admission

            admission.try_out(is_isolated=wanted.keys.ingressPolicy == "isolated")
    except CniError as error:
        raise PluginNotAvailable(f"the backend cannot be used: {error.msg}", error.details) from None
