"""host-device: moves a device of the host into the pod, and back with its name and settings on DEL."""

from __future__ import annotations

from shared import steps
from shared.cni import config, delegate
from shared.cni.call import folded
from shared.cni.config import field, invalid, mac, section, unset_link_name
from shared.cni.errors import InvalidNetns
from shared.cni.plugin import compare, failure
from shared.cni.result import Interface
from shared.net import links, moved, wait
from shared.net.devices import Wanted, bus_address, kernel_path
from shared.net.netlink import Netlink
from shared.pod import attachment, inside, removal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.cni.call import Call
    from shared.cni.result import Result
    from shared.net.netns import Netns
    from shared.undo import Undo


class RuntimeConfig(config.Config):
    """The key that the runtime adds for the `deviceID` capability."""

    deviceID: str = field(bus_address, "", "in place of pciBusID: the device that a device plugin chose")


class Config(attachment.Keys):
    """host-device's keys."""

    device: str = field(unset_link_name, "", "name or alternative name of the device on the host")
    hwaddr: str = field(mac, "", "MAC of the device")
    kernelpath: str = field(kernel_path, "", "the device's directory below /sys/devices")
    pciBusID: str = field(bus_address, "", "PCI address of the device, or the name of an auxiliary device")
    runtimeConfig: RuntimeConfig | None = field(section(RuntimeConfig), None, "see runtimeConfig")


class Attachment(attachment.Attachment):
    """A call's configuration, and the device that it names."""

    keys: Config

    def __init__(self, call: Call) -> None:
        super().__init__(call, Config)
        keys = self.keys
        chosen = keys.runtimeConfig.deviceID if keys.runtimeConfig else ""
        self.wanted = Wanted(
            name=keys.device, mac=keys.hwaddr, path=keys.kernelpath, address=chosen or keys.pciBusID
        )  # fmt: skip

    def require_device(self) -> None:
        """Raise InvalidConfig if no key names a device. A runtime adds runtimeConfig to ADD and CHECK alone."""
        if not self.wanted:
            others = '"hwaddr", "kernelpath", "pciBusID" or "runtimeConfig.deviceID"'
            raise invalid("device", None, f"or {others} is required")


read = Attachment  # for validate, which touches nothing


def add(call: Call, undo: Undo) -> Result:
    """Move the device into the pod, with addresses by IPAM if there is `ipam`. A device without a link stays."""
    pod = Attachment(call)
    pod.require_device()
    pod_netns = pod.open_netns()
    wanted, address = pod.wanted, pod.wanted.address
    extra = {"pciID": address} if address else {}
    if wanted.is_passed_through():
        result = pod.assign(undo, interface=0)
        return pod.complete(result, Interface(call.ifname, sandbox=call.netns, extra=extra))
    if pod_netns.is_own:  # CNI_NETNS_OVERRIDE
        raise InvalidNetns(
            f"CNI_NETNS {call.netns!r} is the host's own network namespace, which has its devices already"
        )
    steps.begin("device")
    moved.take(undo, pod.owner, pod_netns, wanted, mtu=pod.keys.mtu)
    result = pod.assign(undo, interface=0)
    steps.begin("pod")
    link, announce_pod = inside.configure(
        pod_netns, call.ifname, result, dad=False, has_carrier=False, advertisements=False if pod.ipam else None
    )
    _await_carrier(pod_netns, call.ifname)
    announce_pod()
    own = attachment.interface(link, call.netns)
    own.extra = extra
    return pod.complete(result, own)


def _await_carrier(pod_netns: Netns, ifname: str) -> None:
    """Wait a moment for the carrier. None is no error: no cable is plugged in, or negotiation takes longer."""
    with pod_netns:
        pod = Netlink()
        ready = (links.IF_OPER_UNKNOWN, links.IF_OPER_UP)  # some drivers report no state
        wait.links_change(lambda: links.require(pod, ifname)["IFLA_OPERSTATE"] in ready)


def check(call: Call) -> None:
    """Raise InternalError that names all differences from the state that ADD left."""
    pod = Attachment(call)
    pod.require_device()
    if pod.wanted.is_passed_through():
        parts = [(lambda: failure(lambda: delegate.forward(call)), None)] if pod.ipam else []
        compare(f"{call.network} {call.ifname} is not as it was made", parts)
    else:
        pod.check(None, lambda *_: [])


def delete(call: Call) -> None:
    """Move the device home, wherever it is, with its name and settings, and release the addresses."""
    device, hwaddr = (folded(call.config, key) for key in ("device", "hwaddr"))
    removal.delete(
        call,
        lambda _host, owner, pod_netns: moved.give_back(owner, pod_netns),
        lambda _host, owner, pod_netns: moved.give_back_foreign(call, owner, pod_netns, device, hwaddr),
    )


def gc(call: Call) -> None:
    """Move home the devices of this network's attachments that are not valid any more, and release their addresses."""
    removal.collect(call, None, lambda valid: moved.collect(call.network, valid))


def status(call: Call) -> None:
    """Raise PluginNotAvailable if the device is neither on the host nor in a pod, or the node lacks IPv6."""
    pod = Attachment(call)
    is_link = pod.wanted and not pod.wanted.is_passed_through()
    pod.status_in_pod(lambda: moved.require_known(pod.wanted) if is_link else None)
