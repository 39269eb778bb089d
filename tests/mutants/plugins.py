"""Mistakes in the plugins themselves."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "plugins/vlan.py", "if not pod.keys.master and previous_result(call) is None:", "if False:",
        "vlan needs a master, and takes none by itself", "tests/system/test_vlan.py -k cannot_be_used",
    ),
    Mutant(
        "plugins/vlan.py", ', "IFLA_VLAN_FLAGS": LOOSE}', "}", "routes survive the master's fall",
        "tests/system/test_vlan.py -k falls",
    ),
    Mutant(
        "shared/net/uppers.py", "        if monotonic() >= deadline:", "        if True:",
        "ADD waits for the VLAN of a dead pod", "tests/system/test_vlan.py -k vlan_that_is_in_use",
    ),
    Mutant(
        "plugins/ipvlan.py", "        _require_same_mode(pod, below)\n", "", "a pod keeps its mode when the next one wants another",
        "tests/system/test_ipvlan.py -k one_mode",
    ),
    Mutant(
        "plugins/ipvlan.py", "    if mac:\n", "    if False:\n", "ipvlan refuses a MAC",
        "tests/system/test_ipvlan.py -k cannot_be_used",
    ),
    Mutant(
        "plugins/ipvlan.py", "        _route_through_link(result)\n", "        pass\n", "modes l3 and l3s have no gateways",
        "tests/system/test_ipvlan.py -k host_routes",
    ),
    Mutant(
        "shared/pod/master.py", "        other = self.find_upper(lambda _, link: masters", "        other = (lambda _: None)(lambda _, link: masters",
        "a busy master's other link is named, in whichever pod", "tests/system/test_ipvlan.py -k serves_other",
    ),
    Mutant(
        "shared/net/pod_sysctls.py", "if path in HOST_WIDE:", "if path in ():", "sysctls of the host are refused",
        "tests/system/test_tuning.py -k refused",
    ),
    Mutant(
        "shared/net/learning.py", "(now := limit_of(bridge)) != most", "(now := limit_of(bridge)) == -1",
        "CHECK names another limit of learned MACs", "tests/system/test_learned_addresses.py -k was_there",
    ),
    Mutant(
        "plugins/portmap.py", "    _guard_if_open(attachment, links_here)\n    return result", "    return result",
        "an ADD without host ports restores the rules", "tests/system/test_route_localnet.py -k restores",
    ),
    Mutant(
        "plugins/portmap.py", '                undo.push("set route_localnet back", _set_localnet_back)\n', "                pass\n",
        "a failed ADD leaves route_localnet as it was", "tests/system/test_route_localnet.py -k failed_add",
    ),
    Mutant(
        "shared/net/forwarding.py", ' if now in ("0", None)', " if ()",
        "CHECK says that the host forwards no more", "tests/system/test_hidden_sysctls.py -k forwards",
    ),
    Mutant(
        "plugins/tuning.py", "            sysctl.require_visible()\n", "            pass\n",
        "STATUS says that sysctls are hidden", "tests/system/test_hidden_sysctls.py -k tuning",
    ),
    Mutant(
        "shared/pod/removal.py",
        "        run_all(lambda: _remove_filters(host, own), *_leases_by_link(call), disconnect)\n",
        "        ipam and delegate.forward(call)\n"
        "        run_all(lambda: _remove_filters(host, own), *_leases_by_link(call), disconnect)\n",
        "DEL releases the address when rules and link are gone, not before", "tests/system/test_delete_order.py -k iptables_that_fails",
    ),
    Mutant(
        "shared/pod/removal.py", "run_all(lambda: _remove_filters(host, own), *_leases_by_link(call), disconnect)", "(_remove_filters(host, own), disconnect())",
        "DEL deletes the link even if the rules cannot be removed", "tests/system/test_delete_order.py -k iptables_that_fails",
    ),
    Mutant(
        "shared/pod/removal.py", "        links.set_down_if_exists(host, owner.host_link)", "        pass",
        "DEL silences a port before its MAC check goes", "tests/system/test_frames.py -k killed_at_any_message",
    ),
    Mutant(
        "shared/frames/__init__.py", "lambda: links.set_down_if_exists(host, owner.host_link)", "lambda: None",
        "a failing ADD silences the port before its MAC check goes", "tests/system/test_frames.py -k failing_add_that",
    ),
    Mutant(
        "shared/net/veth.py", "return left_behind.is_left_behind(link, network)", "return True",
        "GC leaves another network's link whose name has the same digits", "tests/system/test_bridge.py -k garbage",
    ),
    Mutant(
        "shared/net/veth.py", " or name in valid:", ":", "GC leaves the links of valid attachments", "tests/system/test_bridge.py -k garbage",
    ),
    Mutant(
        "shared/net/veth.py", 'links.kind(link) != "veth" or not is_host_link', "not is_host_link",
        "GC leaves a stranger's link of another kind", "tests/system/test_bridge.py -k garbage",
    ),
    Mutant(
        "shared/net/peers.py", "if pod_netns is None or pod_netns.is_own or names(result):", "if pod_netns is None or names(result):",
        "DEL in the host's own namespace takes no link for the pod's by its name alone", "tests/system/test_netns_override.py -k is_there",
    ),
    Mutant(
        "shared/net/peers.py", "return made_for[1:] != (owner.container_id, owner.ifname)", "return False",
        "DEL leaves the interface that another network has made", "tests/system/test_former_keys.py -k another_network",
    ),
    Mutant(
        "shared/net/veth.py", "if _has_link(pod_netns, owner.ifname) or not wait.gone(host, owner.host_link):", "if _has_link(pod_netns, owner.ifname):",
        "an ADD in another namespace leaves the living pod's link", "tests/faults/test_leftovers.py -k another_namespace",
    ),
    Mutant(
        "shared/net/veth.py", 'undo.push(f"remove link {owner.host_link}", lambda: links.delete(host, owner.host_link))', "undo",
        "a failing ADD removes the veth pair", "tests/system/test_bridge.py -k full_pool",
    ),
    Mutant(
        "plugins/bridge.py", 'if end.get("IFLA_MASTER") != bridge_now["index"]:', "if False:",
        "an ADD whose bridge was replaced in the meantime fails", "tests/faults/test_failing_neighbours.py -k replaced",
    ),
    Mutant(
        "plugins/bridge.py", '    bridges.note_attached(host, undo, bridge_now, (*own, gateway.link["index"]))\n', "",
        "a bridge that has had a pod stays, whatever fails after that", "tests/faults/test_failing_neighbours.py -k just_gone",
    ),
    Mutant(
        "shared/pod/attachment.py", "        self._remove_former_filters(result, keep)\n", "",
        "a pod that comes back does not inherit the rules of its former life", "tests/system/test_former_keys.py -k next_pod_is_not_masqueraded",
    ),
    Mutant(
        "plugins/bridge.py", "        frames.install(host, undo, pod.owner, pod.own_mac, pod.frame_filters)\n", "        frames\n",
        "the MAC check is there", "tests/system/test_frames.py -k other_keys",
    ),
    Mutant(
        "shared/net/bridges.py", 'return found if port["flags"] & IFF_UP else', "return found if True else",
        "CHECK names a port that is down", "tests/system/test_bridge.py -k test_check",
    ),
    Mutant(
        "shared/net/bridge_state.py", "        found += of_bridge.problems(host, bridge, uplinks)\n", "        of_bridge\n",
        "CHECK looks at the uplinks", "tests/system/test_uplinks.py -k check",
    ),
    Mutant(
        "shared/frames/__init__.py", "        found += spoofcheck.problems(owner, mac)\n", "        spoofcheck\n",
        "CHECK looks at the MAC check's rules", "tests/system/test_frames.py -k flushed",
    ),
    Mutant(
        "shared/pod/attachment.py", "            parts.append((lambda: failure(lambda: delegate.forward(self.call)), None))\n", "            delegate\n",
        "CHECK asks the IPAM plugin", "tests/faults/test_truth.py -k names_everything",
    ),
    Mutant(
        "shared/net/readiness.py", "room(host, bridge, 1 + len(joining) + needs_port)", "[]",
        "STATUS says that a bridge is full", "tests/system/test_many_links.py -k full",
    ),
    Mutant(
        "shared/pod/attachment.py", "        if self.ipam:\n            delegate.forward(self.call)\n", "",
        "STATUS asks the IPAM plugin", "tests/system/test_bridge.py -k test_status",
    ),
    Mutant(
        "plugins/bandwidth.py", "return is_left_behind(link, call.network)", "return True",
        "GC leaves another network's ifb whose name has the same digits", "tests/system/test_bandwidth.py -k gc",
    ),
    Mutant(
        "plugins/bandwidth.py", " or name in valid:", ":", "GC leaves the ifbs of valid attachments", "tests/system/test_bandwidth.py -k gc",
    ),
    Mutant(
        "plugins/bandwidth.py", "    if ifb is None or pod_netns is None or pod_netns.is_own:\n        return None\n", "    if pod_netns and pod_netns.is_own:\n        return links.get(host, owner.ifname)\n    if ifb is None or pod_netns is None:\n        return None\n",
        "DEL in the host's own namespace releases no link by its name alone", "tests/system/test_bandwidth.py -k strangers_limits",
    ),
    Mutant(
        "plugins/bandwidth.py", ' and links.kind(link) == "veth" and not peers.', " and not peers.",
        "a stranger's link with the host link's name is not limited", "tests/system/test_bandwidth.py -k strangers",
    ),
    Mutant(
        "plugins/bandwidth.py", 'return link if link is not None and links.kind(link) == "ifb" else None', "return link",
        "DEL leaves a stranger's link that is called like an ifb and is none", "tests/system/test_bandwidth.py -k strangers",
    ),
    Mutant(
        "plugins/bandwidth.py", 'ifb and link and ifb["index"] not in shaping.redirections(TrafficControl(), link["index"]).values()', "ifb and link",
        "a second ADD leaves the first one's ifb", "tests/system/test_bandwidth.py -k add_twice",
    ),
    Mutant(
        "plugins/bandwidth.py", '        if not ifb["flags"] & IFF_UP:\n            problems', "        if False:\n            problems",
        "CHECK names an ifb that is down", "tests/system/test_bandwidth.py -k check_names",
    ),
    Mutant(
        "plugins/firewall.py", "    with rules_lock.hold(claims.RECORDS):\n        has_lost", "    if True:\n        has_lost",
        "firewall's ADD waits for its turn", "tests/faults/test_turns.py -k ADD",
    ),
    Mutant(
        "plugins/firewall.py", "        with rules_lock.hold(claims.RECORDS):\n            restoration", "        if True:\n            restoration",
        "firewall's GC waits for its turn", "tests/faults/test_turns.py -k GC",
    ),
    Mutant(
        "plugins/firewall.py", "        _evict(claim)\n", "", "what others had under an address goes when it is admitted for a new pod",
        "tests/system/test_dead_holders.py -k firewall_behind",
    ),
    Mutant(
        "plugins/firewall.py", "before.write if before else lambda: end_admission(attachment.owner)", "lambda: end_admission(attachment.owner)",
        "a second ADD that fails leaves the first one's admission", "tests/system/test_firewall_restored.py -k add_twice",
    ),
    Mutant(
        "plugins/firewall.py", "            restoration.restore(attachment.owner, place)\n    return", "            pass\n    return",
        "the next ADD admits all pods of the network again", "tests/system/test_firewall_restored.py -k loads_anew",
    ),
    Mutant(
        "shared/admission/restoration.py", 'old.text(claims.ZONE) not in ("", new.text(claims.ZONE))', "False",
        "a pod that is admitted elsewhere leaves firewalld's zone", "tests/system/test_firewalld.py -k zone_is_another",
    ),
    Mutant(
        "plugins/firewall.py", "return problems + drops.find(", "return problems and drops.find(",
        "CHECK says that another packet filter drops the pod's packets", "tests/system/test_firewall_restored.py -k rules_that_let",
    ),
    Mutant(
        "plugins/firewall.py", 'keys.firewalldZone if keys.backend in ("", FIREWALLD) else ""', "keys.firewalldZone",
        "DEL takes nothing out of firewalld's zone if the configuration has another backend", "tests/system/test_firewalld.py -k sources_of_the_admin",
    ),
    Mutant(
        "plugins/firewall.py", "        lambda: _restore_valid(call, valid),\n", "", "GC admits the valid pods again",
        "tests/system/test_firewall_restored.py -k other_networks",
    ),
    Mutant(
        "shared/hostports/mappings.py", "        return VERSIONS if self.hostIP is None else (self.hostIP.version,)", "        return VERSIONS",
        "a host port of an IPv4 address is no IPv6 one", "tests/system/test_portmap.py -k forms_of_an_address",
    ),
    Mutant(
        "shared/hostports/mappings.py", "if not routes.is_local(host, one):", "if False:",
        "a host port of an address that is not the host's is refused", "tests/system/test_portmap.py -k refused_before",
    ),
    Mutant(
        "plugins/portmap.py", "needs_localnet = self.keys.snat and 4 in pods", "needs_localnet = 4 in pods",
        "route_localnet goes on where localhost's packets find a pod, and nowhere else", "tests/system/test_portmap.py -k let_through",
    ),
    Mutant(
        "plugins/portmap.py", "        require_free()\n        try:\n            make(undo", "        try:\n            make(undo",
        "a port that another backend has is refused", "tests/system/test_portmap_iptables.py -k port_that_the_other",
    ),
    Mutant(
        "plugins/portmap.py", '            raise error.naming("runtimeConfig.portMappings", len(self.ports)) from None\n        require_free()\n',
        '            raise error.naming("runtimeConfig.portMappings", len(self.ports)) from None\n',
        "of two that want a port by different backends at once not both get it", "tests/system/test_portmap_iptables.py -k not_both",
    ),
    Mutant(
        "plugins/portmap.py", '        undo.push(f"remove host ports of {owner.container_id}", lambda: hostports.remove(kernel, owner, delete_flows))\n', "",
        "a failing ADD removes its host ports", "tests/faults/test_hostports.py -k sysctl",
    ),
    Mutant(
        "plugins/portmap.py", "        if flows:\n            delete_flows(flows)\n", "", "UDP that goes on follows a new host port",
        "tests/system/test_portmap.py -k udp_that_goes_on",
    ),
    Mutant(
        "shared/net/localnet.py", "    if is_on(name):\n        return []", "    if name:\n        return []",
        "CHECK says that route_localnet is off", "tests/system/test_portmap.py -k check_names",
    ),
    Mutant(
        "shared/hostports/backends.py", "        hostports.remove_references(kernel, owner.container_id)\n", "",
        "DEL removes the reference's host ports", "tests/system/test_portmap.py -k reference",
    ),
    Mutant(
        "plugins/tuning.py", 'if attachment_records.namespace(recorded) not in ("", namespace):', "if False:",
        "a record of a namespace that is lost is not set back in the next one", "tests/system/test_tuning.py -k lost_namespace",
    ),
    Mutant(
        "plugins/tuning.py", "if not is_recorded and (attachment.attributes or attachment.sysctls):", "if attachment.attributes or attachment.sysctls:",
        "a second ADD keeps what was before the first", "tests/system/test_tuning.py -k second_add",
    ),
    Mutant(
        "plugins/tuning.py", "        attributes = {name: value for name, value in now.items() if name in attachment.attributes}",
        "        attributes = now",
        "DEL sets back what ADD changed, and nothing else", "tests/system/test_tuning.py -k only_what_is_asked",
    ),
    Mutant(
        "plugins/tuning.py", '        undo.push(f"set {call.ifname} back", lambda: _restore(pod_netns, call.ifname, before))\n', "",
        "a failing ADD sets back what it changed", "tests/system/test_tuning.py -k fails_late",
    ),
    Mutant(
        "plugins/loopback.py", '            undo.push("set lo back", lambda: _change(pod, index, is_up=was_up, alias=former))\n', "",
        "a failing ADD takes lo down again", "tests/system/test_loopback.py -k strange",
    ),
    Mutant(
        "plugins/firewall.py", "        claim.write()\n        _admit(claim, place, renew=before is not None and before.is_past)\n",
        "        _admit(claim, place, renew=before is not None and before.is_past)\n        claim.write()\n",
        "a note is there before its rules", "tests/system/test_firewall.py -k without_its_note",
    ),
    Mutant(
        "plugins/portmap.py", "            destination.map(undo)\n            if link:  #", "            if link:\n                localnet.turn_on(link)\n            destination.map(undo)\n            if link:  #",
        "route_localnet goes on when the rules are there that make it safe, and not before", "tests/system/test_portmap.py -k localhost_stays_shut",
    ),
    Mutant(
        "shared/net/gateways.py", "    missing = [one for one in wanted if one not in have]\n",
        '    missing = [one for one in wanted if one not in have]\n    sysctl.ensure("ipv4/ip_forward", "1")\n',
        "an ADD that cannot have its gateway address does not make the host forward", "tests/system/test_bridge.py -k another_address",
    ),
    Mutant(
        "plugins/loopback.py", "if prefix.address not in LOOPBACK_NETWORKS[prefix.version]:", "if False:", "an address on lo that is no loopback address is an error",
        "tests/system/test_loopback.py -k strange",
    ),
    Mutant(
        "plugins/loopback.py", '        if not links.require(Netlink(), NAME)["flags"] & IFF_UP:\n', "        if False:\n", "CHECK says that lo is down", "tests/faults/test_truth.py -k loopback",
    ),
    Mutant(
        "plugins/tuning.py", "    if _set_back(pod_netns, ifname, before):\n", "    if True:\n",
        "what the kernel refused once is set back in a second round", "tests/faults/test_strikes.py -k refused_in_del",
    ),
    Mutant(
        "plugins/tuning.py", "except (CniError, OSError, ValueError) as error:", "except (OSError, ValueError) as error:",
        "all else is set back if one sysctl cannot be", "tests/system/test_clean_up.py -k cannot_be_set_back",
    ),
    Mutant(
        "plugins/tuning.py", "except (CniError, ValueError) as error:  #", "except ValueError as error:  #",
        "all else is set back of an interface without a MAC", "tests/system/test_clean_up.py -k without_a_mac",
    ),
    Mutant(
        "plugins/tuning.py", "return namespace == pod_netns.identity()", "return True",
        "tuning sets back in the namespace that it tuned alone", "tests/system/test_paths.py -k another_pod",
    ),
    Mutant(
        "plugins/tuning.py", "end is not None and (peers.is_own(", "end is not None or (peers.is_own(",
        "a record without a namespace is for the attachment's pod alone", "tests/system/test_paths.py -k record",
    ),
    Mutant(
        "plugins/loopback.py", 'loopback and loopback.get("IFLA_IFALIAS") == _alias(call)', "loopback",
        "loopback takes down what it has brought up alone", "tests/system/test_paths.py -k another_pod",
    ),
    Mutant(
        "plugins/loopback.py", "links.by_index(pod, INDEX)", "links.require(pod, NAME)",
        "a lo of another name is taken down", "tests/system/test_clean_up.py -k another_name",
    ),
    Mutant(
        "plugins/bandwidth.py",
        'return end if end and ifb["index"] in shaping.redirections(TrafficControl(), end["index"]).values() else None',
        "return end",
        "a limit that does not lead to the own ifb is another pod's", "tests/system/test_paths.py -k limit_of_the_references",
    ),
    Mutant(
        "plugins/bridge.py", "    _require_free_mac(host, pod)\n    undo", "    undo",
        "a MAC that another has is refused before anything is touched", "tests/system/test_macs.py -k another_has",
    ),
    Mutant(
        "plugins/bridge.py", "    _require_free_mac(host, pod)  # again", "    # again",
        "of several that ask for one MAC at once, one at most gets it", "tests/system/test_macs.py -k several",
    ),
    Mutant(
        "plugins/tuning.py", 'if host and link.get("IFLA_ADDRESS") != attachment.mac:', "if False:",
        "tuning sets no MAC that another link on the bridge has", "tests/system/test_macs.py -k tuning",
    ),
    Mutant(
        "plugins/tuning.py", "if lost and 0 < mtu < LEAST_IPV6_MTU:", "if False:",
        "tuning refuses an MTU that takes IPv6 addresses away", "tests/system/test_small_mtu.py -k tuning",
    ),
    Mutant(
        "plugins/ptp.py", "    _require_gateways(pod, result.ips)\n", "", "an IPAM answer without a gateway is refused by name",
        "tests/system/test_ptp.py -k does_not_do",
    ),
    Mutant(
        "shared/pod/gateway.py", "request.flags |= NLM_F_REPLACE  #", "pass  #",
        "packets go to the new pod of an address, not to one that nobody deleted", "tests/system/test_ptp.py -k stale_route",
    ),
    Mutant(
        "plugins/ptp.py", '        sysctl.ensure(f"ipv6/conf/{name}/disable_ipv6", "0")\n', "",
        "the host's end has IPv6 even if new links have none", "tests/system/test_ptp.py -k new_links_do_not_have",
    ),
    Mutant(
        "shared/pod/gateway.py", "lost = _to_pod(ips) - routes.found(host, index, _to_pod(ips))", "lost: set[tuple[Prefix, None]] = set()",
        "CHECK names a lost route to the pod", "tests/system/test_ptp.py -k names_each_loss",
    ),
    Mutant(
        "shared/pod/gateway.py", "requests.append(Request(RTM_DELROUTE, body, tolerate=(errno.ESRCH,)))", "pass",
        "the pod has no route to neighbours in its network", "tests/system/test_ptp.py -k both_ends",
    ),
    Mutant(
        "shared/pod/gateway.py", "            if ip.address.length < ip.address.address.bits:\n", "            if True:\n",
        "an address without a network gets no route to itself", "tests/system/test_ptp.py -k without_a_network",
    ),
    Mutant(
        "plugins/macvlan.py", 'choice(*MODES), "bridge",', 'choice(*MODES), "vepa",',
        "pods on one master reach each other by default", "tests/system/test_macvlan.py -k packets_pass",
    ),
    Mutant(
        "shared/net/sublinks.py", "        host_access.remove(Netlink(), owner)\n", "        pass\n",
        "DEL removes the host's access", "tests/system/test_macvlan.py -k host_reaches",
    ),
    Mutant(
        "shared/net/sublinks.py", '    noted = note.get("kind", kind)\n', "    noted = kind\n",
        "DEL finds the link of a network's former type", "tests/system/test_macvlan.py -k type_has_changed",
    ),
    Mutant(
        "shared/net/host_access.py", "        if _has_routes(host, index):\n", "        if False:\n",
        "the host's link stays for the other pods", "tests/system/test_macvlan.py -k host_reaches",
    ),
    Mutant(
        "shared/net/host_access.py", "_remove_request(index, route.dst, _metric(owner))", "_remove_request(index, route.dst)",
        "a late DEL leaves the route of the address's next pod", "tests/system/test_macvlan.py -k dead_pod",
    ),
    Mutant(
        "shared/net/host_access.py", "list(globals_) if _has_ipv6(own) else []", "[]",
        "pods reach the host's IPv6 addresses", "tests/system/test_macvlan.py -k host_reaches",
    ),
    Mutant(
        "shared/net/host_access.py", '        sysctl.ensure(f"ipv4/conf/{name}/arp_filter", "1")\n', "",
        "the LAN gets one answer for the host's address", "tests/system/test_macvlan.py -k lan_knows",
    ),
    Mutant(
        "shared/net/host_access.py", '        Neighbours().write(link["index"], pod[1]["IFLA_ADDRESS"], own)\n', "",
        "the host asks the LAN for no pod", "tests/system/test_macvlan.py -k lan_knows",
    ),
    Mutant(
        "shared/net/neighbours.py", "for one in of if one in has]", "for one in of]",
        "a late DEL leaves the neighbour of the address's next pod", "tests/system/test_macvlan.py -k dead_pod",
    ),
    Mutant(
        "shared/net/sublinks.py", "    if links.get(inside, owner.ifname) is not None:\n", "    if False:\n",
        "a second ADD leaves the first one's note", "tests/system/test_macvlan.py -k adding_twice",
    ),
    Mutant(
        "shared/net/placements.py", "    noted = open_noted(note)\n", "    noted = None\n",
        "DEL finds the link without the namespace", "tests/system/test_macvlan.py -k empty",
    ),
    Mutant(
        "shared/net/placements.py", "        yield from _of_processes(note)\n", "        pass\n",
        "DEL finds the link in a namespace without a path", "tests/system/test_macvlan.py -k only_processes",
    ),
    Mutant(
        "shared/net/netns.py", "    except Unopened:\n        raise\n", "",
        "a namespace that cannot be opened may be there", "tests/unit/test_netns.py",
    ),
    Mutant(
        "shared/net/sublinks.py", '    marks = (link["IFLA_IFNAME"] == owner.host_link, ', "    marks = (False, ",
        "DEL deletes the labelled tap of a killed ADD", "tests/system/test_tap.py -k labelled_tap_of_a_killed",
    ),
    Mutant(
        "shared/net/sublinks.py", ' or mac not in ("", link["IFLA_ADDRESS"])', "",
        "DEL leaves another suite's tap with another MAC than the result's", "tests/system/test_tap.py -k another_suite",
    ),
    Mutant(
        "shared/net/sublinks.py", "    return links.kind(link) == kind and any(marks)", "    return links.kind(link) == kind",
        "DEL leaves another attachment's link", "tests/system/test_macvlan.py -k others_alone",
    ),
    Mutant(
        "shared/net/masters.py", "    return min(bests, key=lambda one: one[0])[1]", "    return bests[0][1] or bests[1][1]",
        "the default route with the lowest metric names the master", "tests/system/test_macvlan.py -k default_route",
    ),
    Mutant(
        "shared/net/masters.py", '    return links.by_index(netlink, master.get("IFLA_LINK", 0)) or master', "    return master",
        "a macvlan on a macvlan is on the link below", "tests/system/test_macvlan.py -k macvlan_itself",
    ),
    Mutant(
        "shared/pod/attachment.py", "        return result.after(before) if before else result", "        return result",
        "the result before is carried on", "tests/system/test_result_before.py -k macvlan",
    ),
    Mutant(
        "plugins/dummy.py", "    if not pod.ipam:\n", "    if False:\n",
        "ipam is required", "tests/system/test_dummy.py -k without_ipam",
    ),
    Mutant(
        "shared/net/taps.py", "if number is not None:", "if number:", "owner and group 0 are root's, not everybody's",
        "tests/system/test_tap.py -k rights",
    ),
    Mutant(
        "shared/net/taps.py", " | (IFF_MULTI_QUEUE if multi_queue else 0)", "", "several programs may open a tap of several queues",
        "tests/system/test_tap.py -k queues",
    ),
    Mutant(
        "shared/net/taps.py", "        before_persistent()\n", "", "a tap has its MAC, MTU and alias",
        "tests/system/test_tap.py -k lose_no_other_key",
    ),
    Mutant(
        "shared/net/taps.py", '        undo.push(f"remove tap {name}"', '        (f"remove tap {name}"',
        "a process that hangs leaves no tap with an SELinux context", "tests/system/test_tap.py -k failing_process",
    ),
    Mutant(
        "shared/net/taps.py", "    links.delete(pod, name)\n", "", "the labelled tap of a killed ADD is replaced",
        "tests/system/test_tap.py -k labelled_tap_of_a_killed",
    ),
    Mutant(
        "shared/net/taps.py", "before_persistent=require_caller", "before_persistent=lambda: None",
        "a killed call gets no labelled tap", "tests/system/test_tap.py -k no_labelled_tap",
    ),
    Mutant(
        "plugins/tap.py", "    sublinks.note_coming(inside_pod, undo, pod.owner, pod_netns, taps.KIND)\n", "",
        "DEL finds the tap without CNI_NETNS", "tests/system/test_tap.py -k test_delete",
    ),
    Mutant(
        "shared/net/taps.py", " and liveness.is_link(name)", "", "a refusal of the kernel is not told as a name that is taken",
        "tests/unit/test_taps.py",
    ),
    Mutant(
        "plugins/tap.py", 'attributes["IFLA_MASTER"] =', 'attributes["IFLA_MTU"] =', "the tap is a port of the pod's bridge",
        "tests/system/test_tap.py -k bridge_in_the_pod",
    ),
    Mutant(
        "shared/net/taps.py", "wrong = [key for key, value in wanted.items() if have[key] != value]", "wrong: list[str] = []",
        "CHECK names other rights", "tests/system/test_tap.py -k rights",
    ),
    Mutant(
        "shared/net/tap_redirection.py", "    shaping.redirect(tc, undo, tap, link)\n", "",
        "frames of the virtual machine leave", "tests/system/test_tap.py -k machine_beside",
    ),
    Mutant(
        "shared/net/tap_redirection.py", "            shaping.remove_stale_redirections(tc, link", "            (link",
        "the pod receives frames again after DEL", "tests/system/test_tap.py -k machine_beside",
    ),
    Mutant(
        "shared/net/tap_redirection.py", "placements.namespaces(placements.read(owner), pod_netns)", "filter(None, [pod_netns])",
        "DEL finds a tap beside without CNI_NETNS", "tests/system/test_tap.py -k found_by_its_alias",
    ),
    Mutant(
        "shared/net/tap_redirection.py", '        sysctl.prefer(f"ipv6/conf/{name}/disable_ipv6", "1")', "        pass",
        "the tap has no address of its own", "tests/system/test_tap.py -k machine_beside",
    ),
    Mutant(
        "shared/pod/attachment.py", '        "mac": getattr(keys, "mac", ""),\n', "", "the key `mac` counts",
        "tests/system/test_tap.py -k macs",
    ),
    Mutant(
        "shared/pod/inside.py", "    if has_carrier:\n", "    if True:\n", "a tap that nobody has opened is no error",
        "tests/system/test_tap.py -k without_ipam",
    ),
    Mutant(
        "shared/net/moved.py", "        _settle(host, lent.read_all())\n        link = wanted", "        link = wanted",
        "an ADD restores a device that came home without DEL", "tests/system/test_host_device.py -k nobody_gave_back",
    ),
    Mutant(
        "shared/net/moved.py", "link = kept.find(host) or _fetch(host, kept, pod_netns)", "link = kept.find(host)",
        "DEL fetches the device from its pod", "tests/system/test_host_device.py -k test_device_in_the_pod",
    ),
    Mutant(
        "shared/net/moved.py", "            coming.append(kept)\n", "            _await_all(host, [kept])\n",
        "GC waits once for all devices", "tests/system/test_host_device.py -k waits_once",
    ),
    Mutant(
        "shared/net/moved.py", 'for path in (kept.netns, *netns.of_processes(kept.namespace.split(":")[1])):', "for path in (kept.netns,):",
        "DEL reaches a namespace that only a process has", "tests/system/test_host_device.py -k unmounted",
    ),
    Mutant(
        "shared/net/moved.py", "found is not None and found.identity() == kept.namespace", "found is not None and ()",
        "DEL without CNI_NETNS uses the recorded path", "tests/system/test_host_device.py -k unnamed",
    ),
    Mutant(
        "shared/net/moved.py", "if holder is None or holder[", 'if not holder or holder["index"] or holder[',
        "a name that is taken on the host is left alone", "tests/system/test_host_device.py -k without_its_name",
    ),
    Mutant(
        "shared/net/moved.py", ' elif master := link.get("IFLA_MASTER"):'.lstrip(), "elif master := 0:",
        "a port of a bridge stays", "tests/system/test_host_device.py -k device_in_use",
    ),
    Mutant(
        "shared/net/moved.py", " or any(kept.name == name for kept in lent.read_all())", "",
        "DEL leaves another attachment's device", "tests/system/test_host_device.py -k another_attachments",
    ),
    Mutant(
        "shared/net/moved.py", "    if kept.up:\n", "    if True:\n", "a device that was down is down again",
        "tests/system/test_host_device.py -k was_down",
    ),
    Mutant(
        "shared/net/moved.py", "                link_attributes.write(host, link, {name: value})", "                pass",
        "the device gets its MAC and MTU again", "tests/system/test_host_device.py -k test_return",
    ),
    Mutant(
        "shared/net/moved.py", ", **message})", "})", "the device's alias in the pod is its name on the host",
        "tests/system/test_host_device.py -k test_device_in_the_pod",
    ),
    Mutant(
        "shared/net/lent.py", "LEAST_MARKS = 2", "LEAST_MARKS = 3", "a device that came home is known by two of its marks",
        "tests/system/test_host_device.py -k nobody_gave_back",
    ),
    Mutant(
        "shared/net/moved.py", "if not kept.leads_there(link) and not _is_hosts(link, there):", "if ():",
        "DEL leaves a link that the pod made in the place of the device", "tests/system/test_host_device.py -k its_own_link",
    ),
    Mutant(
        "shared/net/moved.py", "    if not _is_hosts(link, pod_netns):\n", "    if ():\n",
        "DEL without a record leaves a link that the pod made", "tests/system/test_host_device.py -k its_own_link",
    ),
    Mutant(
        "shared/net/moved.py", "kept.leads_there(link) and not _is_hosts(link, there)", "kept.leads_there(link)",
        "a device comes home whose other end has moved", "tests/system/test_host_device.py -k both_ends",
    ),
    Mutant(
        "shared/net/moved.py", "if not kept.is_identity_unique and liveness", "if () and liveness",
        "DEL leaves the pod that has the number of the old namespace", "tests/system/test_host_device.py -k number_of_the_old",
    ),
    Mutant(
        "shared/net/lent.py", "self.is_identity_unique or any(marks)", "True", "a link has the number of the old one, and no more",
        "tests/system/test_host_device.py -k number_of_the_old",
    ),
    Mutant(
        "shared/net/lent.py", "        if not is_home and not liveness.is_link(name):\n", "        if ():\n",
        "DEL names a garbled record of a device that it cannot find", "tests/system/test_host_device.py -k garbled_record_of",
    ),
    Mutant(
        "shared/net/lent.py", '        and isinstance(content.get("up"), bool)\n', "",
        "a record without the state is garbled", "tests/system/test_host_device.py -k garbled_record_of",
    ),
    Mutant(
        "shared/net/moved.py", "        lent.collect_garbled(network, valid)\n", "", "GC removes garbled records",
        "tests/system/test_host_device.py -k removes_garbled",
    ),
    Mutant(
        "shared/net/lent.py", " and port(link) == self.port", "", "another port of a lent card stays as it is",
        "tests/unit/test_lent.py -k another_port",
    ),
    Mutant(
        "shared/net/lent.py", " and (self.ownMac or self.port)", "", "a port that nothing tells from others stays as it is",
        "tests/unit/test_lent.py -k another_port",
    ),
    Mutant(
        "shared/net/lent.py", "            record.remove_unfinished(DIRECTORY)\n", "",
        "DEL removes an unfinished record", "tests/system/test_host_device.py -k unfinished",
    ),
    Mutant(
        "shared/net/devices.py", 'if name.startswith("virtio")', "if ()", "the link of a virtio device is found",
        "tests/system/test_host_device.py -k ways_to_name_it",
    ),
    Mutant(
        "plugins/host_device.py", "address=chosen or keys.pciBusID", "address=keys.pciBusID or chosen",
        "deviceID replaces pciBusID", "tests/system/test_host_device.py -k ways_to_name_it",
    ),
    Mutant(
        "plugins/host_device.py", "    announce_pod()\n", "", "neighbours learn the device's MAC",
        "tests/system/test_host_device.py -k new_place",
    ),
    Mutant(
        "plugins/host_device.py", "    if wanted.is_passed_through():\n        result", "    if ():\n        result",
        "a device of DPDK has no link to move", "tests/system/test_host_device.py -k dpdk",
    ),
)  # fmt: skip
