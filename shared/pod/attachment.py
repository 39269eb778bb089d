"""Serve the verbs of a plugin that gives a pod an interface: keys, IPAM, masquerading.

A main plugin declares its keys as a subclass of `Keys`, `MasqueradeKeys` and `MacKeys`, and reads a
call as an `Attachment`:

    class Config(attachment.Keys, attachment.MasqueradeKeys):
        hairpinMode: bool = field(boolean, False, "…")

    def add(call: Call, undo: Undo) -> Result:
        pod = Attachment(call, Config)
        …                                                      create the link
        result = pod.assign(undo, interface=1)
        …                                                      configure the pod, see shared/pod/inside.py
        pod.masquerade(undo, result)

`Attachment.check`, `repair` and `status` serve CHECK, a repair and STATUS. shared/pod/removal.py serves DEL and GC.
"""

from __future__ import annotations

from shared import steps
from shared.cni import config, delegate
from shared.cni.config import boolean, choice, field, integer, invalid, list_of, mac, obj, prefix, section
from shared.cni.errors import CniError, InternalError, PluginNotAvailable
from shared.cni.ip import Address, Prefix
from shared.cni.plugin import available, compare, failure, previous_result, restore, supported
from shared.cni.result import Interface, Result, Route, dns_from_json
from shared.net import filter_tables, links, netns
from shared.net.netlink import Netlink
from shared.net.owner import Owner
from shared.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet
    from typing import Any

    from shared.cni.call import Call
    from shared.cni.plugin import Part
    from shared.masquerade import Masquerading
    from shared.net.netlink import Message
    from shared.net.netns import Netns

    # CHECK: host, namespace of the pod, the pod's link (None: missing) and the previous result
    FindParts = Callable[[Netlink, Netns, "Message | None", Result], list[Part]]

DEFAULT_ROUTES = {4: Prefix(Address(4, 0), 0), 6: Prefix(Address(6, 0), 0)}
LEAST_MTU = 68  # bytes; ETH_MIN_MTU in linux/if_ether.h


class Keys(config.Config):
    """The keys of each main plugin."""

    mtu: int = field(integer(0, 65535), 0, "MTU of the interface in bytes; 0: the kernel's default")
    ipam: dict[str, Any] = field(obj, {}, "the IPAM plugin's configuration; without it the pod is attached at layer 2")
    dns: dict[str, Any] = field(obj, {}, "DNS settings of the result; where set they replace the IPAM plugin's")


class MasqueradeKeys(config.Config):
    """The keys of a plugin that can masquerade."""

    ipMasq: bool = field(boolean, False, "masquerade what the pod sends beyond its networks, except multicast")
    ipMasqBackend: str = field(
        choice("iptables", "nftables"),
        "",
        "what ipMasq uses: nftables, also by default, or iptables",
        needs=("ipMasq",),
    )
    nonMasqueradeCIDRs: list[Prefix] = field(
        list_of(prefix), (), "with ipMasq: do not masquerade packets to these networks or to an address of the node",
        needs=("ipMasq",),
    )  # fmt: skip


class RuntimeConfig(config.Config):
    """The key that the runtime adds for the `mac` capability."""

    mac: str = field(mac, "", "MAC of the container's interface (capability `mac`)")


class CniArgs(config.Config):
    """The keys of args.cni."""

    mac: str = field(mac, "", "MAC of the container's interface")


class Args(config.Config):
    """The keys of args."""

    cni: CniArgs | None = field(section(CniArgs), None, "see args.cni")


class EnvironmentArgs(config.Config):
    """The names that CNI_ARGS may have."""

    MAC: str = field(mac, "", "MAC of the container's interface")


class MacKeys(config.Config):
    """The keys of a plugin that sets the interface's MAC."""

    args: Args | None = field(section(Args), None, "see args.cni")
    runtimeConfig: RuntimeConfig | None = field(section(RuntimeConfig), None, "see runtimeConfig")


