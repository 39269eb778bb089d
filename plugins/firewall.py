"""firewall: lets through what a pod sends and the replies to it, and keeps pods apart if asked to."""

from __future__ import annotations

from shared import steps
from shared.cni import config
from shared.cni.config import choice, field, text
from shared.cni.errors import (
    CniError,
    IncompatibleVersion,
    InternalError,
    InvalidConfig,
    PluginNotAvailable,
    UnsupportedField,
)
from shared.cni.plugin import each, previous_result, valid_attachments
from shared.cni.versions import at_least
from shared.net.owner import Owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shared.cni.call import Call
    from shared.cni.ip import Address
    from shared.cni.result import Result
    from shared.nft.admission import Admission
    from shared.undo import Undo

SINCE = "0.4.0"
TAKEN_NAMES = ("ACCEPT", "DROP", "QUEUE", "RETURN", "INPUT", "FORWARD", "OUTPUT", "CNI-FORWARD")


def _admin_chain(value: Any) -> str:
    name: str = config.chain_name.parse(value)
    if name in TAKEN_NAMES:
        raise ValueError("is a name that iptables or this plugin uses itself")
    return name


admin_chain = config.Kind(_admin_chain, config.chain_name.schema, empty_is_unset=True)


class Config(config.Config):
    """firewall's keys."""

    backend: str = field(
        choice("nftables", "iptables", "firewalld"),
        "",
        "what lets pods through: nftables or iptables; by default iptables where its FORWARD chain drops or has rules,"
        ' nftables elsewhere ("firewalld" is not supported)',
    )
    iptablesAdminChainName: str = field(
        admin_chain, "CNI-ADMIN", "with iptables: chain of the administrator's, which comes before the pods' rules"
    )
    firewalldZone: str = field(text, "trusted", "firewalld's zone; taken and not used")
    ingressPolicy: str = field(
        choice("open", "same-bridge", "isolated"),
        "open",
        "from where the pod can be reached; same-bridge: not from other bridges whose pods have a policy; isolated:"
        " neither from other pods of its bridge",
    )


class Wanted:
    """A call's configuration, validated before anything is touched."""

    def __init__(self, call: Call) -> None:
        if not at_least(call.version, SINCE):
            raise IncompatibleVersion("incompatible CNI versions", f"config is {call.version}, firewall needs {SINCE}")
        self.keys: Config = Config.read(call.config)
        if self.keys.backend == "firewalld":
            raise UnsupportedField('"backend": "firewalld" is not supported by this version of the firewall plugin')
        self.owner = Owner(call.network, call.container_id, call.ifname)
        self.keeps_apart = self.keys.ingressPolicy != "open"

    def variant(self) -> str | None:
        """The variant of iptables that lets pods through here, empty for whichever there is; None: nf_tables does."""
        if self.keys.backend == "nftables":
            return None
        from shared.iptables import variants

        used = variants.in_use()
        return used if used or self.keys.backend == "iptables" else None

    def admission(self, result: Result, *, by_nftables: bool) -> Admission | None:
        """What nf_tables has to do; None where that is nothing."""
        if not by_nftables and not self.keeps_apart:
            return None
        from shared.nft.admission import Admission

        bridge, port = _place(result) if self.keeps_apart else ("", "")
        port = port if self.keys.ingressPolicy == "isolated" else ""
        return Admission(self.owner, _addresses(result), is_admitted=by_nftables, bridge=bridge, port=port)


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
    variant = wanted.variant()
    admission = wanted.admission(result, by_nftables=variant is None)
    if admission:
        steps.begin("nftables")
        admission.add(undo)
    addresses = _addresses(result)
    if variant is not None and addresses:
        from shared.iptables import firewall

        steps.begin("iptables")
        firewall.add(undo, wanted.owner, addresses, wanted.keys.iptablesAdminChainName, variant)
    return result


def check(call: Call) -> None:
    """Raises InternalError that names everything that is not as ADD left it."""
    wanted = Wanted(call)
    result = previous_result(call)
    if result is None:
        return
    variant = wanted.variant()
    admission = wanted.admission(result, by_nftables=variant is None)
    problems = admission.problems() if admission else []
    if variant is not None:
        from shared.iptables import firewall

        problems += firewall.problems(_addresses(result), wanted.keys.iptablesAdminChainName, variant)
    if problems:
        raise InternalError(f"{call.network} {call.ifname} is not admitted as it was", "; ".join(problems))


def delete(call: Call) -> None:
    """Removes what ADD made, by whichever backend, and for the result's addresses what the reference's ADD made."""
    owner = Owner(call.network, call.container_id, call.ifname)
    try:
        result = previous_result(call)
    except CniError:  # what cannot be read names no address
        result = None
    from shared.iptables import firewall
    from shared.nft import admission

    each(
        lambda: admission.remove(owner),
        lambda: firewall.remove(owner, _addresses(result) if result else ()),
    )


def gc(call: Call) -> None:
    """Removes what this network's attachments that are not valid any more have left, by whichever backend."""
    valid = valid_attachments(call)
    from shared.iptables import firewall
    from shared.nft import admission

    each(lambda: admission.collect(call.network, valid), lambda: firewall.collect(call.network, valid))


def status(call: Call) -> None:
    """Raises PluginNotAvailable where an ADD could not succeed."""
    wanted = Wanted(call)
    try:
        variant = wanted.variant()
        if variant is not None:
            from shared.iptables import firewall

            firewall.try_out(variant)
        if variant is None or wanted.keeps_apart:
            from shared.nft import admission

            admission.try_out(is_isolated=wanted.keys.ingressPolicy == "isolated")
    except CniError as error:
        raise PluginNotAvailable(f"the backend cannot be used: {error.msg}", error.details) from None
