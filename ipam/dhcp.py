"""dhcp: lease an address from the network's DHCP server, through the daemon that renews it (shared/cli/dhcp)."""

from __future__ import annotations

import posix

from shared import steps
from shared.cni import config
from shared.cni.call import folded
from shared.cni.config import absolute_path, boolean, choice, field, integer, invalid, list_of, section, text
from shared.cni.errors import InternalError, PluginNotAvailable, UnsupportedField
from shared.cni.plugin import previous_result, valid_attachments
from shared.cni.result import Result
from shared.cni.versions import CURRENT
from shared.dhcp import channel, records
from shared.undo import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shared.cni.call import Call
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.undo import Undo

CLIENT_ID_BYTES = 254  # of option 61, whose first byte is the type
OPTION_BYTES = 255
CLIENT_ID = 61
MOST_PROBE_SECONDS = 10  # of 45 for the lease
MOST_ADDRESSES = 64  # of a link that are looked at for a link-local one
# Requested by default. RFC 3442: option 121 stands before 3 and 33, for servers that give a limited number.
USED = (1, 121, 3, 33, 6, 15, 26, 119)
NAMES = {  # as in dhcp-options(5)
    "subnet-mask": 1, "routers": 3, "domain-name-servers": 6, "host-name": 12, "domain-name": 15, "interface-mtu": 26,
    "static-routes": 33, "ntp-servers": 42, "vendor-class-identifier": 60, "dhcp-client-identifier": CLIENT_ID,
    "user-class": 77, "domain-search": 119, "classless-static-routes": 121,
}  # fmt: skip
STATEFUL, STATELESS = "stateful", "stateless"
ETHERNET = 1  # ARPHRD_ETHER in linux/if_arp.h
DUID_LL = 3  # RFC 8415, section 11.4
OF_THE_PROTOCOL = {50, 51, 52, 53, 54, 55, 57, 82}  # the daemon sets these options, or a relay does


