"""Find out whether an attachment exists: its namespace, its interface inside, its link on the host."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

from shared.cni.errors import CniError
from shared.cni.names import is_link_name
from shared.net import links
from shared.net.netlink import Netlink
from shared.net.netns import OWN, HostNetns, open_netns
from shared.net.owner import Owner

if TYPE_CHECKING:
    from shared.runtime.attachment import Attachment

ALIVE, GONE, UNKNOWN = "alive", "gone", "unknown"
LOOPBACK = "lo"  # the kernel creates it in each namespace


class AttachmentExists(Exception):
    """The attachment to add exists already. No plugin was executed; the message says what to do."""

    def __init__(self, network: str, attachment: Attachment, reason: str) -> None:
        mine = attachment
        variable = f"CNI_IFNAME={mine.ifname} " if mine.ifname != "eth0" else ""
        command = f"{variable}cnitool del {network} {mine.netns} --container-id {mine.container_id}"
        super().__init__(f"network {network}, container {mine.container_id} {mine.ifname}: {reason}; `{command}` first")


def of_namespace(path: str) -> str:
    """Return ALIVE, GONE or UNKNOWN for the namespace at `path`.

    A deleted namespace may leave an ordinary file there, which counts as GONE.
    """
    try:
        return ALIVE if os.stat(path).st_dev == os.stat(OWN).st_dev else GONE
    except (FileNotFoundError, NotADirectoryError):
        return GONE if path else UNKNOWN
    except (OSError, ValueError):
        return UNKNOWN


def has_interface(path: str, ifname: str) -> bool:
    """Return True if the network namespace at `path` has the interface; False if it does not exist."""
    try:
        netns = open_netns(path)
    except HostNetns:  # CNI_NETNS_OVERRIDE allows it
        return _has_link(ifname)
    except CniError:
        return False
    with closing(netns), netns:
        return _has_link(ifname)


def _has_link(name: str) -> bool:
    with closing(Netlink()) as netlink:
        return links.get(netlink, name) is not None


def host_link(network: str, attachment: Attachment, result: dict[str, Any] | None = None) -> str:
    """Return the name of the attachment's host link if it leads to a pod; else empty.

    This suite's plugins derive the name; others list it in their result.
    """
    derived = Owner(network, attachment.container_id, attachment.ifname).host_link
    told = [name for name, sandbox in _interfaces(result) if not sandbox]
    with closing(Netlink()) as host:
        for name in filter(is_link_name, (derived, *told)):
            link = links.get(host, name)
            if link is not None and links.leads_to_pod(host, link):
                return name
    return ""


def evidence(network: str, attachment: Attachment, result: dict[str, Any] | None) -> str:
    """Return why an attachment counts as alive; empty if it is certainly gone.

    A namespace without the interface in the result is another one at the same path.
    """
    state = of_namespace(attachment.netns)
    if state == UNKNOWN:
        return f"its namespace {attachment.netns or '(none known)'} may be there"
    if state == ALIVE:
        is_named = any(name == attachment.ifname and sandbox for name, sandbox in _interfaces(result))
        if not is_named:
            return f"its namespace {attachment.netns} is there"
        if has_interface(attachment.netns, attachment.ifname):
            return f"{attachment.ifname} is in {attachment.netns}"
    found = host_link(network, attachment, result)
    return f"its host link {found} leads to a pod" if found else ""


def _interfaces(result: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Return names and sandboxes of a result's interfaces; other programs may write anything there."""
    listed = (result or {}).get("interfaces")
    return [
        (str(one.get("name") or ""), str(one.get("sandbox") or ""))
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict)
    ]


def expect_new(network: str, attachment: Attachment) -> None:
    """Raise AttachmentExists if the interface, or this suite's host link for it, exists before ADD.

    Otherwise the DEL after a failed ADD would remove another ADD's attachment.
    """
    if attachment.ifname == LOOPBACK:
        return
    if has_interface(attachment.netns, attachment.ifname):
        raise AttachmentExists(network, attachment, f"interface {attachment.ifname} is in {attachment.netns} already")
    found = host_link(network, attachment)
    if found:
        raise AttachmentExists(network, attachment, f"its host link {found} leads to a pod")
