"""Check the host's sysctls that the suite sets and that affect more than the pods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress

from shared.cli.doctor.findings import Finding, error
from shared.cli.doctor.node import Node
from shared.cni.errors import InternalError
from shared.hostports import iptables as by_iptables
from shared.hostports import iptables_rules as hostport_rules
from shared.hostports import nftables as hostports
from shared.iptables import variants
from shared.iptables.programs import NoIptables
from shared.net import forwarding, localnet, sysctl
from shared.net.netlink import Netlink
from shared.nft.transaction import Nfnetlink


def visible(_node: Node) -> Iterator[Finding]:
    """Report that sysctls cannot be read: no plugin can work then."""
    try:
        sysctl.require_visible()
    except InternalError as reason:
        yield error("/proc/sys", f"{reason.msg}: every ADD fails", "findmnt -R /proc; umount what hides it")


def accept_ra(_node: Node) -> Iterator[Finding]:
    """Report links that use router advertisements but ignore them while the host forwards."""
    with closing(Netlink()) as host:
        for name in forwarding.links_at_risk(host):
            if sysctl.read(f"ipv6/conf/{name}/forwarding") not in ("0", None):
                yield error(
                    f"net/{forwarding.accept_ra(name)}",
                    "is 1, but must be 2 while the host forwards: the kernel ignores the router advertisements that"
                    " configured the link, and has deleted their routes",
                    f"sysctl -w net/{forwarding.accept_ra(name)}=2",
                )


def route_localnet(node: Node) -> Iterator[Finding]:
    """Report links that route 127.0.0.0/8 without portmap's rules that keep neighbours out."""
    names = [link.name for link in node.links if link.name != "lo" and localnet.is_on(link.name)]
    if not names or _is_guarded():
        return
    for name in names:
        yield error(
            f"net/{localnet.switch(name)}",
            f"is 1, but portmap's protecting rules are missing: hosts and pods on {name} reach services that listen"
            " only on 127.0.0.1",
            f"sysctl -w net/{localnet.switch(name)}=0  # or add a pod: portmap's ADD creates the rules",
        )


def _is_guarded() -> bool:
    kernel = Nfnetlink.if_there()
    if kernel and hostports.is_guarded(kernel):
        return True
    for version, variant in variants.having(hostport_rules.RAW, "PREROUTING"):
        with suppress(NoIptables):  # no program of iptables, so no rules
            if version == 4 and by_iptables.is_guarded(variant):
                return True
    return False


def keep_routes() -> list[str]:
    """Return the commands that keep links' routes when IPv6 forwarding is switched on."""
    with closing(Netlink()) as host:
        return [f"sysctl -w net/{forwarding.accept_ra(name)}=2" for name in forwarding.links_at_risk(host)]
