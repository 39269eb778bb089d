"""Mistakes in shared/net: links, addresses, routes, namespaces, netlink; and in the notes of admitted pods."""

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
        "shared/cni/blake2.py", "mixed[12] ^= counted & MASK", "mixed[12] ^= len(block) & MASK",
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
        "shared/net/learning.py", '    undo.push(f"set the number of MACs that {bridge[\'IFLA_IFNAME\']} may learn as it was", set_back)\n', "",
        "a failed ADD sets the limit of learned MACs back", "tests/system/test_learned_addresses.py -k was_there",
    ),
    Mutant(
        "shared/net/bridges.py", 'data["IFLA_BR_FDB_MAX_LEARNED"] = fdb_max_learned', 'data["IFLA_BR_FDB_MAX_LEARNED"] = 0',
        "a new bridge has its limit in the message that makes it", "tests/system/test_learned_addresses.py -k without_another_message",
    ),
    Mutant(
        "shared/net/messages.py", "if not 8 <= length <= len(data) - start:", "if length < 8:",
        "decoders stop at the end of a list of next hops", "tests/unit/test_wire.py -k next_hops",
    ),
    Mutant(
        "shared/net/forwarding.py", "for name in links_at_risk(netlink):", "for name in ():",
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
        "shared/net/bridges.py", 'if bridge["index"] in forwarding.learned_links(netlink):', "if ():",
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
        "shared/net/localnet.py", "    with rules_lock.hold(NOTES):\n", "    if is_on(name):\n        return\n    with rules_lock.hold(NOTES):\n",
        "an ADD sees the switch that a concurrent DEL sets back", "tests/system/test_route_localnet.py -k between",
    ),
    Mutant(
        "shared/net/localnet.py", 'return None if routes.has_gateway(host, link["index"]) else link', "return link",
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
    Mutant(
        "shared/net/liveness.py", ":{found.st_mtime_ns}", "", "an inode number that a new namespace has again is not the old one",
        "tests/system/test_liveness.py -k time_is_not",
    ),
    Mutant(
        "shared/net/netns.py", "    if is_own and posix", "    if False and posix", "the host's own namespace is refused",
        "tests/faults/test_leftovers.py -k own_namespace_is_refused",
    ),
    Mutant(
        "shared/net/netns.py", " | posix.O_NONBLOCK", "", "a FIFO in the place of a namespace does not block",
        "tests/system/test_loopback.py -k fifo",
    ),
    Mutant(
        "shared/net/bridges.py", '"IFLA_LINK_NETNSID" not in port and ', "", "a number from another namespace is no link of this one",
        "tests/unit/test_bridges.py",
    ),
    Mutant(
        "shared/net/bridges.py", "return not scan_ports(netlink, bridge, lambda ports: all(map(is_own, ports)))", "return False",
        "a failing ADD leaves what another pod on the bridge needs", "tests/system/test_bridge.py -k failing_add_leaves_the_gateway",
    ),
    Mutant(
        "shared/net/bridges.py", ' and is_new and not has_other_ports(netlink, bridge["index"], *uplinks):', ' and not has_other_ports(netlink, bridge["index"], *uplinks):',
        "a failing ADD leaves a bridge that it has not made", "tests/faults/test_failing_neighbours.py",
    ),
    Mutant(
        "shared/net/bridges.py", ' and is_new and not has_other_ports(netlink, bridge["index"], *uplinks):', " and is_new:",
        "a failing ADD leaves a new bridge that another pod is joining", "tests/faults/test_failing_neighbours.py",
    ),
    Mutant(
        "shared/net/gateways.py", "        if bridges.has_other_ports(host, bridge, *own, index):\n            return\n", "",
        "a failing ADD leaves the gateway address that another pod uses", "tests/system/test_bridge.py -k failing_add_leaves_the_gateway",
    ),
    Mutant(
        "shared/net/gateways.py", "((gateway.version == 4 and not several) or other.overlaps(gateway))", "True",
        "other IPv6 networks on the bridge stay", "tests/system/test_bridge.py -k other_ipv6_networks",
    ),
    Mutant(
        "shared/net/gateways.py", "    if conflicts and not force:\n", "    if False:\n", "another address on the bridge stays without forceAddress",
        "tests/system/test_bridge.py -k another_address",
    ),
    Mutant(
        "shared/net/gateways.py", "        host.batch([addresses.add_request(index, other, dad=False, tolerate=(errno.EEXIST,)) for other in conflicts])\n", "",
        "an address that was forced away comes back when the ADD fails", "tests/system/test_bridge.py -k forced_away",
    ),
    Mutant(
        "shared/net/bridges.py", '_sysfs(name, "addr_assign_type") == NET_ADDR_SET', "True",
        "a bridge that somebody else has made keeps its MAC", "tests/system/test_bridge.py -k bridges_mac_stays",
    ),
    Mutant(
        "shared/net/bridges.py", '_sysfs(name, "address") == mac and ', "", "another namespace's bridge of that name says nothing",
        "tests/unit/test_bridges.py -k mac_was_set",
    ),
    Mutant(
        "shared/net/bridge_netfilter.py", 'undo.push(f"set {bridge[\'IFLA_IFNAME\']}\'s calls of iptables as they were", set_back)', "undo",
        "a failing ADD sets the bridge's calls of iptables back", "tests/system/test_frames.py -k calls_of_iptables_after",
    ),
    Mutant(
        "shared/net/bridge_netfilter.py", "for name, _ in () if on else SWITCHES:", "for name, _ in SWITCHES:",
        "bridgeNfCallIptables: true leaves the namespace's switches alone", "tests/system/test_frames.py -k calls_of_iptables",
    ),
    Mutant(
        "shared/net/bridges.py", "        except links.NoLink:\n            continue\n", "",
        "a bridge that a concurrent failing ADD took away is made anew", "tests/unit/test_bridges.py",
    ),
    Mutant(
        "shared/net/bridges.py", 'is_gone = links.by_index(netlink, bridge["index"]) is None if bridge else error.errno == errno.ENODEV', "is_gone = False",
        "a bridge that is taken away while a port joins it is made anew", "tests/unit/test_bridges.py",
    ),
    Mutant(
        "shared/net/bridges.py", '        if error.errno == errno.EEXIST:\n            return ""\n', "",
        "of several first ADDs each gets the bridge", "tests/unit/test_wire.py -k another_call_has_made",
    ),
    Mutant(
        "shared/net/bridges.py", '        sysctl.prefer(f"ipv6/conf/{name}/accept_dad", "0")\n', "        pass\n",
        "the new bridge's IPv6 address can be used at once", "tests/system/test_neighbours.py -k keeps_its_detection",
    ),
    Mutant(
        "shared/net/bridges.py", "    sysctl.refuse_advertisements(name)\n", "", "the bridge ignores router advertisements",
        "tests/system/test_bridge.py -k router_advertisements",
    ),
    Mutant(
        "shared/net/links.py", "while group == 0 or group in taken:", "while group == 0:", "links of a stranger's group are not deleted",
        "tests/unit/test_links.py",
    ),
    Mutant(
        "shared/net/links.py", "return sorted(set(doomed).intersection(netlink.scan(RTM_GETLINK, None, doomed_of)))", "return sorted(doomed)",
        "a link that has become another's in the meantime is not deleted", "tests/unit/test_links.py",
    ),
    Mutant(
        "shared/net/links.py", "return error.errno != errno.EINVAL", "return True", "a link whose pod's namespace is gone is told from a living one's",
        "tests/unit/test_links.py",
    ),
    Mutant(
        "shared/net/links.py", 'return Request(RTM_DELLINK, {"index": index}, 0, (errno.ENODEV,))', 'return Request(RTM_DELLINK, {"index": index})',
        "GC does not mind links that another GC deletes", "tests/unit/test_links.py",
    ),
    Mutant(
        "shared/net/owner.py", "len(tail) == 8 and ", "", "a name that only begins like a host link's is a stranger's", "tests/unit/test_link_names.py",
    ),
    Mutant(
        "shared/net/owner.py", "alias.startswith(ALIAS_PREFIX) and len(parts) == 3", "len(parts) == 3", "an alias that somebody else has written names no attachment",
        "tests/unit/test_link_names.py",
    ),
    Mutant(
        "shared/net/owner.py", 'return "fe" + mac[2:]', "return mac", "a bridge without a MAC of its own does not take the pods'",
        "tests/system/test_neighbours.py -k precedence",
    ),
    Mutant(
        "shared/net/renamed.py", " and made_for[1:] == (owner.container_id, owner.ifname)", "",
        "DEL leaves the interface of another container's name", "tests/system/test_former_keys.py -k another_network",
    ),
    Mutant(
        "shared/net/renamed.py", "pod_netns.is_own or ", "", "in the host's own namespace no link is a renamed network's", "tests/system/test_netns_override.py -k renamed",
    ),
    Mutant(
        "shared/net/uplinks.py", 'if link is None or link.get("IFLA_MASTER", 0) not in (0, bridge) or bridges', "if link is None or bridges",
        "a failing ADD leaves an uplink that somebody has put elsewhere", "tests/system/test_uplinks.py -k put_elsewhere",
    ),
    Mutant(
        "shared/net/uplinks.py", "not in (0, bridge) or bridges.has_other_ports(netlink, bridge, *own):", "not in (0, bridge):",
        "a failing ADD leaves the uplink that another pod uses", "tests/unit/test_uplinks.py",
    ),
    Mutant(
        "shared/net/uplinks.py", 'links.flags_request(index, before["flags"], IFF_UP)', "links.flags_request(index, 0, IFF_UP)",
        "a failing ADD leaves an uplink up that was up", "tests/system/test_uplinks.py -k takes_out",
    ),
    Mutant(
        "shared/net/uplinks.py", "    if bridges.has_other_ports(netlink, bridge, *own):\n        # The port", "    if False:\n        # The port",
        "a pod that comes while a failing ADD takes the uplink out gets it back", "tests/unit/test_uplinks.py",
    ),
    Mutant(
        "shared/net/uplinks.py", '    if is_pod_link(link["IFLA_IFNAME"], link.get("IFLA_IFALIAS", "")):\n        return "belongs to a pod"\n', "",
        "a pod's link is no uplink", "tests/system/test_uplinks.py -k cannot_be_uplinks",
    ),
    Mutant(
        "shared/net/uplinks.py", " if one.address not in addresses.LINK_LOCAL]", "]", "a link-local address keeps no link from being an uplink",
        "tests/system/test_uplinks.py -k link_local",
    ),
    Mutant(
        "shared/net/uplinks.py", ' and "IFLA_LINK_NETNSID" not in other', "", "a macvlan of a pod that has the uplink's number below it is no reason",
        "tests/system/test_uplinks.py -k number",
    ),
    Mutant(
        "shared/net/vlans.py", 'member = {"flags": 0, "vid": default}', 'member = {"flags": 1, "vid": default}',
        "the bridge's own end stays in the default VLAN", "tests/unit/test_wire.py -k vlans",
    ),
    Mutant(
        "shared/net/vlans.py", "return bool(native and default and not keep_default and native != default)", "return bool(default and not keep_default and native != default)",
        "a port that has a trunk alone stays in the default VLAN", "tests/unit/test_wire.py -k vlans",
    ),
    Mutant(
        "shared/net/vlans.py", '        if not _members(netlink, bridge["index"], vlan) - {*own, port["index"]}:\n            links', "        if True:\n            links",
        "a failing ADD leaves the VLAN gateway port that another pod uses", "tests/unit/test_vlan_gateway.py",
    ),
    Mutant(
        "shared/net/vlans.py", ' if link.get("IFLA_MASTER") == bridge and link["index"] != bridge)', ")",
        "ports of other bridges are not in this bridge's VLAN", "tests/unit/test_vlan_gateway.py",
    ),
    Mutant(
        "shared/net/vlans.py", "    elif untagged and not have[untagged]:\n", "    elif False:\n", "CHECK names a VLAN that is not the native one",
        "tests/unit/test_vlan_gateway.py",
    ),
    Mutant(
        "shared/net/vlans.py", 'is_pod_link(name, port.get("IFLA_IFALIAS", ""))', "True", "CHECK of a pod that the reference made does not mind the default VLAN",
        "tests/unit/test_vlan_gateway.py",
    ),
    Mutant(
        "shared/net/shaping.py",
        'present["handle"] == ROOT_HANDLE and _is_limit(tc, present):\n        requests.append(removal_request(index, TC_H_ROOT, ROOT_HANDLE))',
        '_is_limit(tc, present):\n        requests.append(removal_request(index, TC_H_ROOT, present["handle"]))',
        "DEL leaves a stranger's token bucket", "tests/system/test_bandwidth.py -k strangers_root",
    ),
    Mutant(
        "shared/net/shaping.py", 'if present is not None and present["handle"] == ROOT_HANDLE and _is_limit(tc, present):', 'if present is not None and present["handle"] == ROOT_HANDLE:',
        "DEL leaves a stranger's HTB and prio", "tests/system/test_bandwidth.py -k strangers",
    ),
    Mutant(
        "shared/net/shaping.py", "        if filters.get(preference) not in {0, *ifbs}:\n", "        if filters.get(preference) is None:\n",
        "DEL leaves a stranger's redirection", "tests/system/test_bandwidth.py -k strangers",
    ),
    Mutant(
        "shared/net/shaping.py", "preference == OWN_QDISC and len(filters) == 1", "preference == OWN_QDISC",
        "an ingress qdisc with a stranger's filter stays", "tests/system/test_bandwidth.py -k own_qdisc",
    ),
    Mutant(
        "shared/net/shaping.py", '    if present is not None and present["handle"]:\n', "    if False:\n", "a link that something limits already is refused",
        "tests/system/test_bandwidth.py -k strangers",
    ),
    Mutant(
        "shared/net/qdisc.py", '("limit", have["limit"], self.limit, "bytes"),', "", "CHECK looks at the length of the queue", "tests/system/test_bandwidth.py -k check_names",
    ),
    Mutant(
        "shared/net/subnets.py", "== REFERENCE_UNLIMITED_RATE", "is not None", "a stranger's HTB is not taken for the reference's", "tests/system/test_bandwidth.py -k htb",
    ),
    Mutant(
        "shared/net/sysctl.py", "if current in (value, None):", "if current is None:",
        "a sysctl that is right already is no error where /proc/sys is read-only", "tests/unit/test_sysctl.py",
    ),
    Mutant(
        "shared/net/sysctl.py", 'if read(f"{conf}disable_ipv6") == "0" and not forwards:', "if False:", "a link that would accept router advertisements is refused",
        "tests/system/test_neighbours.py -k sysctls_that_are_wrong",
    ),
    Mutant(
        "shared/net/rules_lock.py", "            self.descriptor = self._locked()\n", "            pass\n",
        "calls that look at rules and change them take turns", "tests/faults/test_turns.py",
    ),
    Mutant(
        "shared/admission/claims.py", "            left -= {*_addresses(content)}\n", "            pass\n", "DEL leaves an address that another pod has by now",
        "tests/system/test_firewall.py -k leased_anew",
    ),
    Mutant(
        "shared/admission/claims.py", '(content.get("network") != claim.owner.network or _order(content) >= _order(claim.note))', "True",
        "a note that another suite's DEL left behind keeps no address", "tests/system/test_firewall.py -k references_del",
    ),
    Mutant(
        "shared/admission/claims.py", "if claim and claim.owner.network == network and (claim.owner.container_id", "if claim and (claim.owner.container_id",
        "firewall's GC leaves other networks' pods", "tests/system/test_firewall.py -k collection_by_iptables",
    ),
    Mutant(
        "shared/admission/claims.py", "(claim.owner.container_id, claim.owner.ifname) not in valid", "claim.owner.container_id not in {one for one, _ in valid}",
        "firewall's GC tells the interfaces of a container apart", "tests/system/test_firewall.py -k collection_by_iptables",
    ),
    Mutant(
        "shared/admission/claims.py", "if claim and claim.owner.network == network and is_alive(claim, valid):", "if claim and is_alive(claim, valid):",
        "a note of another network's pod has nobody admitted here", "tests/system/test_firewall_restored.py -k not_for_this_network",
    ),
    Mutant(
        "shared/admission/claims.py", "return Claim(owner, content) if path in _paths(owner) else None", "return Claim(owner, content)",
        "a note under another's name counts for nothing", "tests/system/test_firewall_restored.py -k not_for_this_network",
    ),
    Mutant(
        "shared/admission/claims.py", "        run_all(first, *(lambda take=take", "        _remove(owner)\n        run_all(first, *(lambda take=take",
        "a note stays until its rules are gone", "tests/system/test_firewalld.py -k could_not_end",
    ),
    Mutant(
        "shared/admission/claims.py", "found = [next(_living(some, owner.network, None), None) for some in (names, names[::-1])]", "found = [next(_living(some, owner.network, None), None) for some in (names,)]",
        "an ADD that is killed while it restores leaves a witness", "tests/system/test_firewall_restored.py -k witnesses",
    ),
    Mutant(
        "shared/net/verify.py", "(route, (route.dst.network, route.gw))", "(route, (route.dst.network, None))",
        "CHECK looks at the routes' gateways", "tests/faults/test_truth.py -k names_what_is_lost and default",
    ),
    Mutant(
        "shared/net/verify.py", "return bool(interface.sandbox) and interface.name == call.ifname", "return True", "CHECK looks at its own addresses only",
        "tests/system/test_bridge.py -k own_addresses",
    ),
    Mutant(
        "shared/net/verify.py", '    if mac and message.get("IFLA_ADDRESS") != mac:\n', "    if False:\n",
        "CHECK names another MAC", "tests/system/test_bridge.py -k mac_from",
    ),
    Mutant(
        "shared/net/readiness.py", "        if choice and all(conflicts):\n", "        if choice and any(conflicts):\n", "STATUS knows that one range of several will do",
        "tests/system/test_status.py -k can_succeed",
    ),
    Mutant(
        "shared/net/wait.py", 'return bool(link["IFLA_OPERSTATE"] == links.IF_OPER_UP)', "return True", "ADD answers when the port forwards",
        "tests/system/test_netlink.py -k waited_for",
    ),
    Mutant(
        "shared/net/netlink.py", "interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)", "interrupted = False", "a dump that a change interrupted is begun anew",
        "tests/unit/test_wire.py -k dump",
    ),
    Mutant(
        "shared/net/netlink.py", "                    self._drain(has_lost=has_lost)\n", "", "answers that an overrun left do not crowd out the next ones",
        "tests/unit/test_wire.py -k overrun",
    ),
    Mutant(
        "shared/net/netlink.py", "                if kind != NLMSG_ERROR or not first <= sequence <= last:\n                    continue  # an answer", "                if kind != NLMSG_ERROR:\n                    continue  # an answer",
        "answers to earlier requests are passed over", "tests/unit/test_wire.py -k earlier",
    ),
    Mutant(
        "shared/net/netlink.py", "                interrupted = True\n", "                pass\n",
        "a dump that overran the buffer is begun anew", "tests/unit/test_wire.py -k overran",
    ),
    Mutant(
        "shared/net/netlink.py", "                failure = failure or self._refusal(requests[sequence - first], _flags, data, start, end)",
        "                failure = self._refusal(requests[sequence - first], _flags, data, start, end)", "a refusal in the middle of a batch is raised",
        "tests/unit/test_wire.py -k batch",
    ),
    Mutant(
        "shared/net/announce.py", "discovery.arp(ARPOP_REPLY, mac, own, mac, own)", "discovery.arp(ARPOP_REPLY, mac, own, NOBODY, own)", "neighbours take an announcement for gratuitous",
        "tests/unit/test_announce.py",
    ),
    Mutant(
        "shared/net/filter_tables.py", 'if any(b"nat" in legacy_tables(path) for path in LEGACY_NAMES.values())', "if False", "rules of the older iptables are looked for",
        "tests/system/test_iptables_programs.py -k lock",
    ),
    Mutant(
        "shared/net/subnets.py", "        if sorted(map(_key, _filters(tc, index))) != sorted(map(_key, self.filters)):\n", "        if False:\n",
        "CHECK looks at the subnets that are limited", "tests/system/test_bandwidth.py -k check_of_subnets",
    ),
    Mutant(
        "shared/net/addresses.py", '            raise InternalError(f"address {prefix} is in use', '            print(f"address {prefix} is in use', "an address that somebody else has fails the ADD",
        "tests/system/test_bridge.py -k duplicate_in_the_segment",
    ),
    Mutant(
        "shared/net/routes.py", "via = route.gw or (gateway if", "via = gateway or (route.gw if", "a route's own gateway wins", "tests/unit/test_wire.py -k own_gateway",
    ),
    Mutant(
        "shared/net/routes.py", '                if hop.get("RTA_OIF") == index:\n', "                if True:\n", "CHECK takes no other link's route for the pod's",
        "tests/system/test_bridge.py -k two_interfaces",
    ),
    Mutant(
        "shared/net/reference_names.py", 'f"{name[: LONGEST_NAME - 17]}-{digest(name.encode())[:16]}"', "name[:LONGEST_NAME]", "two long ids with one beginning are two",
        "tests/unit/test_link_names.py -k comments",
    ),
    Mutant(
        "shared/net/reference_names.py", 'f"{network}{container_id}"', 'f"{network}/{container_id}"', "either suite ends what the other has masqueraded",
        "tests/system/test_masquerade.py -k hand_over",
    ),
    Mutant(
        "shared/net/wait.py", "    except InternalError:\n        return False\n", "    except InternalError:\n        return True\n", "a link that does not go is not taken for gone",
        "tests/faults/test_leftovers.py -k another_namespace",
    ),
    Mutant(
        "shared/net/readiness.py", 'elif now == "0" and not posix.access', "elif False and not posix.access",
        "STATUS says that the host cannot forward", "tests/system/test_status.py -k must_fail",
    ),
    Mutant(
        "shared/net/readiness.py", "    if 0 < mtu < bridges.LEAST_IPV6_MTU:\n", "    if False:\n", "an MTU that is too small for IPv6 is refused", "tests/system/test_status.py -k must_fail",
    ),
    Mutant(
        "shared/net/peers.py", 'if end.get("IFLA_LINK_NETNSID") != _number(host, pod_netns):', "if False:",
        "a peer is found by index and namespace", "tests/system/test_peers.py -k crossing",
    ),
    Mutant(
        "shared/net/peers.py", "    if is_strange(end, owner):\n", "    if False:\n",
        "a peer with another attachment's alias is refused", "tests/system/test_peers.py -k taken",
    ),
    Mutant(
        "shared/net/peers.py", "return name != owner.host_link and is_pod_link(name, alias)", "return False",
        "a derived name says whose a link is", "tests/system/test_peers.py -k renamed",
    ),
    Mutant(
        "shared/net/peers.py", 'if interface.mac and link.get("IFLA_ADDRESS") == interface.mac.lower():', "if True:",
        "a link that a result names has its MAC, too", "tests/system/test_paths.py -k names_strangers",
    ),
    Mutant(
        "shared/net/peers.py", "return end if leased_to == {owner.container_id} else None", "return end",
        "a pod without the leased address is another one", "tests/system/test_paths.py -k references_at_the_path",
    ),
    Mutant(
        "shared/net/peers.py", 'return end if master and end.get("IFLA_MASTER") == master["index"] else None', "return end",
        "a pod of another bridge is another one", "tests/system/test_paths.py -k nobody_knows",
    ),
    Mutant(
        "shared/net/netns.py", 'return f"{found.st_dev}:{found.st_ino}:{cookie}"', 'return f"{found.st_dev}:{found.st_ino}"',
        "a number that the kernel gives again identifies no namespace", "tests/system/test_paths.py -k inode",
    ),
    Mutant(
        "shared/net/netns.py", "        raise\n    except (UnknownContainer, InvalidNetns):\n        return None\n",
        "        raise\n    except UnknownContainer:\n        return None\n",
        "to DEL, a pod whose path leads to the host's own namespace is gone", "tests/system/test_paths.py -k hosts_own_namespace_at",
    ),
    Mutant(
        "shared/net/bridges.py", 'is_new = bridge.get("IFLA_GROUP") == HALF_MADE_GROUP', "is_new = False",
        "a bridge is new until an ADD has set it up", "tests/faults/test_concurrency.py -k all_fail",
    ),
    Mutant(
        "shared/net/vlans.py", '*([] if port.get("IFLA_MASTER") else joining),', "",
        "a half-made gateway port joins its bridge", "tests/system/test_vlans.py -k half_made",
    ),
    Mutant(
        "shared/net/vlans.py", 'if port is None or not (is_own or master == bridge["index"]):', "if port is None:",
        "a stranger's link of the gateway port's name is refused", "tests/system/test_vlans.py -k strangers",
    ),
    Mutant(
        "shared/net/owner.py", "parts[0] in (network, _stand_in(network))", "True",
        "GC tells networks whose names have equal digits", "tests/system/test_gc_of_namesakes.py -k room",
    ),
    Mutant(
        "shared/net/left_behind.py", "monotonic() - since / 100 > YOUNG_SECONDS", "True",
        "GC leaves a young link without alias alone", "tests/system/test_gc_of_namesakes.py -k without",
    ),
    Mutant(
        "shared/net/left_behind.py", "return _is_old(link) if known is None else known", "return bool(known)",
        "GC removes an old link without alias", "tests/system/test_gc_of_namesakes.py -k without",
    ),
    Mutant(
        "shared/net/deletion.py", "reports are lost\n                return False\n", "reports are lost\n                return True\n",
        "a link whose end nobody reported is deleted by the call itself", "tests/system/test_deletion.py -k child_is_killed",
    ),
    Mutant(
        "shared/handover.py", "    if not is_executable or not _does_init_reap():\n", "    if not _does_init_reap():\n",
        "only the executables fork", "tests/system/test_deletion.py -k library",
    ),
    Mutant(
        "shared/handover.py", "    if not is_executable or not _does_init_reap():\n", "    if not is_executable:\n",
        "no child becomes a zombie of an init that reaps nothing", "tests/system/test_deletion.py -k zombie",
    ),
    Mutant(
        "shared/handover.py", "            close_others(*needed)\n", "",
        "the child holds no pipe and no lock", "tests/system/test_deletion.py -k holds",
    ),
    Mutant(
        "shared/admission/iptables.py", "if count in (2, 3) else None", "",
        "DEL deletes rules that are there twice", "tests/system/test_firewall.py -k changed_rules",
    ),
)  # fmt: skip
