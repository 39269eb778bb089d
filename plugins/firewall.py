"""firewall: accepts a pod's packets and the replies to them, and isolates pods if the configuration asks for it.

A file for each attachment records the backend that admits it (shared/admission/claims.py), and CHECK looks there. If
another backend decides by now, or the rules were flushed, the next ADD or GC of the network admits all of its living
pods again.
"""

from __future__ import annotations

from shared import steps
from shared.admission import claims
from shared.admission.backends import end as end_admission
from shared.admission.claims import FIREWALLD, IN_NFTABLES, IPTABLES, NFTABLES
from shared.cni import config
from shared.cni.config import boolean, choice, field
from shared.cni.errors import CniError, InvalidConfig, PluginNotAvailable
from shared.cni.plugin import (
    check_and_repair,
    readable_result,
    required_result,
    run_all,
    valid_attachments,
)
from shared.net import netns, rules_lock
from shared.net.owner import Owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from typing import Any

    from shared.admission.claims import Claim
    from shared.admission.restoration import Place
    from shared.cni.call import Call
    from shared.cni.plugin import Part
    from shared.cni.result import Result
    from shared.net.netlink import Message, Netlink
    from shared.undo import Undo

ZONE_NAME_LENGTH = 64  # characters; firewalld itself allows at most 17, depending on its version
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
        "packet filter that admits pods; default: firewalld if it runs, else iptables if its FORWARD chain drops or has"
        " rules, else nftables",
    )
    iptablesAdminChainName: str = field(
        admin_chain,
        "CNI-ADMIN",
        "with iptables: the administrator's chain, evaluated before the pods' rules",
        only_with=(("backend", ("", IPTABLES)),),
    )
    firewalldZone: str = field(
        zone_name,
        "trusted",
        "with firewalld: zone that gets the pods as sources; it must accept their packets",
        only_with=(("backend", ("", FIREWALLD)),),
    )
    admitHostPorts: bool = field(
        boolean,
        False,
        "also accept connections from outside to the pod's host ports, by any port mapper; firewalld always does",
    )
    ingressPolicy: str = field(
        choice("open", "same-bridge", "isolated"),
        "open",
        "sources that reach the pod; open: all; same-bridge: all but other bridges that have a pod with a policy;"
        " isolated: all but these and other pods of its bridge",
    )


class Attachment:
    """A call's configuration, validated before anything is touched."""

    def __init__(self, call: Call) -> None:
        self.keys: Config = Config.read(call.config)
        self.owner = Owner(call.network, call.container_id, call.ifname)
        self.keeps_apart = self.keys.ingressPolicy != "open"

    def choose_place(self) -> Place | None:
        """Return the backend that admits pods on this host, None for nf_tables."""
        backend, variant = (self.keys.backend, "") if self.keys.backend else backend_in_use()
        return self._open_place(backend, variant)

    def find_place(self, claim: Claim) -> Place | None:
        """Return the backend that admitted the pod of a claim, None for nf_tables."""
        return self._open_place(claim.backend, claim.text("variant"), claim.text(claims.ZONE))

    def _open_place(self, backend: str, variant: str, zone: str = "") -> Place | None:
        if backend == FIREWALLD:
            from shared.admission.firewalld import Firewalld

            return Firewalld(zone or self.keys.firewalldZone)
        if backend == IPTABLES:
            from shared.admission.iptables import Iptables
            from shared.iptables import variants

            return Iptables(variant or variants.in_use(), self.keys.iptablesAdminChainName)
        return None

    def make_claim(self, call: Call, result: Result, place: Place | None) -> Claim:
        """Return the attachment's claim. Raise InvalidConfig if a policy needs a bridge and the result has none."""
        bridge, port = _find_port(result, self.owner.ifname) if self.keeps_apart else ("", "")
        return claims.Claim.new(
            self.owner,
            list(dict.fromkeys(ip.address.address for ip in result.ips)),
            call.netns,
            bridge=bridge,
            port=port if self.keys.ingressPolicy == "isolated" else "",
            **({"admitHostPorts": True} if self.keys.admitHostPorts else {}),
            **(place.note if place else IN_NFTABLES),
        )


read = Attachment  # for validate, which touches nothing


def backend_in_use() -> tuple[str, str]:
    """Return the backend that the host uses now if the configuration names none, and the variant of iptables."""
    from shared.admission import firewalld

    if firewalld.is_running():
        return FIREWALLD, ""
    from shared.iptables import variants

    variant = variants.in_use()
    return IPTABLES if variant else NFTABLES, variant


