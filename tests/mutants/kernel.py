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
        "shared/net/netlink.py", "        self.socket.connect((KERNEL, 0))\n", "",
        "a process cannot send to a netlink socket", "tests/system/test_netlink_senders.py -k flood",
    ),
    Mutant(
        "shared/net/netlink.py", "if sender[0] == KERNEL and len(data)", "if len(data)",
        "a process does not answer for the kernel", "tests/system/test_netlink_senders.py -k judged",
    ),
    Mutant(
        "shared/net/netlink.py", 'int.from_bytes(posix.urandom(4), "big") >> 1', "0",
        "nobody guesses a request's number", "tests/system/test_netlink_senders.py -k random",
    ),
    Mutant(
        "shared/net/netlink.py", "                signals.safe_point()\n                self._expect_time()\n                taken", "                self._expect_time()\n                taken",
        "SIGTERM ends a call in the middle of an answer", "tests/system/test_netlink_senders.py -k sigterm",
    ),
    Mutant(
        "shared/net/netlink.py", "if monotonic() >= self.deadline:", "if self.deadline < 0:",
        "a request has a deadline", "tests/unit/test_wire.py -k deadline",
    ),
    Mutant(
        "shared/net/netlink.py", "is_busy = failure is not None and failure.errno == errno.EBUSY", "is_busy = False",
        "a dump that a signal cut short does not spoil the next", "tests/system/test_netlink_senders.py -k cut_short",
    ),
    Mutant(
        "shared/net/netlink.py", "return take(stream())", "return take(iter(list(stream())))",
        "nothing of a dump is kept but the answer", "tests/system/test_large_namespaces.py -k check_of_a_pod",
    ),
    Mutant(
        "shared/net/netlink.py", "self.room *= 4", "self.room *= 1",
        "a large message is read whole", "tests/system/test_large_namespaces.py -k hundreds",
    ),
    Mutant(
        "shared/net/wait.py", "while sender != KERNEL:", "while sender is None:",
        "a wait heeds news of the kernel alone", "tests/system/test_netlink_senders.py -k wait",
    ),
    Mutant(
        "shared/net/bridges.py", '    undo.push(f"set the number of MACs that {bridge[\'IFLA_IFNAME\']} may learn as it was", set_back)\n', "",
        "a failed ADD sets the limit of learned MACs back", "tests/system/test_learned_addresses.py -k was_there",
    ),
    Mutant(
        "shared/net/bridges.py", 'data["IFLA_BR_FDB_MAX_LEARNED"] = fdb_max_learned', 'data["IFLA_BR_FDB_MAX_LEARNED"] = 0',
        "a new bridge has its limit in the message that makes it", "tests/system/test_learned_addresses.py -k without_another_message",
    ),
    Mutant(
        "shared/net/netlink.py", "if not 8 <= length <= len(data) - start:", "if length < 8:",
        "decoders stop at the end of a list of next hops", "tests/unit/test_wire.py -k next_hops",
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
        "shared/net/localnet.py", "return None if routes.has_gateway(host, link[\"index\"]) else link", "return link",
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