def _option(value: Any) -> int:
    """Parse the number or the name of an option."""
    if isinstance(value, str):
        value = NAMES.get(value, int(value) if value.isascii() and value.isdigit() and len(value) <= 3 else 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 254:
        raise ValueError(f"must be a number from 1 to 254 or one of {', '.join(NAMES)}")
    return value


FORMS = [{"type": "string", "pattern": "^[0-9a-z-]+$"}, {"type": "integer", "minimum": 1, "maximum": 254}]
option = config.Kind(_option, {"anyOf": FORMS}, empty_is_unset=True)


class ProvideConfig(config.Config):
    """The keys of an option that is sent."""

    option: int = field(option, None, "number or name of the option", required=True)
    value: str = field(text, "", "the option's bytes, as text")
    fromArg: str = field(text, "", "the name in CNI_ARGS, such as K8S_POD_NAME, that has the bytes; it counts first")


class RequestConfig(config.Config):
    """The keys of an option that is requested."""

    option: int = field(option, 0, "number or name of the option")
    skipDefault: bool = field(boolean, False, "request and use the options of this list, and no others")


class IpamConfig(config.Config):
    """The keys of dhcp, below `ipam`."""

    daemonSocketPath: str = field(absolute_path, channel.SOCKET_PATH, "the daemon's socket")
    provide: list[ProvideConfig] = field(list_of(section(ProvideConfig)), (), "options that each message carries")
    request: list[RequestConfig] = field(
        list_of(section(RequestConfig)), (),
        f"options requested besides {', '.join(map(str, USED))}; those are used if the server sends them",
    )  # fmt: skip
    priority: int | None = field(integer(0, 2**32 - 1), None, "metric of the lease's routes")
    suppress: list[str] = field(
        list_of(choice("gateway")), (), "parts of the lease that are not used: gateway, the default route"
    )
    clientId: str = field(
        text, "container",
        "option 61: container (container id, network and interface), mac, or any other text, which is sent as it is",
    )  # fmt: skip
    broadcast: bool | None = field(
        boolean,
        None,
        "ask the server to broadcast its answers; default: for ipvlan, and if the daemon's option says so",
    )
    probeSeconds: int = field(
        integer(0, MOST_PROBE_SECONDS), 0,
        "look so long for another host with a new address, and decline it if there is one; 0: do not look",
    )  # fmt: skip
    dhcpv4: bool = field(boolean, True, f"lease an IPv4 address; false needs dhcpv6 to be {STATEFUL}")
    dhcpv6: str = field(
        choice(STATEFUL, STATELESS), "",
        f"{STATEFUL}: lease an IPv6 address, too; {STATELESS}: take DNS settings from the DHCPv6 server, and addresses"
        " from routers. In both cases routers give the routes",
    )  # fmt: skip


class Config(config.Config):
    """The keys of a network's configuration that dhcp reads."""

    ipam: IpamConfig = field(section(IpamConfig), None, "see ipam", required=True)


class Wish:
    """The validated configuration of a call. Creating it changes nothing on the host."""

    def __init__(self, call: Call) -> None:
        keys: IpamConfig = Config.read(call.config).ipam
        self.call = call
        self.keys = keys
        self.socket_path = _usable(keys.daemonSocketPath)
        self.provided = _provided(call, keys)
        listed = [one.option for one in keys.request if one.option]
        is_alone = any(one.skipDefault for one in keys.request)
        self.requested = list(dict.fromkeys([*(() if is_alone else USED), *listed]))
        self.families = [4] * keys.dhcpv4 + [6] * (keys.dhcpv6 == STATEFUL)
        if not self.families:
            raise invalid("ipam.dhcpv4", False, f'needs "dhcpv6": "{STATEFUL}", for an address to lease')

    @property
    def client_id(self) -> bytes:
        """Return option 61, empty for the one that names the MAC."""
        given, call = self.keys.clientId, self.call
        if given == "mac":
            return b""
        if given in ("", "container"):
            given = f"{call.container_id}/{call.network}/{call.ifname}"
        return b"\0" + given.encode()[:CLIENT_ID_BYTES]

    def request(self, mac: str, *, is_shared: bool) -> dict[str, Any]:
        """Return the daemon's request for leases. `is_shared` says that other links have the same MAC."""
        client_id = self.provided.get(CLIENT_ID, self.client_id)
        sent = {str(number): value.hex() for number, value in self.provided.items() if number != CLIENT_ID}
        return _named(self.call) | {
            "op": "acquire", "netns": self.call.netns, "clientID": client_id.hex(), "provide": sent,
            "request": self.requested, "priority": self.keys.priority,
            "withoutGateway": "gateway" in self.keys.suppress, "broadcast": is_shared or self.keys.broadcast,
            "probeSeconds": self.keys.probeSeconds,
            "families": self.families, "isStateless": self.keys.dhcpv6 == STATELESS,
            **_identity(self.call, mac, is_shared=is_shared),
        }  # fmt: skip


def _identity(call: Call, mac: str, *, is_shared: bool) -> dict[str, str]:
    """Return the client's names for DHCPv6: a DUID-LL, and the IAID, which tells links with the same MAC apart."""
    address = bytes.fromhex(mac.replace(":", ""))
    iaid = address[-4:].hex()
    if is_shared:
        iaid = records.key(call.network, call.container_id, call.ifname)[:8]
    head = DUID_LL.to_bytes(2, "big") + ETHERNET.to_bytes(2, "big")
    return {"duid": (head + address).hex(), "iaid": iaid}


read = Wish  # for validate, which touches nothing


def _usable(path: str) -> str:
    if len(path.encode()) > channel.PATH_BYTES:
        raise invalid(
            "ipam.daemonSocketPath", path, f"is longer than {channel.PATH_BYTES} bytes: no socket can have it"
        )
    return path


def _provided(call: Call, keys: IpamConfig) -> dict[int, bytes]:
    """Return the options to send: number and bytes. An option without a value is left out."""
    arguments = dict(pair.partition("=")[::2] for pair in call.args_text.split(";") if "=" in pair)
    provided = {}
    for place, one in enumerate(keys.provide):
        value = arguments.get(one.fromArg, one.value).encode(errors="surrogateescape")
        if one.option in OF_THE_PROTOCOL:
            raise invalid(f"ipam.provide[{place}].option", one.option, "belongs to the protocol, so it cannot be set")
        if len(value) > OPTION_BYTES:
            raise invalid(f"ipam.provide[{place}]", value.decode(errors="replace"), f"exceeds {OPTION_BYTES} bytes")
        if value:
            provided[one.option] = value
    return provided


def _named(call: Call) -> dict[str, Any]:
    return {"network": call.network, "containerID": call.container_id, "ifname": call.ifname}


def add(call: Call, undo: Undo) -> Result:
    """Lease an address. Return it with the routes and the DNS settings that the server gave."""
    from shared.net import netns

    wish = Wish(call)
    pod_netns = netns.open_netns(call.netns)
    mac, is_ipvlan = _prepare(wish, pod_netns)
    steps.begin("lease")
    undo.push("release the lease", lambda: _release(call, wish.socket_path))
    request = wish.request(mac, is_shared=is_ipvlan)
    answer = channel.ask(wish.socket_path, request, descriptor=pod_netns.descriptor, seconds=channel.ACQUIRE_SECONDS)
    result = Result.from_json(answer, CURRENT, "answer of the dhcp daemon")
    result.keeps_advertisements = bool(wish.keys.dhcpv6)
    return result


def _prepare(wish: Wish, pod_netns: Netns) -> tuple[str, bool]:
    """Bring the pod's link up, and wait until it can ask a server. Return its MAC, and True for an ipvlan link.

    Raises UnsupportedField if the link cannot broadcast.
    """
    from shared.net import bare_link, links, sysctl

    if not wish.keys.dhcpv6:
        link = bare_link.bring_up(pod_netns, wish.call.ifname)
    else:
        conf = f"ipv6/conf/{wish.call.ifname}/"
        with pod_netns:
            detection = sysctl.read(f"{conf}accept_dad") or "1"
        link = bare_link.bring_up(pod_netns, wish.call.ifname, lambda _: _accept_routers(wish, conf))
        with pod_netns:
            _await_link_local(link)
            sysctl.prefer(f"{conf}accept_dad", detection)
    is_ipvlan = links.kind(link) == "ipvlan"
    if wish.keys.probeSeconds and is_ipvlan:
        raise UnsupportedField(
            '"ipam.probeSeconds" is impossible with ipvlan: it has the MAC of its master, which gets the answers'
        )
    return link["IFLA_ADDRESS"], is_ipvlan


def _accept_routers(wish: Wish, conf: str) -> None:
    """Make the link take routes from routers, and use its link-local address at once: the MAC makes it unique."""
    from shared.net import sysctl

    keys = wish.keys
    for name in ("lo", wish.call.ifname):
        sysctl.require(f"ipv6/conf/{name}/disable_ipv6", "0")
    sysctl.require(f"{conf}accept_ra", "1")
    sysctl.require(f"{conf}autoconf", str(int(keys.dhcpv6 == STATELESS)))
    sysctl.require(f"{conf}accept_ra_defrtr", str(int("gateway" not in keys.suppress)))
    if keys.priority:
        sysctl.prefer(f"{conf}ra_defrtr_metric", str(keys.priority))  # Linux 5.12
    sysctl.prefer(f"{conf}accept_dad", "0")


def _await_link_local(link: Message) -> None:
    """Wait for the link's IPv6 link-local address, from which DHCPv6 asks."""
    from shared.net import addresses, wait
    from shared.net.netlink import Netlink

    inside, index = Netlink(), link["index"]

    def has_one() -> bool:
        return any(address in addresses.LINK_LOCAL for address in addresses.usable(inside, index, most=MOST_ADDRESSES))

    failure = f"link {link['IFLA_IFNAME']} has no IPv6 link-local address, which DHCPv6 needs"
    wait.addresses_change(has_one, wait.DAD_SECONDS, failure)


def check(call: Call) -> None:
    """Raise InternalError if the daemon holds no valid lease, or one for another address than prevResult has."""
    wish = Wish(call)
    previous = previous_result(call) or Result()
    found = channel.ask(wish.socket_path, _named(call) | {"op": "look", "families": wish.families})
    problems = list(found.get("problems", ()))
    for leased in found.get("addresses", ()):
        version = 6 if ":" in leased else 4
        had = [str(ip.address) for ip in previous.ips if ip.address.version == version]
        if leased not in had:
            known = ", ".join(had) or f"no IPv{version} address"
            problems.append(f"the server leases {leased} now, and ADD's result has {known}")
    if problems:
        details = "; ".join(problems)
        raise InternalError(f"dhcp: the lease of {call.container_id} {call.ifname} is not as ADD left it", details)


def delete(call: Call) -> None:
    """Give the lease back. Without the daemon leave that to it: it does so when it runs again."""
    _release(call, _socket_path(call))


def _release(call: Call, socket_path: str) -> None:
    try:
        channel.ask(socket_path, _named(call) | {"op": "release"})
    except channel.NoDaemon:
        for name in records.keys(records.key(call.network, call.container_id, call.ifname)):
            records.give_up(name)


def _socket_path(call: Call) -> str:
    """Return the daemon's socket for DEL and GC, which work even if other keys are invalid."""
    ipam = folded(call.config, "ipam")
    given = folded(ipam, "daemonSocketPath") if isinstance(ipam, dict) else None
    try:
        return _usable(absolute_path.parse(given)) if given else channel.SOCKET_PATH
    except ValueError as error:
        raise invalid("ipam.daemonSocketPath", given, str(error)) from None


def gc(call: Call) -> None:
    """Give the leases of attachments back that are no longer valid."""
    valid = valid_attachments(call)
    request = {"op": "gc", "network": call.network, "valid": sorted(map(list, valid))}
    try:
        channel.ask(_socket_path(call), request)
    except channel.NoDaemon:
        for name, found in records.of_network(call.network):
            if (found.get("containerID"), found.get("ifname")) not in valid:
                records.give_up(name)


def status(call: Call) -> None:
    """Raise PluginNotAvailable if no daemon answers."""
    wish = Wish(call)
    try:
        channel.ask(wish.socket_path, {"op": "status"})
    except channel.NoDaemon as error:
        raise PluginNotAvailable(error.msg, error.details) from None


def command(tree: str, words: list[str]) -> int:
    """Run `dhcp daemon OPTIONS`: execute cnitool's command, with the operator tools' Python. Return a status."""
    python = f"{tree.rpartition('/')[0]}/tools/bin/python"
    if words[0] != "daemon":
        complain(f"dhcp: unknown command {words[0]!r}; the only one is `dhcp daemon`, and plugins need CNI_COMMAND")
        return 2
    script = f"import sys; sys.path.insert(0, {tree!r}); from shared.cli.cnitool import main; main({tree!r})"
    try:
        posix.execve(python, [python, "-IS", "-c", script, "dhcp", *words[1:]], posix.environ)
    except OSError as error:
        complain(
            f"dhcp: cannot execute {python}: {error.strerror}; install the daemon with `./install.sh --with-tools`"
        )
    return 2