class Attachment:
    """A call's configuration. Making one validates it, and changes nothing.

    `keys` are the configuration's keys, `owner` the names that derive from the attachment. `ipam` is the name of the
    IPAM plugin, empty without one. `mac` is the MAC that the configuration demands, empty without one, and `mac_key`
    names the key that demands it.
    """

    keys: Any

    def __init__(self, call: Call, kind: type[Keys]) -> None:
        """Read the keys of `kind`; raise InvalidConfig or InvalidEnvironment for a value that cannot be used."""
        self.call = call
        self.keys = keys = kind.read(call.config)
        self.owner = Owner(call.network, call.container_id, call.ifname)
        self.ipam = delegate.ipam_type(call)
        self.masquerades: bool = isinstance(keys, MasqueradeKeys) and keys.ipMasq
        # destinations that are not masqueraded
        self.exempt: Sequence[Prefix] = keys.nonMasqueradeCIDRs if isinstance(keys, MasqueradeKeys) else ()
        if self.exempt and not self.masquerades:
            raise invalid("nonMasqueradeCIDRs", [str(one) for one in self.exempt], 'needs "ipMasq": true')
        if isinstance(keys.mtu, int) and 0 < keys.mtu < LEAST_MTU:
            raise invalid("mtu", keys.mtu, f"must be 0 or at least {LEAST_MTU}, the least that a link can have")
        try:
            self.dns = dns_from_json(keys.dns)
        except ValueError as error:
            raise invalid("dns", keys.dns, str(error)) from None
        self.mac_key, self.mac = wanted_mac(call, keys) if isinstance(keys, MacKeys) else ("", "")

    @property
    def own_mac(self) -> str:
        """Return the MAC that the pod's interface gets."""
        return self.mac or self.owner.pod_mac

    @property
    def _masquerading(self) -> Masquerading:
        from shared.masquerade import backend

        return backend(self.keys.ipMasqBackend)

    def open_netns(self) -> Netns:
        """Open the pod's namespace for ADD. Raise CniError if there is none, or no sysctl of it could be set."""
        from shared.net import sysctl

        found = netns.open_netns(self.call.netns)
        sysctl.require_visible()
        return found

    def assign(
        self,
        undo: Undo,
        *,
        interface: int,
        is_gateway: bool = False,
        has_default_routes: bool = False,
        keep: AbstractSet[str] = frozenset(),
        given: Result | None = None,
    ) -> Result:
        """Have the IPAM plugin assign addresses. Return a result with them, its routes and DNS settings.

        Without an IPAM plugin, the result is `given`, empty by default.

        `interface` is the place of the pod's interface among the result's, which the caller fills in. If `is_gateway`,
        an address without a gateway gets the first one of its network. If `has_default_routes`, each family without a
        default route gets one.

        Also remove the packet filters that this attachment and its addresses had earlier; those in `keep` the call
        replaces itself (names of shared/pod/filters.py, besides masquerading).
        Raises InternalError if the IPAM plugin returns no address.
        """
        result = delegate.add(self.call, undo) if self.ipam else given or Result()
        self._remove_former_filters(result, keep)
        if self.ipam and not result.ips:
            raise InternalError(f"IPAM plugin {self.ipam} returned missing IP config")
        for ip in result.ips:
            ip.interface = interface
            if ip.gateway is None and is_gateway:
                ip.gateway = ip.address.first + 1
            default = DEFAULT_ROUTES[ip.address.version]
            if has_default_routes and all(route.dst != default for route in result.routes):
                result.routes.append(Route(default, ip.gateway))
        if self.dns:
            result.dns = self.dns
        return result

    def complete(self, result: Result, *interfaces: Interface) -> Result:
        """Return the result of the list so far: that of the plugins before, then this one's with its interfaces."""
        result.interfaces = list(interfaces)
        before = previous_result(self.call)
        return result.after(before) if before else result

    def _remove_former_filters(self, result: Result, keep: AbstractSet[str]) -> None:
        """Remove older filters of the attachment, which is new, and of its addresses.

        A pod that comes back under its id, or gets the address of one that nobody deleted, must not inherit its rules.
        """
        tables = filter_tables.present()
        if not tables:
            return
        from shared.pod import filters

        if self.masquerades and result.ips:
            by_iptables = self.keys.ipMasqBackend == "iptables"
            keep = {*keep, filters.MASQUERADE_BY_IPTABLES if by_iptables else filters.MASQUERADE}
        filters.renew(self.owner, [ip.address.address for ip in result.ips], tables, keep=keep)

    def masquerade(self, undo: Undo, result: Result) -> None:
        """Masquerade the pod's packets to other networks, but for `exempt` ones, if the configuration demands it.

        Raises UnsupportedField if the kernel cannot.
        """
        if self.masquerades and result.ips:
            own = [ip.address for ip in result.ips]
            supported("ipMasq", lambda: self._masquerading.add(undo, self.owner, own, self.exempt))

    def check(self, kind: str | None, parts_on_host: FindParts, *, is_up: bool = True) -> None:
        """Serve CHECK: raise InternalError with all differences from the state that ADD left.

        The pod's interface must be a link of `kind` (None: any) with the demanded MAC, addresses and routes, and up if
        `is_up`.
        `parts_on_host(host, pod_netns, link, previous)` returns the plugin's own parts.
        """
        found, parts = self._find_parts(kind, parts_on_host, is_up=is_up)
        if self.ipam:
            parts.append((lambda: failure(lambda: delegate.forward(self.call)), None))
        compare(found, parts)

    def repair(self, kind: str | None, parts_on_host: FindParts, *, is_up: bool = True) -> list[str]:
        """Make again the parts on the host that differ. Return CHECK's texts for these; IPAM is not asked.

        Raise InternalError as CHECK does if a difference remains, as one inside the pod.
        """
        return restore(*self._find_parts(kind, parts_on_host, is_up=is_up))

    def _find_parts(self, kind: str | None, parts_on_host: FindParts, *, is_up: bool) -> tuple[str, list[Part]]:
        """Return CHECK's message, and the parts: the pod's own end, the plugin's, masquerading."""
        from shared.net import verify

        call = self.call
        previous = self.previous()
        pod_netns = netns.open_netns(call.netns)
        host = Netlink()
        with pod_netns:
            steps.begin("pod")
            inside = Netlink()
            link = links.get(inside, call.ifname)
        mac = self.mac or verify.own_mac(previous, call)

        def compare_inside() -> list[str]:
            if link is None:
                return [f"link {call.ifname} is missing in {call.netns}"]
            problems = []
            if kind not in (None, links.kind(link)):
                problems.append(f"link {call.ifname} in {call.netns} is not a {kind}")
            verify.link(link, call, problems, mac=mac, is_up=is_up)
            verify.layer_3(inside, link, call, previous, problems)
            return problems

        parts = [(compare_inside, None), *parts_on_host(host, pod_netns, link, previous)]
        own = [ip.address for ip in verify.own_ips(previous, call)] if self.masquerades else []
        if own:
            rules, owner = self._masquerading, self.owner
            look = lambda: rules.problems(owner, own, self.exempt)  # noqa: E731
            parts.append((look, lambda: rules.add(Undo(), owner, own, self.exempt, replace=False)))
        return f"{call.network} {call.ifname} is not as it was made", parts

    def previous(self) -> Result:
        """Return the result that CHECK and a repair compare the attachment with."""
        return previous_result(self.call) or Result()

    def status_in_pod(self, trial: Callable[[], object]) -> None:
        """Serve STATUS of a plugin that makes nothing on the host but what `trial` tries, which raises CniError."""

        def look() -> list[str]:
            from shared.net import readiness, sysctl

            sysctl.require_visible()
            found = failure(trial)
            return found + (readiness.ipv6(self.keys.mtu) if readiness.has_ipv6(delegate.networks(self.call)) else [])

        self.status(look)

    def status(self, look: Callable[[], list[str]], *trials: tuple[str, Callable[[], object]]) -> None:
        """Serve STATUS: raise PluginNotAvailable if an ADD could not succeed.

        `look()` returns the reasons that the plugin itself finds. Each of `trials` is a key, and a function that raises
        CniError if the node lacks something that the key needs.
        """
        try:
            problems = look()
        except CniError as error:
            problems = [str(error)]
        if problems:
            raise PluginNotAvailable(problems[0], "; ".join(problems[1:]))
        masquerading = ("ipMasq", lambda: self._masquerading.try_out(self.exempt))
        for key, trial in (*([masquerading] if self.masquerades else []), *trials):
            available(key, trial)
        if self.ipam:
            delegate.forward(self.call)


def wanted_mac(call: Call, keys: MacKeys) -> tuple[str, str]:
    """Return the first key that demands a MAC, and the MAC; two empty texts if none does."""
    asked: dict[str, Any] = {
        "runtimeConfig.mac": keys.runtimeConfig and keys.runtimeConfig.mac,
        "args.cni.mac": keys.args and keys.args.cni and keys.args.cni.mac,
        "CNI_ARGS MAC": call.args(EnvironmentArgs).MAC,
        "mac": getattr(keys, "mac", ""),
    }
    return next(((key, wanted) for key, wanted in asked.items() if wanted), ("", ""))


def interface(link: Message, sandbox: str = "") -> Interface:
    """Return a link as a result lists it; `sandbox` is the path of its network namespace, empty for the host's."""
    return Interface(link["IFLA_IFNAME"], link.get("IFLA_ADDRESS", ""), sandbox, link["IFLA_MTU"])
