"""Read the addresses that the configuration and the runtime name, and refuse those that no pod can use."""

from __future__ import annotations

from shared.cni import config
from shared.cni.config import field, integer, invalid, list_of, obj, prefix, section, text
from shared.cni.errors import InvalidConfig, InvalidEnvironment
from shared.cni.ip import Address, Prefix
from shared.cni.result import IP, dns_from_json, routes_from_config
from shared.cni.versions import at_least

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Union

    from shared.cni.call import Call

    Requested = Union[Address, Prefix]

LINK_LOCAL = Prefix(Address(6, 0xFE80 << 112), 10)
MOST_PROBE_SECONDS = 10
MULTICAST = {4: Prefix(Address(4, 0xE0 << 24), 4), 6: Prefix(Address(6, 0xFF << 120), 8)}


def _requested(value: Any) -> Requested:
    try:
        return Prefix.parse(value) if "/" in value else Address.parse(value)
    except (ValueError, TypeError):
        raise ValueError("must be an address, such as 10.1.0.5/24 or 10.1.0.5") from None


requested = config.Kind(_requested, {"type": "string"})


class AddressConfig(config.Config):
    """The keys of one address."""

    address: Prefix = field(prefix, None, "the address in CIDR notation", required=True)
    gateway: Address | None = field(config.address, None, "the gateway of its network")


class IpamConfig(config.Config):
    """The keys of static, below `ipam`."""

    addresses: list[AddressConfig] = field(list_of(section(AddressConfig)), (), "the pod's addresses")
    gateways: dict[int, Address] = field(
        config.gateways, {}, "gateways, one per family, for addresses that the runtime requests"
    )
    routes: list[dict[str, Any]] = field(list_of(obj), (), "routes for the result: dst, gw and, from 1.1.0, the others")
    dns: dict[str, Any] = field(obj, {}, "DNS settings for the result")
    probeSeconds: int = field(
        integer(0, MOST_PROBE_SECONDS), 0,
        "seconds for which ADD looks for other hosts with the addresses, and fails if there is one; 0: do not look",
    )  # fmt: skip


class RuntimeConfig(config.Config):
    """The keys that the runtime adds for the `ips` capability."""

    ips: list[Requested] = field(list_of(requested), (), "addresses that replace all others (capability `ips`)")


class CniArgs(config.Config):
    """The keys of `args.cni`."""

    ips: list[Requested] = field(list_of(requested), (), "addresses that replace those of the configuration")


class Args(config.Config):
    """The keys of `args`."""

    cni: CniArgs | None = field(section(CniArgs), None, "see args.cni")


class EnvironmentArgs(config.Config):
    """The names in CNI_ARGS that static reads."""

    IP: str = field(text, "", "more addresses, separated by commas")
    GATEWAY: str = field(text, "", "their gateways, separated by commas")


class Config(config.Config):
    """The keys of a network's configuration that static reads."""

    ipam: IpamConfig = field(section(IpamConfig), None, "see ipam", required=True)
    args: Args | None = field(section(Args), None, "see args")
    runtimeConfig: RuntimeConfig | None = field(section(RuntimeConfig), None, "see runtimeConfig")


