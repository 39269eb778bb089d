"""portmap: host ports that lead to a pod which an earlier plugin attached."""

from __future__ import annotations

from shared.cni import config
from shared.cni.config import boolean, chain_name, choice, field, integer, invalid, list_of, section, text
from shared.cni.errors import CniError, InvalidConfig, PluginNotAvailable
from shared.cni.plugin import check_and_repair, previous_result, required_result, run_all, valid_attachments
from shared.hostports import mappings
from shared.hostports import nftables as hostports
from shared.hostports.mappings import PortMapping
from shared.hostports.nftables import delete_flows
from shared.hostports.nftables_rules import Forwarding
from shared.iptables import variants
from shared.net import links, liveness, localnet, netns, renamed, sysctl
from shared.net.netlink import Netlink, TooLarge
from shared.net.owner import Owner
from shared.net.verify import own_ips
from shared.nft.transaction import Nfnetlink
from shared.undo import Undo, complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.cni.call import Call
    from shared.cni.ip import Address, Prefix
    from shared.cni.plugin import Part
    from shared.cni.result import Result
    from shared.hostports.conditions import Match
    from shared.hostports.iptables_rules import Forwarding as Rules
    from shared.hostports.mappings import HostPort
    from shared.net.netlink import Message

CONDITIONS = {"conditionsV4": 4, "conditionsV6": 6}
BY_MARKS = (("backend", ("iptables",)), ("snat", (True,)))


class RuntimeConfig(config.Config):
    """The runtime's keys for the capability `portMappings`."""

    portMappings: list[PortMapping] = field(
        list_of(section(PortMapping)), (), "the ports to map (capability `portMappings`)"
    )


class Config(config.Config):
    """portmap's keys."""

    backend: str = field(choice("iptables", "nftables"), "", "packet filter that maps the ports; nftables by default")
    snat: bool = field(boolean, True, "masquerade packets from the pod's subnet and from localhost")
    masqAll: bool = field(
        boolean, False, "with snat: masquerade all packets to mapped ports", only_with=(("snat", (True,)),)
    )
    markMasqBit: int | None = field(
        integer(0, 31),
        None,
        "bit of the packets' mark (iptables only; default 13; excludes externalSetMarkChain)",
        only_with=BY_MARKS,
    )
    externalSetMarkChain: str = field(
        chain_name,
        "",
        "chain of table nat that marks packets (iptables only; excludes markMasqBit)",
        only_with=BY_MARKS,
    )
    conditionsV4: list[str] = field(list_of(text), (), "conditions that IPv4 packets to a mapped port must meet")
    conditionsV6: list[str] = field(list_of(text), (), "conditions that IPv6 packets to a mapped port must meet")
    runtimeConfig: RuntimeConfig | None = field(section(RuntimeConfig), None, "see runtimeConfig")


class Attachment:
    """A call's configuration, validated before anything is touched."""

    def __init__(self, call: Call) -> None:
        keys: Config = Config.read(call.config)
        if keys.markMasqBit is not None and keys.externalSetMarkChain:
            raise invalid("markMasqBit", keys.markMasqBit, 'and "externalSetMarkChain" exclude each other')
        self.keys = keys
        self.by_iptables = keys.backend == "iptables"
        self.owner = Owner(call.network, call.container_id, call.ifname)
        self.mappings = keys.runtimeConfig.portMappings if keys.runtimeConfig else []
        self.conditions = {
            version: _read_conditions(key, getattr(keys, key), by_iptables=self.by_iptables)
            for key, version in CONDITIONS.items()
        }
        mappings.require_consistent(self.mappings)
        self.mark = liveness.mark(call.netns)

    def guard(self) -> None:
        """Drop packets to and from 127.0.0.0/8 from outside, which route_localnet would let in."""
        if self.by_iptables:
            from shared.hostports import iptables

            iptables.guard()
        else:
            hostports.guard(Nfnetlink())

    def complain(self) -> None:
        """Report on stderr that nf_tables ignores externalSetMarkChain."""
        chain = self.keys.externalSetMarkChain
        if chain and self.keys.snat and not self.by_iptables:
            complain(
                f'portmap: "externalSetMarkChain": "{chain}" has no effect: nf_tables masquerades as snat says, without'
                ' the chain; set "backend": "iptables" to use it'
            )

    def resolve(self, host: Netlink, result: Result, call: Call) -> Destination:
        """Return the host ports that lead to the pod of a result."""
        pods: dict[int, Prefix] = {}
        for ip in own_ips(result, call):
            pods.setdefault(ip.address.version, ip.address)
        if not pods:
            raise InvalidConfig(f'invalid configuration: "prevResult" has no address of {call.ifname}')
        ports = mappings.lead_to(pods, self.mappings, host)
        needs_localnet = self.keys.snat and 4 in pods and any(mapping.is_for_localhost for mapping in self.mappings)
        return Destination(self, ports, pods, pods[4].address if needs_localnet else None)


