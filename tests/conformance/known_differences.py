"""The intended differences of this suite from the reference, with reasons.

A difference reads `bridge ADD: code: 999 -> 11` (the reference's value, then ours). `where` is a shell-style pattern
for that line. `cases` are patterns for the names of the cases that show it. It must show in every one of them: an entry
whose difference no longer occurs fails the case, so that the list cannot rot. `everywhere`: it may show in other cases
too.

Some values are not compared, because they differ in each run, or the reference has no counterpart: the host veth's
random name (here derived, with an alias that names its owner), random MACs, link-local addresses, the modes of the
store's files, the text of error messages, `cniVersion` in error objects (the reference has none), the sidecar in the
store.

The reference at hand has no `vlanTrunk`. Newer ones make VLAN 1 the native one of a trunk port without `vlan`. They
take VLAN 1, whatever the bridge's default VLAN is, from a port with `vlan`. Here a trunk port without `vlan` stays in
the bridge's default VLAN, and a port with `vlan` leaves that one: the same if the default is 1, and right otherwise.

Nor has it the plugins dummy and tap, whose tests in tests/system thus compare with nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Known:
    """One intended difference."""

    where: str
    reason: str
    cases: Sequence[str]
    everywhere: bool = False

    def covers(self, difference: str) -> bool:
        """Return True if this is the intended difference."""
        return fnmatchcase(difference, self.where)

    def shows_in(self, case: str) -> bool:
        """Return True if it must show in the case."""
        return any(fnmatchcase(case, pattern) for pattern in self.cases)


LIMITED_EGRESS = [
    *(f"bandwidth/{name}" for name in ("egress", "both", "as containerd sends it", "static before the runtime's")),
    "bandwidth/DEL netns gone", "bandwidth/DEL netns empty", "hand-over/limits:ours-first",
]  # fmt: skip
KNOWN = (
    # The pod
    Known(
        "loopback DEL: pod a link lo *: * -> *",
        "DEL takes down the lo that this suite has brought up alone: the path can lead to another pod by now",
        ["hand-over/loopback:reference-first"],
    ),
    # The protocol
    Known(
        '* VERSION: result.supportedVersions.?: absent -> "1.1.0"',
        "the reference at hand is older than specification 1.1.0",
        ["*/VERSION", "bridge/podman"],
    ),
    Known(
        "* VERSION: result.cniVersion: *",
        "VERSION answers with the request's cniVersion, as the specification says; the reference with its newest",
        ["loopback/VERSION", "bridge/podman"],
    ),
    Known(
        "*: code: 999 -> 7",
        "an invalid configuration has a code of its own",
        [
            "*/invalid: *",
            "*/ipam plugin missing",
            "host-local/IPv4 mapped subnet",
            "host-local/IP in CNI_ARGS outside",
            "host-local/IP in CNI_ARGS is *",
            "host-local/requested inside and outside",
            "bridge/ipam plugin missing",
            "bridge/ipam type traverses",
            "bridge/ipam refuses",
            "bridge/CHECK without prevResult",
        ],
    ),
    Known(
        "*: code: 6 -> 7",
        "a value of a wrong type is an invalid configuration; what cannot be read at all is code 6",
        ['loopback/stdin is {"name":1}'],
    ),
    Known("*: code: 7 -> 6", "null is no object; the reference takes it for an empty one", ["loopback/stdin is null"]),
    Known(
        "*: code: 999 -> 4",
        "invalid CNI_ARGS have a code of their own",
        [
            "*/unknown CNI_ARGS",
            "host-local/IP in CNI_ARGS invalid",
            "host-local/CNI_ARGS without a value",
            "host-local/CNI_ARGS ends with a semicolon",
            "bridge/IP in CNI_ARGS",
            "bridge/mac in CNI_ARGS, unknown to ipam",
            "bridge/mac invalid",
            "bridge/mac is multicast",
            "static/*in CNI_ARGS invalid",
            "hand-over/the other's ipam refuses:ours-first",
        ],
    ),
    Known(
        "*: code: 999 -> 3",
        "a netns that is not there has a code of its own",
        ["*/ADD netns gone", "bridge/CHECK netns gone"],
    ),
    Known(
        "* ADD: code: 999 -> 5", "a failing file operation has a code of its own", ["host-local/dataDir no directory"]
    ),
    Known(
        "* ADD: code: 999 -> 11",
        "an exhausted pool, or a requested address in use, may be free later",
        [
            "host-local/range start and end",
            "host-local/two ranges in a set",
            "host-local/slash 30",
            "host-local/IPv6 slash 126",
            "host-local/exhaustion",
            "host-local/exhausted second set",
            "host-local/only the gateway",
            "host-local/IP in CNI_ARGS twice taken",
            "bridge/ipam exhausted",
            "hand-over/exhaustion and wrap-around:reference-first",
            "hand-over/the other's ipam is full:reference-first",
        ],
    ),
    Known(
        "* CHECK: status: 0 -> 1",
        "CHECK without prevResult is an invalid call; the reference does not look",
        ["loopback/CHECK without prevResult", "host-local/CHECK without prevResult"],
    ),
    # loopback
    Known(
        "loopback ADD: result.*",
        "the reference answers every version in the form of 1.0.0",
        ["loopback/version 0.*", "bridge/containerd"],
    ),
    # host-local
    Known(
        "host-local ADD: *",
        "null is not set; the reference takes it for an empty subnet",
        ["host-local/subnet is null"],
    ),
    Known(
        "host-local ADD: *",
        "of two spellings of a key the exact one wins, whatever their order",
        ["host-local/a key twice in other case"],
    ),
    Known(
        "host-local ADD: *",
        "a route needs a destination; the reference answers with the destination <nil>",
        ["host-local/route without dst"],
    ),
    Known(
        "host-local ADD: file */last_reserved_ip.0: *",
        "a refused ADD does not move on the round robin",
        [
            "host-local/exhausted second set",
            "host-local/IP in CNI_ARGS outside",
            "host-local/IP in CNI_ARGS is broadcast",
            "host-local/IP in CNI_ARGS is the network",
            "host-local/requested inside and outside",
        ],
    ),
    Known(
        "*: * /var/lib/cni/networks*: * -> absent",
        "where nothing was ever leased, DEL makes no store",
        [
            *(f"{plugin}/DEL of nothing" for plugin in ("host-local", "bridge", "ptp", "macvlan")),
            "hand-over/the other's ipam refuses:reference-first",
        ],
    ),
    # bridge
    Known(
        "bridge ADD: pod ? link eth? ipv6 accept_ra: 1 -> 0",
        "no pod takes a rogue router's advertisements (CVE-2020-10749)",
        ["bridge/isGateway", "bridge/no ipam"],
        everywhere=True,
    ),
    Known(
        "bridge ADD: pod ? link eth? ipv6 ndisc_notify: 0 -> 1",
        "the kernel announces the pod's IPv6 addresses, too, when its MAC is set",
        ["bridge/isGateway"],
        everywhere=True,
    ),
    Known(
        "bridge ADD: host link cni* ipv6 accept_dad: 1 -> 0",
        "a gateway's link-local address is usable at once: by it the kernel looks for pods to which it forwards",
        ["bridge/isGateway"],
        everywhere=True,
    ),
    Known(
        "bridge ADD: * link * address *:*: scope global -> scope global nodad",
        "IPv6 addresses are usable at once; the reference only turns accept_dad off in the pod",
        ["bridge/IPv6 only"],
        everywhere=True,
    ),
    Known(
        "bridge ADD: * link * kind: * -> absent",
        "a failed ADD leaves nothing that it made",
        [
            "dhcp/no daemon",
            "bridge/two IPv4 sets, isGateway",
            "bridge/forceAddress",
            "bridge/gateway's prefix changed",
            "bridge/second address, no overlap",
            "bridge/second IPv6 address, overlap",
            "bridge/mac in CNI_ARGS, unknown to ipam",
            "bridge/mac invalid",
            "bridge/mac is multicast",
            "bridge/ipam plugin missing",
            "bridge/ipam type traverses",
            "bridge/ipam exhausted",
            "bridge/ipam refuses",
            "bridge/ipam without an address",
            "bridge/ADD where eth0 is a stranger's",
            "bridge/ADD netns gone",
            "hand-over/exhaustion and wrap-around:reference-first",
            "hand-over/the other's ipam is full:ours-first",
        ],
    ),
    Known(
        "bridge DEL: * link * kind: veth -> absent",
        "DEL finds the host's end of the pair by its name, without the netns",
        ["bridge/DEL netns gone", "bridge/DEL netns empty*"],
    ),
    Known(
        "bridge ADD: *",
        "isDefaultGateway beside an explicit default route works",
        ["bridge/isDefaultGateway with 0.0.0.0/0 in routes"],
    ),
    Known(
        "bridge ADD: result.dns*",
        "the IPAM plugin's DNS stays unless bridge has its own (newer releases of the reference do so too)",
        ["bridge/dns of ipam", "bridge/ipam static"],
    ),
    Known("bridge CHECK: status: 1 -> 0", "CHECK works without ipam", ["bridge/no ipam, CHECK"]),
    # dhcp
    Known("dhcp DEL: status: 1 -> 0", "the next daemon releases the lease", ["dhcp/DEL without daemon"]),
    # ptp
    *(
        Known(f"ptp ADD: {where}", reason, ["ptp/version 1.0.0"], everywhere=True)
        for where, reason in (
            ("pod ? link eth? ipv4 arp_notify: 0 -> 1", "the kernel announces the pod's addresses when its MAC is set"),
            ("pod ? link eth? ipv6 ndisc_notify: 0 -> 1", "the same for IPv6"),
            ("pod ? link eth? ipv6 accept_ra: 1 -> 0", "no pod takes a router's advertisements (CVE-2020-10749)"),
            ("pod ? link eth? ipv6 accept_dad: 1 -> 0", "the link has one neighbour, so no address is a duplicate"),
            ("host link veth* ipv6 accept_dad: 1 -> 0", "the kernel asks for the pod with the link-local address"),
            ("* link * address *:*: scope global -> scope global nodad", "IPv6 addresses are usable at once"),
        )
    ),
    Known("ptp ADD: code: 999 -> 11", "an exhausted pool may have a free address later", ["ptp/exhausted"]),
    Known(
        "ptp ADD: * -> absent",
        "a namespace that is not there is found before IPAM is asked",
        ["ptp/ADD netns gone"],
    ),
    Known(
        "ptp ADD: host forwarding *: 1 -> 0",
        "a namespace that is not there is found before the host is changed",
        ["ptp/ADD netns gone"],
    ),
    Known(
        "ptp CHECK: pod a link eth0 address *:*: absent -> *",
        "IPv6 addresses stay on a link that is set down",
        ["ptp/CHECK link down"],
    ),
    Known(
        "ptp DEL: * link * kind: veth -> absent",
        "DEL finds the host's end of the pair by its name, without the netns",
        ["ptp/ipMasq, netns empty"],
    ),
    # macvlan, ipvlan, vlan
    *(
        Known(f"{plugin} ADD: {where}", reason, [f"{plugin}/version 1.0.0"], everywhere=True)
        for plugin in ("macvlan", "ipvlan", "vlan")
        for where, reason in (
            ("directory /run/cni/links: absent -> there", "DEL and GC find the pods' links without their namespaces"),
            ("file /run/cni/links/*: absent -> *", "a note of the pod's namespace, for the same"),
            ("pod ? link eth? ipv6 ndisc_notify: 0 -> 1", "the same for IPv6"),
            ("pod ? link eth? ipv6 accept_ra: 1 -> 0", "no pod takes a router's advertisements (CVE-2020-10749)"),
            (
                "pod ? link eth? ipv6 accept_dad: 1 -> 0",
                "no ADD waits for duplicate address detection, but for enabledad",
            ),
            ("pod ? link eth? address *:*: scope global -> scope global nodad", "IPv6 addresses are usable at once"),
        )
    ),
    *(
        Known(
            f"{plugin} CHECK: pod a link eth0 address *:*: absent -> *",
            "IPv6 addresses stay on a link that is set down",
            [f"{plugin}/CHECK link down"],
        )
        for plugin in ("macvlan", "ipvlan", "vlan")
    ),
    Known(
        "vlan ADD: pod ? link eth? ipv4 arp_notify: 0 -> 1",
        "the kernel announces the pod's addresses when its MAC is set",
        ["vlan/version 1.0.0"],
        everywhere=True,
    ),
    Known(
        "ipvlan ADD: result.ips.?.gateway: * -> absent",
        "the host routes in modes l3 and l3s, so that there is no gateway",
        ["ipvlan/modes"],
    ),
    Known("macvlan ADD: code: 999 -> 7", "the configuration lacks a master", ["macvlan/no default route"]),
    *(
        Known(
            f"{plugin} ADD: pod a link eth0 kind: {plugin} -> absent",
            "a failed ADD leaves nothing",
            [f"{plugin}/*ipam plugin missing"],
        )
        for plugin in ("macvlan", "ipvlan", "vlan")
    ),
    Known(
        "macvlan DEL: pod a link eth0 kind: macvlan -> absent",
        "DEL finds the pod's link without the netns",
        ["macvlan/DEL netns empty"],
    ),
    *(
        Known(
            f"macvlan DEL: {where}",
            "DEL does not need the master, and releases the addresses",
            ["macvlan/DEL master gone"],
        )
        for where in ("status: 1 -> 0", "file /var/lib/cni/networks/net/*: * -> absent")
    ),
    # host-device
    *(
        Known(f"host-device ADD: pod ? link * {where}", reason, ["host-device/version 1.0.0"], everywhere=True)
        for where, reason in (
            ("ipv4 arp_notify: 0 -> 1", "the kernel announces the pod's addresses when its MAC is set"),
            ("ipv6 ndisc_notify: 0 -> 1", "the same for IPv6"),
            ("ipv6 accept_ra: 1 -> 0", "no pod takes a router's advertisements (CVE-2020-10749)"),
            ("ipv6 accept_dad: 1 -> 0", "IPv6 addresses are usable at once"),
            ("address *:*: scope global -> scope global nodad", "the same"),
        )
    ),
    Known(
        "host-device DEL: host link dev0 flags:  -> UP",
        "DEL restores the state of the device",
        ["host-device/version 1.0.0"],
        everywhere=True,
    ),
    Known(
        "host-device ADD: * link dev0 kind: *",
        "a device that cannot get its name in the pod stays on the host",
        ["host-device/name taken in the pod"],
    ),
    Known(
        "host-device ADD: * link * kind: *",
        "a failed ADD brings the device home",
        ["host-device/invalid: ipam plugin missing"],
    ),
    Known(
        "host-device DEL: *",
        "DEL finds the device by its record, without CNI_NETNS, and releases the addresses",
        ["host-device/DEL netns empty"],
    ),
    # portmap
    Known(
        "portmap CHECK: status: 1 -> 0",
        "the reference at hand looks for a pod's rules in the other family's table, too, and never finds them",
        [
            f"portmap/{name}"
            for name in (
                *(
                    "version 0.4.0",
                    "version 1.0.0",
                    "udp",
                    "sctp",
                    "several",
                    "tcp and udp",
                    "host address*",
                    "all of *",
                ),
                *("capital keys", "null", "no snat", "masqAll", "markMasqBit", "conditions", "DEL twice"),
                "iptables: *",
            )
        ],
    ),
    Known(
        "portmap ADD: host link cni0 ipv4 route_localnet: 1 -> 0",
        "only where 127.0.0.1 is mapped",
        [
            "portmap/host address",
            "portmap/all of IPv6",
            "portmap/iptables: host address",
            "portmap/iptables: all of IPv6",
        ],
    ),
    Known(
        "portmap ADD: * /run/cni/localnet*: absent -> *",
        "a note that this suite turned route_localnet on, so that the last host port's DEL turns it off",
        ["portmap/version *"],
        everywhere=True,
    ),
    Known(
        "portmap DEL: host link cni0 ipv4 route_localnet: 1 -> 0",
        "the last host port's DEL turns off what an ADD turned on, since it is a danger without rules",
        ["portmap/version *"],
        everywhere=True,
    ),
    Known(
        "host-local CHECK: * /var/lib/cni/networks*: * -> absent",
        "CHECK makes nothing, so that it needs no store that can be written",
        ["host-local/legacy lease", "host-local/CHECK of nothing"],
    ),
    Known(
        "portmap ADD: * /run/cni/portmap*: absent -> *",
        "a lock, so that two pods do not get one port, and a file by which a later ADD knows that the holder is dead",
        ["portmap/iptables: *", "hand-over/host ports by iptables:ours-first"],
    ),
    # firewall
    Known(
        "firewall ADD: * /run/cni/firewall*: absent -> *",
        "rules in iptables cannot say whose they are: a file does, so that DEL and GC need no result",
        ["firewall/life*", "firewall/chain*", "firewall/CHECK*", "firewall/netns gone"],
    ),
    # tuning
    Known(
        "tuning ADD: file /run/cni/tuning/*: *",
        "the record of what was before names its owner and keeps the sysctls, which DEL sets back",
        [
            f"tuning/{name}"
            for name in ("mtu", "mac*", "promisc*", "arguments", "*sysctls", "IFNAME*", "CHECK mtu", "netns gone")
        ],
    ),
    Known(
        "tuning ADD: directory /run/cni/tuning: absent -> there",
        "as the record of sysctls has to be somewhere",
        ["tuning/sysctls", "tuning/IFNAME*"],
    ),
    Known(
        "tuning DEL: file /run/cni/tuning/*: * -> absent",
        "the reference leaves its record behind when the namespace is gone before",
        ["tuning/netns gone"],
    ),
    Known(
        "tuning ADD: * /run/cni/tuning*: * -> absent",
        "a configuration is validated before anything is touched",
        ["tuning/invalid: mac"],
    ),
    Known(
        "bridge ADD: host link * vlans: 1 Egress Untagged, 7 PVID Egress Untagged -> 7 PVID Egress Untagged",
        "a port that is put into a VLAN hears VLAN 1 no more; the reference at hand has no preserveDefaultVlan",
        [
            "bridge/vlan, isGateway",
            "bridge/vlan on a bridge without",
            "hand-over/vlan:*",
        ],
    ),
    Known(
        "bridge ADD: host link cni0.7 ipv6 accept_ra: 1 -> 0",
        "no gateway port takes a rogue router's advertisements (CVE-2020-10749)",
        ["bridge/vlan, isGateway", "hand-over/vlan:ours-first"],
    ),
    Known(
        "bridge ADD: host link cni0 vlan_filtering: 0 -> 1",
        "a bridge that was there before keeps VLANs apart as soon as a pod is put into one; the reference's never does",
        ["bridge/vlan on a bridge without"],
    ),
    # static
    Known(
        "static ADD: status: 0 -> 1",
        "an address or gateway that a pod cannot use is refused by name, and so is a call without any address",
        ["static/unusable: *", "static/host bits of IPv4 in IPv6"],
    ),
    Known(
        "static ADD: status: 1 -> 0",
        "a plain address has the length and the gateway of the configured network that holds it, as podman needs",
        ["static/plain address"],
    ),
    Known(
        "static CHECK: status: 0 -> 1",
        "CHECK names an address that the result does not have; the reference compares gateways alone",
        ["static/CHECK address missing"],
    ),
    # sbr
    Known(
        "sbr ADD: * /run/cni/sbr*: absent -> *",
        "a record of the rules and tables, by which DEL finds them without the link and the result",
        ["sbr/version *"],
        everywhere=True,
    ),
    Known(
        "vrf *: * /run/cni/vrf*: absent -> *",
        "the directory of the records by which the next call finishes a killed one",
        ["vrf/version *"],
        everywhere=True,
    ),
    Known(
        "sbr ADD: pod a route *:* dev eth0: * -> absent",
        "the table of an IPv4 address has no IPv6 routes",
        ["sbr/version *"],
        everywhere=True,
    ),
    Known(
        "sbr DEL: pod a route * table * dev eth0: * -> absent",
        "DEL deletes the routes of the tables, too",
        ["sbr/version *"],
        everywhere=True,
    ),
    Known(
        "sbr DEL: pod a route * dev eth0: absent -> *",
        "DEL gives the main table its routes back",
        ["sbr/version *"],
        everywhere=True,
    ),
    Known(
        "sbr DEL: status: 1 -> 0",
        "DEL succeeds if the namespace is gone, and creates no file in its place",
        ["sbr/DEL netns *"],
    ),
    # vrf
    *(
        Known(
            f"vrf *: pod a {fact}: absent -> *",
            "addresses and routes stay on an interface that leaves its VRF",
            ["vrf/version *"],
            everywhere=True,
        )
        for fact in ("link eth0 address *:*", "route * dev eth0")
    ),
    Known(
        "vrf CHECK: status: 0 -> 1",
        "CHECK names an interface that is not in its VRF any more",
        ["vrf/not in the VRF, netns gone"],
    ),
    Known("vrf DEL: status: 1 -> 0", "DEL succeeds if the interface is gone", ["vrf/DEL interface gone"]),
    Known(
        "vrf DEL: pod a link blue kind: * -> absent",
        "DEL deletes the empty VRF even if the interface is gone",
        ["vrf/DEL interface gone"],
    ),
    # bandwidth
    Known(
        "bandwidth ADD: host link * filter 1 u32 action 2: * -> absent",
        "one redirection leads everything to the ifb; the reference adds a second, which nothing reaches",
        LIMITED_EGRESS,
    ),
    Known(
        "bandwidth ADD: host link * filter 1 u32 flowid: * -> absent",
        "a class means nothing to what comes in",
        LIMITED_EGRESS,
    ),
    Known(
        "bandwidth DEL: host link * qdisc *: * -> absent",
        "DEL ends the limits on a link that stays, too",
        [
            f"bandwidth/{name}"
            for name in (
                "ingress",
                "egress",
                "both",
                "as containerd sends it",
                "static before the runtime's",
                "rate beyond 32 bits",
                "DEL netns empty",
            )
        ]
        + ["hand-over/limits:reference-first"],
    ),
    Known(
        "bandwidth DEL: host link * filter 1 u32 *: * -> absent",
        "and what the reference leaves there drops all that the pod sends, since the ifb is gone",
        [*(one for one in LIMITED_EGRESS if not one.endswith("gone")), "hand-over/limits:reference-first"],
    ),
    Known(
        "bandwidth DEL: host link ifb kind: absent -> ifb",
        "an interface has an ifb of its own, of whose name the reference does not know; this suite's GC removes it",
        ["hand-over/limits:ours-first"],
    ),
    Known(
        "bandwidth DEL: host link * filter 1 u32 action 1: * to none -> * to ifb",
        "and so the redirection still leads there",
        ["hand-over/limits:ours-first"],
    ),
)