def _find_port(result: Result, ifname: str) -> tuple[str, str]:
    """Return the names of the bridge and of the pod's port on it. Their order in the result does not matter."""
    from shared.net import links
    from shared.net.netlink import Netlink

    steps.begin("bridge")
    host = Netlink()
    for interface in result.interfaces:
        link = None if interface.sandbox else links.get(host, interface.name)
        # A pod's port has its other end in another namespace, or it is the pod's interface in this one. Skip the
        # bridge's gateway port for a VLAN: both its ends are on the host.
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
    """Admit the pod's addresses. Return the previous result."""
    attachment = Attachment(call)
    netns.refuse_own(call.netns)
    result = required_result(call)
    place = attachment.choose_place()
    claim = attachment.make_claim(call, result, place)
    if not claim.addresses and not claim.text("port"):
        return result
    steps.begin(claim.backend)
    if place:
        place.open(claim)
    from shared.admission import restoration

    with rules_lock.hold(claims.RECORDS):
        has_lost = restoration.has_lost(attachment.owner, place)
        before = claims.find(attachment.owner)
        _evict(claim)
        # before the write: a write that fails may leave a note
        undo.push(
            f"end admission by {claim.backend}", before.write if before else lambda: end_admission(attachment.owner)
        )
        claim.write()
        _admit(claim, place, renew=before is not None and before.is_past)
        if has_lost:
            restoration.restore(attachment.owner, place)
    return result


def _evict(claim: Claim) -> None:
    """Delete the nf_tables elements that former pods left for the addresses."""
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


def _read_parts(call: Call) -> tuple[str, list[Part]]:
    """Return CHECK's message, and the attachment's rules."""
    attachment = Attachment(call)
    netns.refuse_own(call.netns)
    found = f"interface {call.ifname} of {call.network} is not admitted as ADD left it"
    result = required_result(call)
    rules = (lambda: _find_problems(attachment, call, result), lambda: _readmit(attachment, call, result))
    return f"{found}: the next GC or ADD of the network restores missing rules", [rules]


check, repair = check_and_repair(_read_parts)


def _find_problems(attachment: Attachment, call: Call, result: Result) -> list[str]:
    """Return the differences from the claim, and a text for each packet filter that drops the pod's packets."""
    from shared.admission import drops
    from shared.admission import nftables as admission

    noted = claims.find(attachment.owner)
    if noted is None and admission.is_admitted(attachment.owner):
        noted = claims.Claim(attachment.owner, IN_NFTABLES)
    place = attachment.find_place(noted) if noted else attachment.choose_place()
    claim = attachment.make_claim(call, result, place)
    if noted:
        claim = claim.moved(admitHostPorts=noted.is_published)
    problems = admission.Admission(claim).problems()
    if place:
        problems += place.problems(claim)
    return problems + drops.find(claim, place, attachment.keys.firewalldZone)


def _readmit(attachment: Attachment, call: Call, result: Result) -> None:
    """Admit the pod again, with the backend that an ADD would use now."""
    from shared.admission import restoration

    place = attachment.choose_place()
    with rules_lock.hold(claims.RECORDS):
        noted = claims.find(attachment.owner)
        if noted is None or not noted.is_complete:
            noted = attachment.make_claim(call, result, place)
            noted.write()
        restoration.readmit([noted], place)


def delete(call: Call) -> None:
    """Delete the rules of ADD in every backend, and the reference plugin's rules for the result's addresses."""
    pod_netns = netns.open_if_there(call.netns)
    own = Owner(call.network, call.container_id, call.ifname)
    result = readable_result(call)
    addresses = {ip.address.address for ip in result.ips} if result else set()
    zone = _read_zone(call)

    def end_former() -> None:
        from shared.net import renamed

        run_all(
            *(lambda owner=owner: end_admission(owner, addresses) for owner in renamed.former_owners(own, pod_netns))
        )

    run_all(lambda: end_admission(own, addresses, zone), *([end_former] if pod_netns else []))


def _read_zone(call: Call) -> str:
    """Return the zone that the reference's ADD may have used, empty if the configuration has another backend."""
    try:
        keys: Config = Config.read(call.config)
    except InvalidConfig:
        return ""
    return keys.firewalldZone if keys.backend in ("", FIREWALLD) else ""


def gc(call: Call) -> None:
    """Delete the rules of attachments that are no longer valid. Admit the valid ones again if rules are missing."""
    valid = valid_attachments(call)
    from shared.admission import nftables as admission

    run_all(
        lambda: admission.collect(call.network, valid),
        lambda: claims.collect(call.network, valid, end_admission),
        lambda: _restore_valid(call, valid),
    )


def _restore_valid(call: Call, valid: AbstractSet[tuple[str, str]]) -> None:
    """Admit the network's valid attachments again, with the backend that an ADD would use now."""
    try:
        attachment = Attachment(call)
    except InvalidConfig:  # GC does nothing else with the keys
        return
    from shared.admission import nftables as admission
    from shared.admission import restoration

    place = attachment.choose_place()
    if claims.living(call.network, valid) or (place and admission.unnoted(call.network)):
        with rules_lock.hold(claims.RECORDS):
            restoration.restore(attachment.owner, place, valid)


def status(call: Call) -> None:
    """Raise PluginNotAvailable if an ADD could not succeed."""
    attachment = Attachment(call)
    try:
        place = attachment.choose_place()
        if place:
            place.try_out()
        if place is None or attachment.keeps_apart:
            from shared.admission import nftables as admission

            admission.try_out(is_isolated=attachment.keys.ingressPolicy == "isolated")
    except CniError as error:
        raise PluginNotAvailable(f"pods cannot be admitted: {error.msg}", error.details) from None