read = Attachment  # for validate, which touches nothing


class Destination:
    """The host ports of a call; `localnet` is the pod's address if packets from localhost are to reach it."""

    def __init__(
        self, attachment: Attachment, ports: list[HostPort], pods: dict[int, Prefix], localnet: Address | None
    ) -> None:
        self.attachment = attachment
        self.ports = ports
        self.pods = pods
        self.localnet = localnet

    def map(self, undo: Undo, *, renew: bool = False) -> None:
        """Add the rules; with `renew` replace older ones. Raise Taken if another attachment has a port by any backend.

        If two calls map the same port with different backends at once, at least one of them detects the conflict and
        fails; possibly both.
        """
        make, require_free = (
            (self._map_by_iptables, self._require_free_of_nftables)
            if self.attachment.by_iptables
            else (self._map_by_nftables, self._require_free_of_iptables)
        )
        require_free()
        try:
            make(undo, renew=renew)
        except TooLarge as error:
            raise error.naming("runtimeConfig.portMappings", len(self.ports)) from None
        require_free()

    def _map_by_iptables(self, undo: Undo, *, renew: bool) -> None:
        from shared.hostports import iptables

        iptables.add(undo, self._iptables_rules(), self.attachment.mark, delete_flows, renew=renew)

    def _map_by_nftables(self, undo: Undo, *, renew: bool) -> None:
        kernel = Nfnetlink()
        owner, forwarding = self.attachment.owner, self._nftables_rules()
        hostports.evict(kernel, owner, [pod.address for pod in self.pods.values()], delete_flows)
        flows = hostports.add(kernel, owner, forwarding, self.attachment.mark, delete_flows, renew=renew)
        undo.push(f"remove host ports of {owner.container_id}", lambda: hostports.remove(kernel, owner, delete_flows))
        if flows:
            delete_flows(flows)

    def _require_free_of_nftables(self) -> None:
        if kernel := Nfnetlink.if_there():
            hostports.require_free(kernel, self.ports, self.attachment.owner, delete_flows)

    def _require_free_of_iptables(self) -> None:
        if variants.with_rules(*variants.HOSTPORTS):
            from shared.hostports import iptables

            iptables.require_free(self.ports, self.attachment.owner.container_id, delete_flows)

    def problems(self) -> list[str]:
        """Return the differences from the state that `map` leaves."""
        if self.attachment.by_iptables:
            from shared.hostports import iptables

            return iptables.problems(self._iptables_rules())
        return hostports.problems(Nfnetlink(), self.attachment.owner, self._nftables_rules())

    def _nftables_rules(self) -> Forwarding:
        keys, conditions = self.attachment.keys, self.attachment.conditions
        return Forwarding(self.ports, self.pods, conditions, snat=keys.snat, masq_all=keys.masqAll)

    def _iptables_rules(self) -> Rules:
        from shared.hostports.iptables_rules import Forwarding as Rules

        keys, conditions = self.attachment.keys, self.attachment.conditions
        return Rules(
            self.attachment.owner, self.ports, self.pods, conditions, snat=keys.snat, masq_all=keys.masqAll,
            localnet=self.localnet is not None, mark_bit=keys.markMasqBit, set_mark_chain=keys.externalSetMarkChain,
        )  # fmt: skip


