"""Mistakes in static, sbr and vrf, and in the rules, tables and routes that they share."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

STATIC, PROBE = "tests/system/test_static.py", "tests/system/test_probe.py"
SBR, VRF = "tests/system/test_sbr.py", "tests/system/test_vrf.py"
TABLE: tuple[Mutant, ...] = (
    Mutant(
        "ipam/static/assignment.py", "            if wanted:  # as", "            if wanted and not self.ips:  # as",
        "the runtime's addresses replace the configuration's", f"{STATIC} -k last_source",
    ),
    Mutant(
        "ipam/static/assignment.py", "{**self.configured, **self._of_environment(call)}", "self._of_environment(call) or self.configured",
        "addresses of CNI_ARGS are added to the configuration's", f"{STATIC} -k last_source",
    ),
    Mutant(
        "ipam/static/assignment.py", "if len(holding) != 1:", "if not holding:",
        "an address without a length is refused if several networks hold it", f"{STATIC} -k without_a_length",
    ),
    Mutant(
        "ipam/static/assignment.py", "template.gateway or self._gateway_of(own)", "self._gateway_of(own)",
        "an address without a length takes the gateway of its network", f"{STATIC} -k without_a_length",
    ),
    Mutant(
        "ipam/static/assignment.py", "return gateway if gateway and self._reaches(own, gateway) else None", "return gateway",
        "a gateway of another network does not serve an address", f"{STATIC} -k gateways_serve",
    ),
    Mutant(
        "ipam/static/assignment.py", "            or gateway in LINK_LOCAL\n", "", "a link-local gateway is accepted", f"{STATIC} -k last_source",
    ),
    Mutant(
        "ipam/static/assignment.py", "if route.gw is None and route.dst.length)", "if route.gw is None)",
        "a default route makes no gateway reachable", f"{STATIC} -k a_pod_of_bridge or edges or default_route",
    ),
    Mutant(
        "ipam/static/assignment.py", "if own.address.bits - own.length < 2:", "if own.address.bits == own.length:",
        "both addresses of a /31 are usable", f"{STATIC} -k edges",
    ),
    Mutant(
        "ipam/static/assignment.py", "    if own.address == own.first:", "    if own.version == 4 and own.address == own.first:",
        "the address of an IPv6 network is refused", f"{STATIC} -k unusable",
    ),
    Mutant(
        "ipam/static/__init__.py", "elif ip.gateway and given[ip.address] != ip.gateway:", "elif False:",
        "CHECK names another gateway", f"{STATIC} -k check",
    ),
    Mutant(
        "shared/net/probe.py", "None if any(_is_tagged(data) for _, _, data in attached) else ", "",
        "frames of a VLAN say nothing about the link's own network", f"{PROBE} -k frame_of_a_VLAN",
    ),
    Mutant(
        "shared/net/probe.py", " or claim[1] == self.mac:", ":",
        "a link's own frames are no other host's", f"{PROBE} -k own_frame",
    ),
    Mutant(
        "shared/net/discovery.py", "target if sender == bytes(4) else sender", "sender",
        "two hosts that probe an address at once notice each other", f"{PROBE} -k another_probe",
    ),
    Mutant(
        "shared/net/discovery.py", "frame[54:56] == NEIGHBOUR_SOLICITATION and frame[22:38]", "() and frame[22:38]",
        "two hosts that detect duplicates at once notice each other", f"{PROBE} -k another_detection",
    ),
    Mutant(
        "shared/cni/config.py", "        if one.version in found:\n", "        if False:\n",
        "a second gateway of a family is refused", f"{STATIC} -k gateways_serve",
    ),
    Mutant(
        "shared/net/routes.py", '(gateway if extra.get("scope", RT_SCOPE_UNIVERSE) < RT_SCOPE_LINK else None)', "gateway",
        "a link-scope route gets no gateway", "tests/unit/test_wire.py -k test_route",
    ),
    Mutant(
        "plugins/sbr.py", "                source_routing.revert(inside, rules, index, former)\n", "                pass\n",
        "a repeated ADD keeps the routes", f"{SBR} -k repeated",
    ),
    Mutant(
        "plugins/sbr.py", "            if not pod_netns.is_own:  # a rule", "            if False:  # a rule",
        "ADD removes a left-over rule from its address", f"{SBR} -k left_over",
    ),
    Mutant(
        "plugins/sbr.py", "        with tables.hold(pod_netns):\n", "        if True:\n",
        "two calls choose different tables", f"{SBR} -k concurrent",
    ),
    Mutant(
        "plugins/sbr.py", '            undo.push(f"set the routes of {call.ifname} back", lambda: _undo(pod_netns, index, plan))\n', "",
        "a failed ADD leaves no rule", f"{SBR} -k failed_add",
    ),
    Mutant(
        "plugins/sbr.py", "            elif not pod_netns.is_own:  # among", "            elif False:  # among",
        "DEL removes the rules of the reference", f"{SBR} -k hand_over",
    ),
    Mutant(
        "plugins/sbr.py", "attachment_records.namespace(found) == namespace else None", "True else None",
        "a record of a lost namespace says nothing of the next", f"{SBR} -k lost_namespace",
    ),
    Mutant(
        "shared/net/attachment_records.py", 'if not isinstance(owner, dict) or owner.get("network") != call.network:', "if not isinstance(owner, dict):",
        "GC leaves the records of other networks", "tests/system/test_tuning.py -k gc",
    ),
    Mutant(
        "shared/net/attachment_records.py", '(owner.get("containerID"), owner.get("ifname")) not in valid',
        'owner.get("containerID") not in {one for one, _ in valid}',
        "GC tells the interfaces of a container apart", "tests/system/test_tuning.py -k gc",
    ),
    Mutant(
        "shared/net/source_routing.py", "if keys.table is None or keys.addSourceHints:", "if keys.table is None:",
        "a hint that equals the kernel's route is none", f"{SBR} -k kernels_own",
    ),
    Mutant(
        "shared/net/source_routing.py", "gateway = keys.gateways.get(version)\n", "gateway = None\n",
        "`gateways` precede the result's", f"{SBR} -k gateways",
    ),
    Mutant(
        "shared/net/source_routing.py", "    if ip.gateway:\n        return ip.gateway\n", "",
        "the default route goes through the address's gateway", f"{SBR} -k packets_leave",
    ),
    Mutant(
        "shared/net/source_routing.py", "    return next(iter([*near, *beyond]), None)\n", "    return None\n",
        "the default route of the result names the gateway", f"{SBR} -k test_gateways",
    ),
    Mutant(
        "shared/net/source_routing.py", "    if link_routes.version(route) != own.version:\n        return False\n", "",
        "a table has routes of its family alone", f"{SBR} -k packets_leave",
    ),
    Mutant(
        "shared/net/source_routing.py", "return not marks or any(mark in own for mark in marks) or not any(m in one for m in marks for one in networks)",
        "return True", "a route through another address's network is not for this one", f"{SBR} -k several",
    ),
    Mutant(
        "shared/net/source_routing.py", "made.moved = [route for route in main if not _has_hint(route)]", "pass",
        "addSourceHints keeps the routes to the networks", f"{SBR} -k hints",
    ),
    Mutant(
        "shared/net/source_routing.py", "    inside.batch(link_routes.delete_requests(plan.moved))\n", "",
        "the main table has none of the interface's routes left", f"{SBR} -k packets_leave",
    ),
    Mutant(
        "shared/net/source_routing.py", '        inside.batch(link_routes.add_requests([route for route in plan.moved if route["RTA_OIF"] == index]))\n', "",
        "a failed ADD gives the main table its routes back", f"{SBR} -k failed_add",
    ),
    Mutant(
        "shared/net/source_routing.py", "if (dst, via, table) not in of_link]", "if False]",
        "CHECK names a missing route", f"{SBR} -k check_names",
    ),
    Mutant(
        "shared/net/tables.py", "    for family in FAMILIES.values():\n        netlink.scan(RTM_GETROUTE", "    for family in ():\n        netlink.scan(RTM_GETROUTE",
        "a table with a route is passed over", f"{SBR} -k in_use",
    ),
    Mutant(
        "shared/net/tables.py", '    found = {policy_rules.table(rule): f\'the rule "from {rule.get("FRA_SRC", "all")}"\' for rule in rules.all()}\n',
        "    found: dict[int, str] = {}\n",
        "a table with a rule is passed over", f"{SBR} -k in_use",
    ),
    Mutant(
        "shared/net/tables.py", "    netlink.scan(RTM_GETLINK, None, lambda stream: found.update(_with_vrfs(stream)))\n", "",
        "a table of a VRF is passed over", f"{VRF} -k in_use",
    ),
    Mutant(
        "shared/net/policy_rules.py", "return max(priorities[1] - 1, 1) if len(priorities) > 1 else 1", "return 32766",
        "a rule has a priority before those of the main table", f"{SBR} -k packets_leave",
    ),
    Mutant(
        "plugins/vrf.py", "    if keys.table and keys.table in taken:", "    if False:",
        "a table in use is refused", f"{VRF} -k in_use",
    ),
    Mutant(
        "plugins/vrf.py", '            undo.push(f"take {call.ifname} out of {keys.vrfname}", lambda: _leave(pod_netns, keys.vrfname, notes))\n',
        "", "a failed ADD takes the interface out of the VRF", f"{VRF} -k failed_add",
    ),
    Mutant(
        "plugins/vrf.py", "    vrfs.delete_if_empty(inside, name)\n", "    pass\n",
        "DEL deletes an empty VRF", f"{VRF} -k keeps_addresses",
    ),
    Mutant(
        "shared/net/vrfs.py", '    sysctl.prefer(f"ipv6/conf/{name}/keep_addr_on_down", "1")\n', "",
        "IPv6 addresses stay when the interface joins a VRF", f"{VRF} -k keeps_addresses",
        excuse="the addresses that are missing afterwards are added again",
    ),
    Mutant(
        "shared/net/vrfs.py", "    inside.batch(link_routes.add_requests(moved, target))\n", "",
        "the routes follow the interface into the VRF", f"{VRF} -k keeps_addresses",
    ),
    Mutant(
        "shared/net/vrfs.py", "        inside.batch(link_routes.delete_requests(moved))\n", "        pass\n",
        "the main table has no next hop left through the interface", f"{VRF} -k keeps_addresses",
    ),
    Mutant(
        "shared/net/vrfs.py", "    inside.batch(link_routes.add_requests([route for route in own if route not in moved]))\n", "",
        "routes of other tables stay there", f"{VRF} -k keeps_addresses",
    ),
    Mutant(
        "plugins/vrf.py", "        notes.finish(inside, link, vrf, is_joining=True)\n", "",
        "an ADD finishes one that was killed", f"{VRF} -k killed_add",
    ),
)  # fmt: skip