class Assignment:
    """The validated configuration of a call: the addresses, each with the key that names it, routes and DNS."""

    def __init__(self, call: Call) -> None:
        keys: Config = Config.read(call.config)
        self.routes = routes_from_config("ipam.routes", keys.ipam.routes)
        try:
            self.dns = dns_from_json(keys.ipam.dns)
        except ValueError as error:
            raise invalid("ipam.dns", keys.ipam.dns, str(error)) from None
        self.probe_seconds = keys.ipam.probeSeconds
        self.gateways = keys.ipam.gateways
        self.configured = {
            f"ipam.addresses[{place}]": IP(one.address, one.gateway) for place, one in enumerate(keys.ipam.addresses)
        }
        self.ips = {**self.configured, **self._of_environment(call)}
        by_key = {
            "args.cni.ips": keys.args.cni.ips if keys.args and keys.args.cni else (),
            "runtimeConfig.ips": keys.runtimeConfig.ips if keys.runtimeConfig else (),
        }
        for key, wanted in by_key.items():
            if wanted:  # as in the reference: the last one that names addresses counts alone
                self.ips = {f"{key}[{place}]": self._complete(key, one) for place, one in enumerate(wanted)}
        self._validate(call)

    def _of_environment(self, call: Call) -> dict[str, IP]:
        """Return the addresses of CNI_ARGS. Its gateways serve these alone, as in the reference."""
        arguments: EnvironmentArgs = call.args(EnvironmentArgs)
        named, found = [], {}
        for gateway in filter(None, map(str.strip, arguments.GATEWAY.split(","))):
            try:
                named.append(Address.parse(gateway))
            except ValueError:
                raise InvalidEnvironment(f"CNI_ARGS: GATEWAY {gateway!r} is not an address") from None
        for place, one in enumerate(arguments.IP.split(",") if arguments.IP else ()):
            try:
                ip = self._complete("CNI_ARGS IP", _requested(one.strip()))
            except ValueError as error:
                raise InvalidEnvironment(f"CNI_ARGS: IP {one!r} {error}") from None
            ip.gateway = next((gateway for gateway in reversed(named) if gateway in ip.address), ip.gateway)
            found[f"CNI_ARGS IP[{place}]"] = ip
        return found

    def _complete(self, key: str, wanted: Requested) -> IP:
        """Return a requested address with its prefix length and gateway.

        An address without a length takes both from the configured address of its network. Raise InvalidConfig if not
        exactly one network holds it.
        """
        if isinstance(wanted, Prefix):
            return IP(wanted, self._gateway_of(wanted))
        holding = {one.address.network: one for one in self.configured.values() if wanted in one.address}
        if len(holding) != 1:
            found = "several of them hold it" if holding else "none of them holds it"
            reason = f"has no prefix length, and takes it from the network of ipam.addresses that holds it, but {found}"
            raise invalid(key, str(wanted), reason)
        (template,) = holding.values()
        own = Prefix(wanted, template.address.length)
        return IP(own, template.gateway or self._gateway_of(own))

    def _gateway_of(self, own: Prefix) -> Address | None:
        gateway = self.gateways.get(own.version)
        return gateway if gateway and self._reaches(own, gateway) else None

    def _reaches(self, own: Prefix, gateway: Address) -> bool:
        """Return True if a pod with this address can have the gateway as neighbour."""
        return (
            gateway in own
            or gateway in LINK_LOCAL
            or own.length == own.address.bits
            or any(gateway in route.dst for route in self.routes if route.gw is None and route.dst.length)
        )

    def _validate(self, call: Call) -> None:
        """Raise InvalidConfig for an address or gateway that a pod cannot use."""
        seen: set[Address] = set()
        for key, ip in self.ips.items():
            own, gateway = ip.address, ip.gateway
            if reason := _unusable(own) or ("is there twice" if own.address in seen else ""):
                raise invalid(key, str(own), reason)
            seen.add(own.address)
            if gateway is None:
                continue
            if gateway == own.address or gateway.version != own.version or not self._reaches(own, gateway):
                reason = "is the address itself" if gateway == own.address else f"is not in the network of {own}"
                raise invalid(f"{key}.gateway", str(gateway), f"{reason}: the pod could not use it")
        families = [ip.address.version for ip in self.ips.values()]
        if not at_least(call.version, "0.3.0") and len(set(families)) < len(families):
            raise InvalidConfig(f"CNI version {call.version} does not support more than 1 address per family")


def _unusable(own: Prefix) -> str:
    """Return the reason why no interface can have the address, empty if one can."""
    if own.address.value == 0 or own.address in MULTICAST[own.version]:
        return "is not a unicast address"
    if own.address.bits - own.length < 2:
        return ""
    if own.address == own.first:
        return "is the address of its network, not of a host"
    return "is the broadcast address of its network" if own.version == 4 and own.address == own.last else ""