def _read_conditions(key: str, texts: list[str], *, by_iptables: bool) -> list[Match]:
    if not texts:
        return []
    try:
        if by_iptables:
            from shared.hostports import iptables_rules

            return iptables_rules.read_conditions(texts, CONDITIONS[key])
        from shared.hostports import conditions

        return conditions.read(texts, CONDITIONS[key])
    except ValueError as error:
        raise invalid(key, texts, str(error)) from None


def add(call: Call, undo: Undo) -> Result:
    """Map the ports. Return the result of the previous plugin."""
    attachment = Attachment(call)
    result = required_result(call)
    netns.open_netns(call.netns)
    links_here = _find_host_links(result)
    if attachment.mappings:
        host = Netlink()
        destination = attachment.resolve(host, result, call)
        if destination.ports:
            attachment.complain()
            link = _find_localnet_link(host, destination, links_here)
            if link:
                undo.push("set route_localnet back", _set_localnet_back)
            destination.map(undo)
            if link:  # after the rules that make it safe
                localnet.turn_on(link)
                return result
    _guard_if_open(attachment, links_here)
    return result


def _find_host_links(result: Result) -> list[str]:
    """Return the names of the host's links in a result."""
    return [links.own_name(interface.name) for interface in result.interfaces if not interface.sandbox]


def _find_localnet_link(host: Netlink, destination: Destination, named: list[str]) -> Message | None:
    """Return the link that needs route_localnet for packets from 127.0.0.1 to the pod.

    Return None if the ports are not for localhost, or no link of pods leads to the pod.
    """
    if destination.localnet is None:
        return None
    link = localnet.towards(host, destination.localnet, named)
    if link is None:
        complain(f"portmap: connections from 127.0.0.1 do not reach {destination.localnet}: no pod link leads there")
    return link


def _guard_if_open(attachment: Attachment, links_here: list[str]) -> None:
    """Restore the guarding rules if route_localnet is on from an earlier call and somebody deleted them."""
    try:
        if any(localnet.is_on(name) for name in links_here):
            attachment.guard()
    except CniError as error:  # this pod needs neither the switch nor the rules
        complain(f"portmap: route_localnet may be on without the rules that make it safe: {error}")


def _set_localnet_back() -> None:
    from shared.hostports import iptables

    iptables.set_localnet_back()


def _read_parts(call: Call) -> tuple[str, list[Part]]:
    """Return CHECK's message, and the attachment's rules and switch."""
    attachment = Attachment(call)
    netns.open_netns(call.netns)
    previous = previous_result(call)
    found = f"host ports of {call.network} {call.ifname} are not as ADD made them: recreate the pod"
    if not attachment.mappings or previous is None:
        return found, []
    host = Netlink()
    destination = attachment.resolve(host, previous, call)
    parts: list[Part] = [(destination.problems, lambda: destination.map(Undo(), renew=True))]
    link = _find_localnet_link(host, destination, _find_host_links(previous))
    if link:
        parts.append((lambda: localnet.problems(link), lambda: localnet.turn_on(link)))
    return found, parts


check, repair = check_and_repair(_read_parts)


def delete(call: Call) -> None:
    """Delete an attachment's host ports of every backend, the reference's too.

    Neither result nor namespace nor keys are needed.
    """
    pod_netns = netns.open_if_there(call.netns)
    own = Owner(call.network, call.container_id, call.ifname)

    from shared.hostports import backends

    def delete_former() -> None:
        run_all(*(lambda owner=owner: backends.remove(owner) for owner in renamed.former_owners(own, pod_netns)))

    run_all(lambda: backends.remove(own), delete_former, _set_localnet_back)


def gc(call: Call) -> None:
    """Delete the host ports of this network's attachments that are no longer valid, of every backend."""
    valid = valid_attachments(call)
    from shared.hostports import backends

    backends.collect(call.network, valid)


def status(call: Call) -> None:
    """Raise PluginNotAvailable if an ADD could not succeed."""
    attachment = Attachment(call)
    attachment.complain()
    try:
        sysctl.require_visible()
        if attachment.by_iptables:
            from shared.hostports import iptables

            iptables.try_out(attachment.conditions)
        else:
            hostports.try_out(Nfnetlink())
    except CniError as error:
        raise PluginNotAvailable(f"host ports cannot be mapped: {error.msg}", error.details) from None
