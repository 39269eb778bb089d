"""tuning: sysctls of the pod and attributes of its interface, set after another plugin made it, set back on DEL."""

from __future__ import annotations

import errno

from shared.cni import config, record
from shared.cni.call import folded
from shared.cni.config import absolute_path, boolean, field, integer, mac, section
from shared.cni.errors import CniError, InternalError, InvalidConfig, IOFailure, PluginNotAvailable
from shared.cni.plugin import previous_result, readable_result, valid_attachments
from shared.net import links, netns, sysctl
from shared.net.netlink import Netlink, NetlinkError, Request
from shared.net.owner import Owner, file_name
from shared.net.wire import IFF_ALLMULTI, IFF_PROMISC, IFF_UP, RTM_NEWLINK
from shared.undo import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shared.cni.call import Call
    from shared.cni.result import Result
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.undo import Undo

ALLOWLIST = "/etc/cni/tuning/allowlist.conf"
KEY_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:@/")
# Writable in a pod, and the host's all the same: one variable of the kernel serves every network namespace.
HOST_WIDE = frozenset({
    "netfilter/nf_hooks_lwtunnel", "netfilter/nf_conntrack_max", "netfilter/nf_conntrack_expect_max",
    "netfilter/nf_conntrack_buckets", "nf_conntrack_max",
})  # fmt: skip
MOST_ANNOUNCED = 1024  # addresses; a pod may have any number
FLAGS = {"promisc": IFF_PROMISC, "allmulti": IFF_ALLMULTI}
LEAST_MTU = 68  # bytes; ETH_MIN_MTU in linux/if_ether.h
LEAST_IPV6_MTU = 1280  # bytes; IPV6_MIN_MTU in linux/ipv6.h
NUMBERS = {"mtu": "IFLA_MTU", "txQLen": "IFLA_TXQLEN"}


