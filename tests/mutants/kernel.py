"""Mistakes in shared/net: links, addresses, routes, namespaces, netlink."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "shared/net/liveness.py", " and (not is_link(host_link) or _goes(host_link, patient=patient))", "", "an attachment with its link is alive",
        "tests/system/test_liveness.py",
    ),
    Mutant(
        "shared/net/liveness.py", "not in (identity, None)", "!= identity", "what cannot be told counts as alive",
        "tests/system/test_liveness.py",
    ),
    Mutant(
        "shared/net/netns.py", "IOC_NONE if machine.startswith(WITH_IOC_NONE) else 0", "0",
        "a namespace's type is asked for on every architecture", "tests/unit/test_architectures.py",
    ),
    Mutant(
        "shared/net/blake2.py", "mixed[12] ^= counted & MASK", "mixed[12] ^= len(block) & MASK",
        "names are the same on FIPS hosts", "tests/unit/test_accelerators.py",
    ),
    Mutant(
        "shared/net/forwarding.py", "for name in relying(netlink):", "for name in ():",
        "routes by router advertisements stay when forwarding goes on", "tests/system/test_accept_ra.py -k default_route",
    ),
    Mutant(
        "shared/net/forwarding.py", "if _has_lifetime(address)", "if ()",
        "an address by advertisements counts as well as a route", "tests/system/test_accept_ra.py -k address_alone",
    ),
    Mutant(
        "shared/net/forwarding.py", "if sysctl.read(accept_ra(name)) == WHILE_HOST]", "]",
        "accept_ra 0 stays the administrator's choice", "tests/system/test_accept_ra.py -k judged",
    ),
    Mutant(
        "shared/net/bridges.py", 'if bridge["index"] in forwarding.learned(netlink):', "if ():",
        "a bridge that is the node's own way out keeps its routes", "tests/system/test_accept_ra.py -k way_out",
    ),
    Mutant(
        "shared/net/localnet.py", 'if sysctl.read(switch(name)) != "1":', "if True:",
        "route_localnet that somebody else turned on stays on", "tests/system/test_route_localnet.py -k somebody",
    ),
    Mutant(
        "shared/net/localnet.py", "        if is_needed():\n            return\n", "",
        "route_localnet stays on for the host ports that are left", "tests/system/test_route_localnet.py -k last_host_port",
    ),
    Mutant(
        "shared/net/localnet.py", "    with turn(NOTES):\n", "    if is_on(name):\n        return\n    with turn(NOTES):\n",
        "an ADD sees the switch that a concurrent DEL sets back", "tests/system/test_route_localnet.py -k between",
    ),
    Mutant(
        "shared/net/localnet.py", "return None if is_uplink else link", "return link",
        "an uplink is never switched", "tests/system/test_route_localnet.py -k uplink",
    ),
    Mutant(
        "shared/net/localnet.py", 'if not (link["IFLA_IFNAME"] in named if named else is_for_pods):', "if not is_for_pods:",
        "a link that the result does not name is an uplink", "tests/system/test_route_localnet.py -k uplink",
    ),
    Mutant(
        "shared/net/sysctl.py", "    require_visible()\n    return None", "    return None",
        "a hidden sysctl is none that the kernel lacks", "tests/system/test_hidden_sysctls.py -k tuning",
    ),
    Mutant(
        "shared/net/links.py", 'return name if link is None else str(link["IFLA_IFNAME"])', "return name",
        "an alternative name stands for the link's own", "tests/system/test_alternative_names.py -k uplinks",
    ),
)  # fmt: skip
