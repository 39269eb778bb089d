"""tuning: sets sysctls of the pod and attributes of the interface that an earlier plugin made; DEL restores them."""

from __future__ import annotations

from shared.cni import config, record
from shared.cni.call import folded
from shared.cni.config import absolute_path, boolean, field, integer, mac, section
from shared.cni.errors import CniError, InternalError, InvalidConfig, PluginNotAvailable
from shared.cni.plugin import compare, readable_result, required_result, restore
from shared.net import attachment_records, link_attributes, links, netns, pod_sysctls, sysctl
from shared.net.netlink import Netlink
from shared.net.owner import Owner
from shared.net.wire import IFF_UP
from shared.undo import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shared.cni.call import Call
    from shared.cni.plugin import Part
    from shared.cni.result import Result
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.undo import Undo

LEAST_MTU = 68  # bytes; ETH_MIN_MTU in linux/if_ether.h
LEAST_IPV6_MTU = 1280  # bytes; IPV6_MIN_MTU in linux/ipv6.h


class Attributes(config.Config):
    """The keys that the configuration and args.cni share."""

    sysctl: dict[str, str] = field(
        pod_sysctls.sysctls, {}, "sysctls below net, and their values; IFNAME in a key stands for the interface"
    )
    mac: str = field(mac, "", "MAC of the interface")
    mtu: int = field(integer(0, 65535), 0, "MTU in bytes; 0 leaves it as it is")
    promisc: bool | None = field(boolean, None, "promiscuous mode")
    allmulti: bool | None = field(boolean, None, "all-multicast mode")
    txQLen: int | None = field(integer(0, 2**32 - 1), None, "length of the transmission queue in packets")


class Args(config.Config):
    """args."""

    cni: Attributes | None = field(section(Attributes), None, "see args.cni; precedes the configuration's own keys")


class RuntimeConfig(config.Config):
    """The runtime's keys for the capability `mac`."""

    mac: str = field(mac, "", "MAC of the interface (capability `mac`)")


class EnvironmentArgs(config.Config):
    """The names that CNI_ARGS may have."""

    MAC: str = field(mac, "", "MAC of the interface")


class Config(Attributes):
    """tuning's keys."""

    dataDir: str = field(absolute_path, "/run/cni/tuning", "directory of the files that record former values")
    args: Args | None = field(section(Args), None, "see args.cni")
    runtimeConfig: RuntimeConfig | None = field(section(RuntimeConfig), None, "see runtimeConfig")


class Attachment:
    """A call's configuration, validated before anything is touched."""

    def __init__(self, call: Call) -> None:
        keys: Config = Config.read(call.config)
        _refuse_duplicates(call)
        arguments: Attributes | None = keys.args.cni if keys.args else None
        asked: dict[str, Any] = {
            "args.cni.mac": arguments and arguments.mac,
            "runtimeConfig.mac": keys.runtimeConfig and keys.runtimeConfig.mac,
            "CNI_ARGS MAC": call.args(EnvironmentArgs).MAC,
            "mac": keys.mac,
        }
        self.mac_key: str = next((key for key, mac in asked.items() if mac), "")
        self.mac: str = asked.get(self.mac_key, "")
        self.attributes = _choose_attributes(keys, arguments, self.mac)
        named = {**keys.sysctl, **(arguments.sysctl if arguments else {})}
        pod_sysctls.require_allowed(named)
        try:
            self.sysctls = {pod_sysctls.path_of(key, call.ifname): value for key, value in named.items()}
        except config.Invalid as error:  # with the interface's name a key can become a host-wide sysctl
            raise config.invalid(f"sysctl{error.path}", error.value, error.reason) from None
        self.call = call
        self.owner = Owner(call.network, call.container_id, call.ifname)
        self.record = attachment_records.path(keys.dataDir, call)


read = Attachment  # for validate, which touches nothing


def _choose_attributes(keys: Config, arguments: Attributes | None, mac: str) -> dict[str, Any]:
    """Return the attributes to set. args.cni precedes the configuration's own keys; an empty MAC and MTU 0 are unset.

    Raise InvalidConfig for an MTU that no link can have.
    """
    chosen = {name: getattr(keys, name) for name in ("mtu", "promisc", "allmulti", "txQLen")}
    if arguments:
        chosen |= {
            name: value
            for name in chosen
            if (value := getattr(arguments, name)) is not None and (value or name != "mtu")
        }
    unset = {"mac": "", "mtu": 0}
    wanted = {"mac": mac, **chosen}
    attributes = {name: value for name, value in wanted.items() if value is not None and value != unset.get(name)}
    mtu = attributes.get("mtu", LEAST_MTU)
    if mtu < LEAST_MTU:
        raise config.invalid("mtu", mtu, f"must be 0 or at least {LEAST_MTU}, the least that a link can have")
    return attributes