def _sysctls(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    for key, wanted in value.items():
        if not isinstance(wanted, str):
            raise config.Invalid(f'["{key}"]', wanted, "must be a string")
        if not wanted.isprintable():
            raise config.Invalid(f'["{key}"]', wanted, "must be one line of printable characters")
        _path(key)
    return value


def _path(key: str, ifname: str = "") -> str:
    """The file below /proc/sys/net of a sysctl, named with dots or with slashes as sysctl(8) takes both.

    `ifname` takes the place of IFNAME. Raises config.Invalid for one that is not the network namespace's.
    """
    dotted = next((character for character in key if character in "./"), ".") == "."
    # between dots, a slash stands for a dot in a name, as in net.ipv4.conf.eth0/100.mtu
    parts = [part.replace("/", ".") for part in key.split(".")] if dotted else key.split("/")
    safe = KEY_CHARACTERS.issuperset(key) and all(part not in ("", ".", "..") for part in parts)
    if not safe or len(parts) < 3 or parts[0] != "net":
        raise config.Invalid(
            f'["{key}"]', None, "is not a sysctl of the network namespace, such as net.ipv4.ip_forward"
        )
    path = "/".join(parts[1:]).replace("IFNAME", ifname or "IFNAME")
    if path in HOST_WIDE:
        raise config.Invalid(f'["{key}"]', None, "is the host's, not the pod's: it would change for every pod")
    return path


sysctls = config.Kind(_sysctls, {"type": "object", "additionalProperties": {"type": "string"}})


class Attributes(config.Config):
    """What can be set, in the configuration and in args.cni."""

    sysctl: dict[str, str] = field(
        sysctls, {}, "sysctls below net, and their values; IFNAME in a key stands for the interface"
    )
    mac: str = field(mac, "", "MAC of the interface")
    mtu: int = field(integer(0, 65535), 0, "MTU in bytes; 0 leaves it as it is")
    promisc: bool | None = field(boolean, None, "promiscuous mode")
    allmulti: bool | None = field(boolean, None, "all-multicast mode")
    txQLen: int | None = field(integer(0, 2**32 - 1), None, "length of the transmission queue in packets")


class Args(config.Config):
    """args."""

    cni: Attributes | None = field(section(Attributes), None, "see args.cni; comes before the configuration's own")


class RuntimeConfig(config.Config):
    """What the runtime adds for the `mac` capability."""

    mac: str = field(mac, "", "MAC of the interface (capability `mac`)")


class EnvironmentArgs(config.Config):
    """The names that CNI_ARGS may have."""

    MAC: str = field(mac, "", "MAC of the interface")


class Config(Attributes):
    """tuning's keys."""

    dataDir: str = field(absolute_path, "/run/cni/tuning", "where it is kept what was before")
    args: Args | None = field(section(Args), None, "see args.cni")
    runtimeConfig: RuntimeConfig | None = field(section(RuntimeConfig), None, "see runtimeConfig")


class Wanted:
    """A call's configuration, validated before anything is touched."""

    def __init__(self, call: Call) -> None:
        keys: Config = Config.read(call.config)
        _refuse_duplicates(call)
        arguments = keys.args and keys.args.cni
        chosen = {name: getattr(keys, name) for name in ("mtu", "promisc", "allmulti", "txQLen")}
        if arguments:
            chosen |= {
                name: value
                for name in chosen
                if (value := getattr(arguments, name)) is not None and (value or name != "mtu")
            }
        asked: dict[str, Any] = {
            "args.cni.mac": arguments and arguments.mac,
            "runtimeConfig.mac": keys.runtimeConfig and keys.runtimeConfig.mac,
            "CNI_ARGS MAC": call.args(EnvironmentArgs).MAC,
            "mac": keys.mac,
        }
        self.mac_key: str = next((key for key, mac in asked.items() if mac), "")
        self.mac: str = asked.get(self.mac_key, "")
        unset = {"mac": "", "mtu": 0}
        wanted = {"mac": self.mac, **chosen}
        self.attributes = {
            name: value for name, value in wanted.items() if value is not None and value != unset.get(name)
        }
        mtu = self.attributes.get("mtu", LEAST_MTU)
        if mtu < LEAST_MTU:
            raise config.invalid("mtu", mtu, f"must be 0 or at least {LEAST_MTU}, the least that a link can have")
        named = {**keys.sysctl, **(arguments.sysctl if arguments else {})}
        _refuse_disallowed(named)
        try:
            self.sysctls = {_path(key, call.ifname): value for key, value in named.items()}
        except config.Invalid as error:  # an interface can be called like a sysctl
            raise config.invalid(f"sysctl{error.path}", error.value, error.reason) from None
        self.record = record_path(keys.dataDir, call)


read = Wanted  # for validate, which touches nothing


def record_path(directory: str, call: Call) -> str:
    """Return the reference's place for the former values, or one by a digest if its name would be too long."""
    name = file_name(f"{call.container_id}_{call.ifname}", ".json", spare=len(record.UNFINISHED))
    return f"{directory}/{name}"


def _refuse_duplicates(call: Call) -> None:
    """Raises InvalidConfig where `sysctl` has a key twice, of which JSON would silently take the last."""
    if not call.config.get("sysctl"):
        return
    from shared.cni.fastjson import repeated

    for key in repeated(call.stdin):
        if key.startswith("net") and key in call.config["sysctl"]:
            raise InvalidConfig(f'invalid configuration: "sysctl": "{key}" is there more than once')


def _refuse_disallowed(named: dict[str, str]) -> None:
    """Raises InvalidConfig for a sysctl that the node's administrator does not allow."""
    if not named:
        return
    import posix

    try:
        descriptor = posix.open(ALLOWLIST, posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise IOFailure(f"cannot read {ALLOWLIST}", str(error)) from None
    import re

    lines = posix.read(descriptor, 1 << 20).decode(errors="replace").splitlines()
    posix.close(descriptor)
    allowed = [line.strip() for line in lines if line.strip()]
    for key in named:
        try:
            if not any(re.fullmatch(pattern, key, re.ASCII) for pattern in allowed):
                raise InvalidConfig(f'invalid configuration: "sysctl": "{key}" is not allowed by {ALLOWLIST}')
        except re.error as error:
            raise IOFailure(f"{ALLOWLIST} has a line that is no regular expression", str(error)) from None


def _of(link: Message) -> dict[str, Any]:
    """A link's attributes by the names of the configuration's keys."""
    flags = {name: bool(link["flags"] & bit) for name, bit in FLAGS.items()}
    numbers = {name: link.get(attribute, 0) for name, attribute in NUMBERS.items()}
    return {"mac": link.get("IFLA_ADDRESS", ""), **numbers, **flags}


def _set(pod: Netlink, link: Message, attributes: dict[str, Any]) -> None:
    """Sets attributes of a link; a MAC that the driver takes only from a link that is down is set on one."""
    index = link["index"]
    requests = [
        Request(RTM_NEWLINK, {"index": index, NUMBERS[name]: attributes[name]})
        for name in NUMBERS
        if name in attributes
    ]
    mask = sum(bit for name, bit in FLAGS.items() if name in attributes)
    if mask:
        flags = sum(bit for name, bit in FLAGS.items() if attributes.get(name))
        requests.append(links.change_flags(index, flags, mask))
    if "mac" in attributes:
        change = {"index": index, "IFLA_ADDRESS": attributes["mac"]}
        try:
            pod.request(RTM_NEWLINK, change)
        except NetlinkError as error:
            if error.errno != errno.EBUSY or not link["flags"] & IFF_UP:
                raise
            links.set_down(pod, index)
            try:
                pod.request(RTM_NEWLINK, change)
            finally:
                links.set_up(pod, index)
    pod.batch(requests)


def _require_room_for_ipv6(mtu: int, result: Result) -> None:
    """Raise InvalidConfig if the kernel would take the IPv6 addresses of the result away for an MTU, 0: as it is."""
    lost = [str(ip.address.address) for ip in result.ips if ip.address.address.version == 6]
    if lost and 0 < mtu < LEAST_IPV6_MTU:
        reason = f"must be at least {LEAST_IPV6_MTU}, since the pod has the IPv6 address {lost[0]}"
        raise config.invalid("mtu", mtu, reason)


def add(call: Call, undo: Undo) -> Result:
    """Sets what is wanted in the pod; the result is that of the plugin before, with the new MAC and MTU."""
    wanted = Wanted(call)
    result = previous_result(call)
    if result is None:
        raise InvalidConfig('invalid configuration: "prevResult" is required: tuning changes what another plugin made')
    _require_room_for_ipv6(wanted.attributes.get("mtu", 0), result)
    host = Netlink() if wanted.mac else None
    pod_netns = netns.open_netns(call.netns)
    namespace = pod_netns.identity()
    with pod_netns:
        pod = Netlink()
        link = links.require(pod, call.ifname) if wanted.attributes else {}
        present = {path: sysctl.read(path) for path in wanted.sysctls}
        if host:
            _require_free_mac(host, pod_netns, link, wanted, Owner(call.network, call.container_id, call.ifname))
        missing = [path for path, value in present.items() if value is None]
        if missing:
            raise InternalError(f"the kernel has no sysctl net/{missing[0]} in {call.netns}")
        attributes = {name: value for name, value in (_of(link) if link else {}).items() if name in wanted.attributes}
        before = {**attributes, "sysctl": present}
        is_noted = _is_noted(wanted.record, namespace)  # what was before an earlier ADD is what DEL is to set back
        if (attributes or present) and not is_noted:
            mine = {
                "network": call.network, "containerID": call.container_id, "ifname": call.ifname,
                "namespace": namespace,
            }  # fmt: skip
            record.write(wanted.record, {**before, "pycni": mine})
            undo.push(f"remove {wanted.record}", lambda: record.remove(wanted.record))
        undo.push(f"set {call.ifname} back", lambda: _restore(pod_netns, call.ifname, before))
        for path, value in wanted.sysctls.items():
            sysctl.write(path, value)
        if link:
            _set(pod, link, wanted.attributes)
        if "mac" in wanted.attributes and link["flags"] & IFF_UP:
            _announce(pod, link, wanted.mac)
    for interface in result.interfaces:
        if interface.sandbox and interface.name == call.ifname:
            interface.mac = wanted.mac or interface.mac
            interface.mtu = wanted.attributes.get("mtu", interface.mtu)
    return result


def _require_free_mac(host: Netlink, pod_netns: Netns, link: Message, wanted: Wanted, owner: Owner) -> None:
    """Raise InvalidConfig if the pod's link is to get a MAC that another one on its bridge has.

    Only the other end of a veth pair can be seen on the host.
    """
    if link.get("IFLA_ADDRESS") == wanted.mac:
        return
    from shared.net import peers

    port = peers.of_link(host, pod_netns, owner, link)
    bridge = links.by_index(host, port["IFLA_MASTER"]) if port and port.get("IFLA_MASTER") else None
    if port and bridge and links.kind(bridge) == "bridge":
        from shared.net import macs

        macs.require_free(host, bridge, wanted.mac_key, wanted.mac, own=port["IFLA_IFNAME"])


def _announce(pod: Netlink, link: Message, mac: str) -> None:
    """Tell the neighbours of a link that is up its new MAC."""
    from shared.net import addresses, announce, wait

    name = link["IFLA_IFNAME"]
    if link["IFLA_OPERSTATE"] == links.IF_OPER_UP:  # it may have been down meanwhile
        wait.carrier(pod, name)
    announce.Announcement(name, mac, addresses.usable(pod, link["index"], MOST_ANNOUNCED)).send()


def _is_noted(path: str, namespace: str) -> bool:
    """Return True if the file says what was before in this namespace. Remove one that is of another, now lost."""
    noted = record.read(path)
    if _namespace(noted) not in ("", namespace):
        record.remove(path)
        return False
    return bool(noted)


def _namespace(noted: dict[str, Any]) -> str:
    """Return the identity of the namespace that ADD tuned, empty in a record of another suite or of release 0.1.0."""
    own = noted.get("pycni")
    found = own.get("namespace") if isinstance(own, dict) else None
    return found if isinstance(found, str) else ""


def _is_tuned(call: Call, noted: dict[str, Any], pod_netns: Netns) -> bool:
    """Return True if the namespace is the one that ADD tuned, which its path does not prove.

    If the record does not tell, the other end of the pod's interface does: it is the attachment's, or its result's.
    """
    from shared.net import peers

    if namespace := _namespace(noted):
        return namespace == pod_netns.identity()
    host, owner = Netlink(), Owner(call.network, call.container_id, call.ifname)
    end = peers.attempt(lambda: peers.of_pod(host, pod_netns, owner))
    return end is not None and (peers.is_own(end, owner) or end["IFLA_IFNAME"] in peers.names(readable_result(call)))


def _restore(pod_netns: Netns, ifname: str, before: dict[str, Any]) -> None:
    """Set back what a record says, of what is still there, newest first. Complain about what cannot be set back.

    The pod can see to that: it has changed a sysctl on which another depends, or put another link in the place of its
    interface. So it is no error. A second round does what the kernel refused for a passing reason.
    """
    if _set_back(pod_netns, ifname, before):
        for problem in _set_back(pod_netns, ifname, before):
            complain(f"cannot set back {problem}")


def _set_back(pod_netns: Netns, ifname: str, before: dict[str, Any]) -> list[str]:
    """Return what cannot be set back, and why."""
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
    have = _of(link)
    for name in [*reversed(have)]:
        try:
            value = Attributes.fields[name].kind.parse(before[name]) if before.get(name) not in (None, "") else None
            if value not in (None, have[name]):
                _set(pod, link, {name: value})
        except (CniError, ValueError) as error:  # ValueError: a record that somebody else has written
            problems.append(f"{name} of {ifname}: {error}")


def _set_back_sysctls(before: Any, problems: list[str]) -> None:
    for path, value in reversed(before.items()) if isinstance(before, dict) else ():
        try:
            if isinstance(value, str) and sysctl.read(_path(f"net/{path}")) not in (value, None):
                sysctl.write(path, value)
        except (CniError, OSError, ValueError) as error:
            problems.append(f"sysctl net/{path}: {error}")


def check(call: Call) -> None:
    """Raises InternalError that names everything that is not as wanted."""
    wanted = Wanted(call)
    with netns.open_netns(call.netns):
        link = links.require(Netlink(), call.ifname)
        have = _of(link)
        problems = [
            f"{name} of {call.ifname} is {'none' if have[name] == '' else have[name]}, not {value}"
            for name, value in wanted.attributes.items()
            if have[name] != value
        ]
        for path, value in wanted.sysctls.items():
            now = sysctl.read(path)
            if now is None or now.split() != value.split():
                problems.append(f"sysctl net/{path} is {now}, not {value}")
    if problems:
        raise InternalError(f"{call.network} {call.ifname} is not as it was tuned", "; ".join(problems))


def _data_dir(call: Call) -> str:
    """The directory for DEL and GC, which need nothing else of the configuration."""
    directory: str = Config.read({"dataDir": folded(call.config, "dataDir")}).dataDir
    return directory


def delete(call: Call) -> None:
    """Set back what was before, if the pod is still there, and delete the record."""
    path = record_path(_data_dir(call), call)
    before = record.read(path)
    pod_netns = netns.open_if_there(call.netns)
    if before and pod_netns is not None:
        if _is_tuned(call, before, pod_netns):
            _restore(pod_netns, call.ifname, before)
        else:
            complain(f"{call.netns} is not the network namespace that was tuned: nothing is set back in it")
    record.remove(path)


def gc(call: Call) -> None:
    """Forgets what was before in this network's attachments that are not valid any more; their pods are gone."""
    valid = valid_attachments(call)
    for path, noted in record.listed(_data_dir(call)):
        owner = noted.get("pycni")
        if not isinstance(owner, dict) or owner.get("network") != call.network:
            continue
        if (owner.get("containerID"), owner.get("ifname")) not in valid:
            record.remove(path)


def status(call: Call) -> None:
    """Raise what is wrong with the configuration, and PluginNotAvailable if it sets sysctls and they are hidden."""
    if Wanted(call).sysctls:
        try:
            sysctl.require_visible()
        except InternalError as error:
            raise PluginNotAvailable(error.msg, error.details) from None