def _refuse_duplicates(call: Call) -> None:
    """Raise InvalidConfig if `sysctl` has a key twice: JSON would silently take the last one."""
    if not call.config.get("sysctl"):
        return
    from shared.cni.fastjson import repeated

    for key in repeated(call.stdin):
        if key.startswith("net") and key in call.config["sysctl"]:
            raise InvalidConfig(f'invalid configuration: "sysctl": "{key}" is there more than once')


def _require_room_for_ipv6(mtu: int, result: Result) -> None:
    """Raise InvalidConfig if the kernel would delete the result's IPv6 addresses for this MTU. 0 means no change."""
    lost = [str(ip.address.address) for ip in result.ips if ip.address.address.version == 6]
    if lost and 0 < mtu < LEAST_IPV6_MTU:
        reason = f"must be at least {LEAST_IPV6_MTU}, since the pod has the IPv6 address {lost[0]}"
        raise config.invalid("mtu", mtu, reason)


def add(call: Call, undo: Undo) -> Result:
    """Set sysctls and attributes in the pod. Return the previous result with the new MAC and MTU."""
    attachment = Attachment(call)
    result = required_result(call)
    _require_room_for_ipv6(attachment.attributes.get("mtu", 0), result)
    host = Netlink() if attachment.mac else None
    pod_netns = netns.open_netns(call.netns)
    namespace = pod_netns.identity()
    with pod_netns:
        pod = Netlink()
        link = links.require(pod, call.ifname) if attachment.attributes else {}
        present = {path: sysctl.read(path) for path in attachment.sysctls}
        if host and link.get("IFLA_ADDRESS") != attachment.mac:
            from shared.net import macs

            macs.require_free_of_pod(host, pod_netns, link, attachment.owner, attachment.mac_key, attachment.mac)
        missing = [path for path, value in present.items() if value is None]
        if missing:
            raise InternalError(f"the kernel has no sysctl net/{missing[0]} in {call.netns}")
        now = link_attributes.read(link) if link else {}
        attributes = {name: value for name, value in now.items() if name in attachment.attributes}
        before = {**attributes, "sysctl": present}
        _record(undo, attachment, namespace, before)
        undo.push(f"set {call.ifname} back", lambda: _restore(pod_netns, call.ifname, before))
        for path, value in attachment.sysctls.items():
            sysctl.write(path, value)
        _set_attributes(pod, link, attachment.attributes)
    for interface in result.interfaces:
        if interface.sandbox and interface.name == call.ifname:
            interface.mac = attachment.mac or interface.mac
            interface.mtu = attachment.attributes.get("mtu", interface.mtu)
    return result


def _set_attributes(pod: Netlink, link: Message, attributes: dict[str, Any]) -> None:
    """Set attributes of the link. Announce a new MAC."""
    if attributes:
        link_attributes.write(pod, link, attributes)
    if "mac" in attributes and link["flags"] & IFF_UP:
        link_attributes.announce(pod, link, attributes["mac"])


def _record(undo: Undo, attachment: Attachment, namespace: str, before: dict[str, Any]) -> None:
    """Record the former values. Keep the record of an earlier ADD: DEL must restore the values from before it."""
    path = attachment.record
    is_recorded = _is_recorded(path, namespace)
    if not is_recorded and (attachment.attributes or attachment.sysctls):
        record.write(path, {**before, **attachment_records.marks(attachment.call, namespace)})
        undo.push(f"remove {path}", lambda: record.remove(path))


def _is_recorded(path: str, namespace: str) -> bool:
    """Return True if the file records former values of this namespace. Delete a record of another, lost one."""
    recorded = record.read(path)
    if attachment_records.namespace(recorded) not in ("", namespace):
        record.remove(path)
        return False
    return bool(recorded)


def _is_tuned(call: Call, recorded: dict[str, Any], pod_netns: Netns) -> bool:
    """Return True if this is the namespace that ADD tuned; another pod's may have its path by now.

    If the record names no namespace, the interface's other end must be the attachment's own or named in its result.
    """
    from shared.net import peers

    if namespace := attachment_records.namespace(recorded):
        return namespace == pod_netns.identity()
    host, owner = Netlink(), Owner(call.network, call.container_id, call.ifname)
    end = peers.attempt(lambda: peers.of_pod(host, pod_netns, owner))
    return end is not None and (peers.is_own(end, owner) or end["IFLA_IFNAME"] in peers.names(readable_result(call)))


def _restore(pod_netns: Netns, ifname: str, before: dict[str, Any]) -> None:
    """Restore the recorded values, newest first. Complain about values that cannot be restored.

    This is no error, because a pod can prevent it: it can change a sysctl on which another depends, or replace its
    interface by another link. A second round restores values that the kernel refused for a passing reason.
    """
    if _set_back(pod_netns, ifname, before):
        for problem in _set_back(pod_netns, ifname, before):
            complain(f"cannot restore {problem}")


def _set_back(pod_netns: Netns, ifname: str, before: dict[str, Any]) -> list[str]:
    """Restore the values once. Return a message for each that cannot be restored."""
    problems: list[str] = []
    try:
        with pod_netns:
            _set_back_attributes(Netlink(), ifname, before, problems)
            _set_back_sysctls(before.get("sysctl"), problems)
    except (CniError, OSError) as error:
        problems.append(f"{ifname} in {pod_netns.path}: {error}")
    return problems


def _set_back_attributes(pod: Netlink, ifname: str, before: dict[str, Any], problems: list[str]) -> None:
    link = links.get(pod, ifname)
    if link is None:
        return
    have = link_attributes.read(link)
    for name in [*reversed(have)]:
        try:
            value = Attributes.fields[name].kind.parse(before[name]) if before.get(name) not in (None, "") else None
            if value not in (None, have[name]):
                link_attributes.write(pod, link, {name: value})
        except (CniError, ValueError) as error:  # ValueError: another program wrote the record
            problems.append(f"{name} of {ifname}: {error}")


def _set_back_sysctls(before: Any, problems: list[str]) -> None:
    for path, value in reversed(before.items()) if isinstance(before, dict) else ():
        try:
            if isinstance(value, str) and sysctl.read(pod_sysctls.path_of(f"net/{path}")) not in (value, None):
                sysctl.write(path, value)
        except (CniError, OSError, ValueError) as error:
            problems.append(f"sysctl net/{path}: {error}")


def check(call: Call) -> None:
    """Raise InternalError that names each difference from the configuration."""
    compare(*_read_parts(call))


def repair(call: Call) -> list[str]:
    """Set the attributes again that differ, and return CHECK's texts. The pod's own sysctls, set after ADD, stay."""
    return restore(*_read_parts(call, with_sysctls=False))


def _read_parts(call: Call, *, with_sysctls: bool = True) -> tuple[str, list[Part]]:
    """Return CHECK's message, and the attributes and sysctls."""
    attachment = Attachment(call)
    sysctls = attachment.sysctls if with_sysctls else {}
    pod_netns = netns.open_netns(call.netns)

    def look() -> list[str]:
        with pod_netns:
            have = link_attributes.read(links.require(Netlink(), call.ifname))
            now = {path: sysctl.read(path) for path in sysctls}
        texts = [
            f"{name} of {call.ifname} is {'none' if have[name] == '' else have[name]}, not {value}"
            for name, value in attachment.attributes.items()
            if have[name] != value
        ]
        wrong = [path for path, value in sysctls.items() if (now[path] or "").split() != value.split()]
        return texts + [f"sysctl net/{path} is {now[path]}, not {sysctls[path]}" for path in wrong]

    def set_again() -> None:
        with pod_netns:
            link = links.require(pod := Netlink(), call.ifname)
            have = link_attributes.read(link)
            _set_attributes(pod, link, {k: v for k, v in attachment.attributes.items() if have[k] != v})

    found = f"interface {call.ifname} of {call.network} is not as ADD tuned it: recreate the pod"
    return found, [(look, set_again)]


def _read_data_dir(call: Call) -> str:
    """Return the directory of records, the only key that DEL and GC need."""
    directory: str = Config.read({"dataDir": folded(call.config, "dataDir")}).dataDir
    return directory


def delete(call: Call) -> None:
    """Restore the former values if the pod's namespace still exists, and delete the record."""
    path = attachment_records.path(_read_data_dir(call), call)
    before = record.read(path)
    pod_netns = netns.open_if_there(call.netns)
    if before and pod_netns is not None:
        if _is_tuned(call, before, pod_netns):
            _restore(pod_netns, call.ifname, before)
        else:
            complain(f"{call.netns} is not the network namespace that ADD tuned: no values are restored in it")
    record.remove(path)


def gc(call: Call) -> None:
    """Delete the records of this network's attachments that are no longer valid: their pods are gone."""
    attachment_records.collect(_read_data_dir(call), call)


def status(call: Call) -> None:
    """Raise InvalidConfig for wrong keys, and PluginNotAvailable if sysctls are to be set and are hidden."""
    if Attachment(call).sysctls:
        try:
            sysctl.require_visible()
        except InternalError as error:
            raise PluginNotAvailable(error.msg, error.details) from None
