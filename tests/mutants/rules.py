"""Mistakes in the packet filters: shared/nft, iptables, dbus, masquerade, hostports, admission, frames and pod."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "shared/iptables/programs.py", 'self._restore, "--noflush", "-w", str(SECONDS)', 'self._restore, "--noflush"',
        "iptables-restore waits for its lock", "tests/system/test_iptables_programs.py",
    ),
    Mutant(
        "shared/iptables/programs.py", "TRIES = 5", "TRIES = 1", "a change in between is read and tried again",
        "tests/system/test_iptables_programs.py",
    ),
    Mutant(
        "shared/nft/conntrack.py", "if len(self.waiting) == AT_ONCE:", "if len(self.waiting) == -1:",
        "connections are removed while they are read", "tests/system/test_large_namespaces.py -k flows",
    ),
    Mutant(
        "shared/hostports/nftables_rules.py", 'address("saddr", LOCALHOST), drop()', 'address("saddr", Prefix(Address(4, 127 << 24 | 1), 32)), drop()',
        "packets from all of 127.0.0.0/8 are dropped", "tests/system/test_route_localnet.py -k let_in",
    ),
    Mutant(
        "shared/hostports/nftables_rules.py", 'address("daddr", LOCALHOST), drop()', 'address("daddr", Prefix(Address(4, 127 << 24 | 1), 32)), drop()',
        "packets to all of 127.0.0.0/8 are dropped", "tests/system/test_route_localnet.py -k let_in",
    ),
    Mutant(
        "shared/hostports/iptables_rules.py", 'for option in ("-d", "-s")', 'for option in ("-d",)',
        "packets from 127.0.0.0/8 are dropped by iptables, too", "tests/system/test_route_localnet.py -k let_in",
    ),
    Mutant(
        "shared/iptables/programs.py", "            known = None\n", "", "a table is read anew after a refusal", "tests/unit/test_iptables_lines.py -k read_anew",
    ),
    Mutant(
        "shared/hostports/mappings.py", "LOCALHOST = Prefix(Address(4, 127 << 24), 8)", "LOCALHOST = Prefix(Address(4, (127 << 24) + 1), 32)",
        "all of 127.0.0.0/8 is dropped from outside", "tests/system/test_portmap.py -k localhost_cannot",
    ),
    Mutant(
        "shared/hostports/nftables_rules.py", 'Rule("hairpin4", ct_label(ASKED), ct_status("dnat"), ', 'Rule("hairpin4", ',
        "IPv4 connections that no host port led to the pod are not masqueraded", "tests/system/test_portmap.py -k keeps_theirs",
    ),
    Mutant(
        "shared/hostports/nftables_rules.py", 'Rule("hairpin6", ct_label(ASKED), ct_status("dnat"), ', 'Rule("hairpin6", ',
        "IPv6 connections that no host port led to the pod are not masqueraded", "tests/system/test_portmap.py -k keeps_theirs",
    ),
    Mutant(
        "shared/hostports/nftables_rules.py", 'Rule("to this host", is_local(), ct_label_set', 'Rule("to this host", ct_label_set',
        "packets to others are not redirected", "tests/system/test_portmap.py -k only_what_is_sent",
    ),
    Mutant(
        "shared/hostports/nftables.py", "        registry.withdraw(kernel, ruleset(), name)\n",
        "        registry.remove_label(kernel, ruleset(), name)\n",
        "a DEL that is killed before it forgets UDP is found by the next one", "tests/faults/test_hostports.py -k killed_at_every_message",
    ),
    Mutant(
        "shared/hostports/nftables.py", "        elif not labels.is_same_container(holder, owner):\n            raise Taken", "        elif False:\n            raise Taken",
        "a host port that another pod has is refused across backends", "tests/system/test_portmap_iptables.py -k port_that_the_other",
    ),
    Mutant(
        "shared/hostports/nftables.py", "if not former.is_dead(kernel, ruleset(), name, patient=True):", "if False:", "a living pod keeps its host port",
        "tests/system/test_portmap.py -k port_that_is_taken",
    ),
    Mutant(
        "shared/hostports/nftables.py", 'rule["NFTA_RULE_CHAIN"] in REFERENCE_CHAINS\n            if comment_of(rule.get("NFTA_RULE_USERDATA", b"")) == text', 'rule["NFTA_RULE_CHAIN"] in REFERENCE_CHAINS',
        "DEL leaves the host ports that the reference made for other pods", "tests/system/test_portmap.py -k reference",
    ),
    Mutant(
        "shared/nft/conntrack.py", "return port in anywhere and local[address]", "return port in anywhere", "UDP to other hosts is not forgotten",
        "tests/system/test_portmap.py -k udp_that_goes_on",
    ),
    Mutant(
        "shared/nft/conntrack.py", '"CTA_TUPLE_ORIG", "CTA_ID", "CTA_ZONE")', '"CTA_TUPLE_ORIG", "CTA_ID")', "a connection in another zone is not forgotten",
        "tests/unit/test_conntrack.py",
    ),
    Mutant(
        "shared/admission/isolation.py", 'link("iifkind", "veth"), meta("oifname")', 'meta("oifname")',
        "isolated pods hear what comes from an uplink", "tests/system/test_firewall.py -k reached_by_an_uplink",
    ),
    Mutant(
        "shared/admission/isolation.py", 'Rule("others that are kept apart", meta("iifname"), lookup(BRIDGES), drop())', 'Rule("others that are kept apart", drop())',
        "pods that are kept apart are reached from outside", "tests/system/test_firewall.py -k ingress_policy",
    ),
    Mutant(
        "shared/admission/isolation.py", "Rule(\"the pod's own bridge\", own, return_()), ", "",
        "same-bridge lets pods of the bridge through where IP's hooks see them", "tests/system/test_firewall.py -k ingress_policy",
    ),
    Mutant(
        "shared/admission/nftables.py", "kernel.commit([BRIDGES.element(name).remove_request(), *doomed])", "kernel.commit([BRIDGES.element(name).remove_request()])",
        "a bridge is kept apart as long as one of its pods has the policy", "tests/system/test_firewall.py -k ingress_policy",
    ),
    Mutant(
        "shared/admission/nftables.py", "names[0] != network or ", "", "pods of another network are not admitted by this one's GC", "tests/system/test_firewall_restored.py -k older_release",
    ),
    Mutant(
        "shared/masquerade/nftables.py", '[Rule("multicast", address("daddr", groups), return_()), Rule', "[Rule", "multicast is not masqueraded",
        "tests/system/test_masquerade.py -k multicast",
    ),
    Mutant(
        "shared/masquerade/nftables.py", '        Rule("the pod\'s network", address("daddr", own), return_()),\n', "", "the pod's own network sees the pod",
        "tests/system/test_masquerade.py -k within",
    ),
    Mutant(
        "shared/frames/spoofcheck.py", 'meta("iifname"), lookup(GUARDED), payload("ether saddr", 4)', 'meta("iifname"), payload("ether saddr", 4)',
        "frames of ports that are not checked pass", "tests/system/test_frames.py -k not_checked",
    ),
    Mutant(
        "shared/frames/spoofcheck.py", 'f"macspoofchk-{owner.container_id}-{owner.ifname}")', '"")',
        "DEL removes the reference's rule of this pod", "tests/system/test_frames.py -k reference_has_made",
    ),
    Mutant(
        "shared/frames/dedup.py", 'meta("iifname"), payload("ether daddr", 4), lookup(SELVES, negate=True), drop(),', "drop(),",
        "what a promiscuous pod sends to itself by the host arrives", "tests/system/test_frames.py -k frame_to_itself",
    ),
    Mutant(
        "shared/nft/registry.py", "if now and _owner_of(now) == name]", "if now]", "DEL leaves what has become another's", "tests/system/test_nft.py -k conflict",
    ),
    Mutant(
        "shared/nft/registry.py", "if holder != name and element.of not in replace_in:", "if False:", "an element of another's is not taken over unasked",
        "tests/system/test_nft.py -k conflict",
    ),
    Mutant(
        "shared/nft/registry.py", "ours = labels.prefix_of(network)", "ours = labels.prefix_of(network)[:-1]",
        "GC leaves a network whose name only begins like this one's", "tests/system/test_nft.py -k collect",
    ),
    Mutant(
        "shared/nft/registry.py", "(is_stale(name) or (is_dead and is_dead(name)))", "is_stale(name)", "GC removes what the dead of a renamed network have",
        "tests/system/test_former_keys.py -k collection_under",
    ),
    Mutant(
        "shared/nft/registry.py", "            if is_stale(_owner_of(message))\n", "            if False\n", "GC removes elements whose owner is registered nowhere",
        "tests/system/test_nft.py -k collect",
    ),
    Mutant(
        "shared/nft/registry.py", "        elif not is_whole(kernel, chain):\n            requests += chain.refill_requests()\n", "",
        "a chain that has lost rules is refilled", "tests/system/test_nft.py -k damaged",
    ),
    Mutant(
        "shared/nft/registry.py", 'if chain.rpartition("-")[0] in ruleset.prefixes:', "if True:", "GC leaves the chains of other mechanisms", "tests/system/test_nft.py -k collect",
    ),
    Mutant(
        "shared/nft/registry.py", '        elif element.data is not None and now.get("NFTA_SET_ELEM_DATA") != element.data:\n', "        elif False:\n",
        "CHECK names an element that leads elsewhere", "tests/system/test_nft.py -k elsewhere",
    ),
    Mutant(
        "shared/nft/labels.py", 'label.split("/")[1:2] == of(owner).split("/")[1:2]', "True", "a port of another container's is taken",
        "tests/system/test_portmap.py -k port_that_is_taken",
    ),
    Mutant(
        "shared/nft/transaction.py", "            if error.errno in ABSENT:\n                return []\n            raise\n", "            return []\n", "an error while looking is not taken for nothing there",
        "tests/unit/test_nft.py -k cannot_be_read",
    ),
    Mutant(
        "shared/nft/former.py", 'if holder not in ("", labels.of(owner))]', "if holder]", "an attachment's own elements are not evicted", "tests/unit/test_former.py",
    ),
    Mutant(
        "shared/nft/former.py", '"~" not in name and ', "", "a label that was cut names nobody who is dead", "tests/unit/test_former.py",
    ),
    Mutant(
        "shared/nft/former.py", "if same == rest and other != network:", 'if same.split("/")[0] == rest.split("/")[0] and other != network:',
        "a container's other interface is not its namesake", "tests/unit/test_former.py -k namesakes",
    ),
    Mutant(
        "shared/pod/filters.py", " for name in names if former.has_lost_link(name)]", " for name in names]", "DEL leaves the living attachment of another network",
        "tests/system/test_former_keys.py -k another_network",
    ),
    Mutant(
        "shared/pod/filters.py", "    if MASQUERADE_BY_IPTABLES not in keep:\n", "    if False:\n", "a new pod is not masqueraded because of iptables' rules for the last one",
        "tests/system/test_former_keys.py -k next_pod_is_not_masqueraded",
    ),
    Mutant(
        "shared/pod/filters.py", "        tasks.append(lambda: _end_admission(owner))\n", "        pass\n", "bridge's DEL ends firewall's admission", "tests/system/test_former_keys.py -k firewall-whole",
    ),
    Mutant(
        "shared/iptables/variants.py", ' == wire.NF_DROP or chain.get("NFTA_CHAIN_USE")', " == wire.NF_DROP",
        "firewall takes iptables where FORWARD has rules, too", "tests/system/test_firewall.py -k forward_has_rules",
    ),
    Mutant(
        "shared/hostports/iptables_rules.py", "{option} 127.0.0.0/8 ! -i lo", "{option} 127.0.0.1/32 ! -i lo",
        "all of 127.0.0.0/8 is dropped from outside by iptables, too", "tests/system/test_portmap.py -k localhost_cannot",
    ),
    Mutant(
        "shared/admission/iptables.py", 'if note and note.get("backend", claims.IPTABLES) == claims.IPTABLES and not note.get(claims.ZONE):\n', "if False:\n",
        "DEL fails if it cannot remove the rules that a note says are there", "tests/system/test_firewall.py -k cannot_be_removed",
    ),
    Mutant(
        "shared/admission/iptables.py", 'commands.append(f"-I {chain} 1 {rule}")', 'commands.append(f"-A {chain} {rule}")', "the jumps stand first in their chains",
        "tests/system/test_firewall.py -k administrator or same_rules",
    ),
    Mutant(
        "shared/admission/iptables.py", "for line in lines if line in ends],", 'for line in lines if line.startswith(f"-A {CHAIN} -") and "CNI-" not in line.partition(CHAIN)[2]],',
        "DEL leaves the rules of other pods", "tests/system/test_firewall.py -k hand_over",
    ),
    Mutant(
        "shared/hostports/iptables_records.py", "texts & {*others} and liveness.is_dead(owner, mark)]", "texts & {*others}]", "host ports of the living that lead to an address stay",
        "tests/system/test_portmap_iptables.py -k lead_to_the_same",
    ),
    Mutant(
        "shared/hostports/iptables_records.py", "interface) and liveness.is_dead(owner, mark, patient=True):", "interface):", "a living pod keeps its host port by iptables, too",
        "tests/system/test_portmap_iptables.py -k wants_a_port or want_a_port_at_once",
    ),
    Mutant(
        "shared/hostports/iptables_records.py", "            if _path(owner) == path:\n", "            if True:\n", "a record under another's name counts for nothing",
        "tests/system/test_dead_holders.py -k records",
    ),
    Mutant(
        "shared/hostports/iptables.py", "    with rules_lock.hold(hostport_records.DIRECTORY):\n", "    if True:\n", "portmap's ADD by iptables waits for its turn", "tests/faults/test_turns.py",
    ),
    Mutant(
        "shared/hostports/iptables_lines.py", 'and interface_of(line) in ("", interface_words(ifname))', "", "DEL of an interface leaves the host ports of the pod's other one",
        "tests/system/test_portmap.py -k two_interfaces",
    ),
    Mutant(
        "shared/hostports/iptables_lines.py", "if name != shortened(container_id):", "if False:", "a port of another container's is taken by iptables, too",
        "tests/system/test_portmap.py -k port_that_is_taken",
    ),
    Mutant(
        "shared/hostports/iptables.py", "        if (owner.container_id, owner.ifname) in valid and owner.network == network:\n            continue\n", "",
        "GC leaves the host ports of valid attachments", "tests/system/test_portmap_iptables.py -k garbage",
    ),
    Mutant(
        "shared/hostports/iptables.py", ' if line.startswith(f"-A {DNAT} ") and comment in line}', ' if line.startswith(f"-A {DNAT} ")}', "GC leaves the host ports of other networks",
        "tests/system/test_portmap_iptables.py -k garbage",
    ),
    Mutant(
        "shared/hostports/iptables_lines.py", 'return f"-I {chain} {place} {text}" if place else rule', "return rule", "host ports are masqueraded before a pod's own masquerading is asked",
        "tests/system/test_portmap_iptables.py -k with_masquerading",
    ),
    Mutant(
        "shared/hostports/iptables.py", "        hostport_records.write(owner, mark, {port.pod for port in forwarding.ports})\n", "", "iptables' host ports of the dead are known",
        "tests/system/test_dead_holders.py -k comes_back",
    ),
    Mutant(
        "shared/masquerade/iptables.py", "is_ours = chain == chain_of(network, container_id) or len(container_id) == LONGEST_NAME", "is_ours = True",
        "GC leaves a chain whose name is not this network's", "tests/system/test_masquerade.py -k only_name",
    ),
    Mutant(
        "shared/masquerade/iptables.py", "        return found - keep\n", "        return found\n", "GC leaves the masquerading of valid attachments",
        "tests/system/test_masquerade.py -k by_iptables",
    ),
    Mutant(
        "shared/masquerade/iptables.py", "doomed = {*gone.values()} - {chain for line, chain in leading.items() if line not in gone}", "doomed = {*gone.values()}",
        "a chain to which another address leads stays", "tests/unit/test_iptables_lines.py",
    ),
    Mutant(
        "shared/admission/forwarding.py", "    return walk(FORWARD, 0) or policy\n", "    return policy\n", "CHECK reads FORWARD's rules", "tests/system/test_firewall_restored.py -k rules_that_let",
    ),
    Mutant(
        "shared/dbus/bus.py", " and fields.get(REPLY_SERIAL) == self._serial", "", "an answer to another question is none", "tests/system/test_firewalld.py -k another_question",
    ),
    Mutant(
        "shared/dbus/bus.py", "METHOD_CALL, NO_AUTO_START, 1", "METHOD_CALL, 0, 1", "firewalld is never started", "tests/system/test_firewalld.py -k never_started",
    ),
    Mutant(
        "shared/admission/firewalld.py", 'NOT_THERE = ("UNKNOWN_SOURCE", "ZONE_CONFLICT", NO_SUCH_ZONE)', 'NOT_THERE = ("UNKNOWN_SOURCE", NO_SUCH_ZONE)',
        "DEL leaves a source that the administrator has moved to another zone", "tests/system/test_firewalld.py -k refuses",
    ),
    Mutant(
        "shared/admission/backends.py", "used = note.get(claims.ZONE) if note else zone", "used = note.get(claims.ZONE) or zone",
        "DEL asks firewalld only where the note says so", "tests/system/test_firewalld.py -k sources_of_the_admin",
    ),
    Mutant(
        "shared/nft/transaction.py", "batch if dry_run else [*batch, end_of_batch]", "[*batch, end_of_batch]", "trying out changes nothing",
        "tests/system/test_nft.py -k trying_out",
    ),
    Mutant(
        "shared/hostports/conditions.py", "if not is_link_name(name) or FORBIDDEN & set(begin):", "if not is_link_name(name):", "no wildcard or quote hides in a link's name",
        "tests/unit/test_conditions.py",
    ),
    Mutant(
        "shared/hostports/conditions.py", '    if operator == "neq" and len(listed) > 1:\n', "    if False:\n", "! with several addresses is refused, as by iptables",
        "tests/unit/test_conditions.py",
    ),
    Mutant(
        "shared/hostports/iptables_matches.py", 'if one.startswith(name)), "")', 'if one == name), "")', "the beginning of an option of iptables' own is refused, too",
        "tests/unit/test_conditions.py",
    ),
    Mutant(
        "shared/hostports/iptables_matches.py", "            if option not in SHORT:\n", "            if False:\n", "no short option is taken but those that select packets",
        "tests/unit/test_conditions.py",
    ),
    Mutant(
        "shared/hostports/iptables_rules.py", "{ifname if is_chain_name(ifname) else digest(ifname.encode())[:12]}", "{ifname}", "an interface's name adds no words to a rule",
        "tests/unit/test_iptables_lines.py -k no_words",
    ),
    Mutant(
        "shared/hostports/iptables.py", "if chain in chains and not any(rule_lines.leads_to(line, chain) for line in lines):", "if False:", "a chain that somebody left unfinished is begun anew",
        "tests/system/test_portmap_iptables.py -k unfinished",
    ),
    Mutant(
        "shared/hostports/iptables.py", "        missing += [(RAW, rule) for rule in _missing_guard(lines.get(RAW, LOCALNET))]\n", "",
        "CHECK names the drop for 127.0.0.0/8", "tests/system/test_portmap_iptables.py -k check_names",
    ),
    Mutant(
        "shared/nft/registry.py", "    if mark and '\"' not in kept and", "    if False and", "host ports know when their pod is dead", "tests/system/test_dead_holders.py -k dead_holder",
    ),
    Mutant(
        "shared/hostports/nftables.py", "            if not tries_left or not _is_of_another_namespace(kernel, owner, mark):\n", "            if False:\n",
        "a second ADD of a living pod's host ports is refused", "tests/system/test_portmap.py -k add_twice",
    ),
    Mutant(
        "shared/pod/filters.py", "        tasks.append(lambda: claims.collect(network, valid, admission.end))\n", "        pass\n", "bridge's GC ends firewall's admission of the dead",
        "tests/system/test_former_keys.py -k garbage_collection[firewall]",
    ),
    Mutant(
        "shared/nft/expressions.py", "return [meta(key), cmp(operator, IFNAME.pack(name))]", "return [meta(key), cmp(operator, name.encode())]",
        "a link whose name only begins like another's is not that one", "tests/system/test_nft.py tests/unit/test_nft.py -k rules",
    ),
    Mutant(
        "shared/nft/expressions.py", "        masked = [bitwise(mask, bytes(bits // 8))]\n", "        bitwise(mask, bytes(bits // 8))\n", "a prefix means all of its addresses",
        "tests/system/test_nft.py tests/unit/test_nft.py -k rules or masks",
    ),
    Mutant(
        "shared/nft/expressions.py", "return [*family(version), loaded, *masked", "return [loaded, *masked", "a rule for IPv4 reads no IPv6 packet",
        "tests/system/test_nft.py tests/unit/test_nft.py -k rules",
    ),
    Mutant(
        "shared/nft/ruleset.py", "        return [self._flush(), *(rule.append_request(self)", "        return [*(rule.append_request(self)", "a refilled chain has its rules and no others",
        "tests/system/test_nft.py -k damaged",
    ),
    Mutant(
        "shared/nft/ruleset.py", 'self.comment = f"{purpose} {digest(self.expressions)[:8]}"', "self.comment = purpose", "a rule of another release is seen to be another",
        "tests/unit/test_nft.py -k another_release",
    ),
    Mutant(
        "shared/hostports/nftables_rules.py", 'Rule("hairpin4", ct_label(ASKED), ct_status', 'Rule("hairpin4", ct_status',
        "what a stranger redirected before keeps its source", "tests/system/test_redirected_by_others.py -k itself",
    ),
    Mutant(
        "shared/hostports/nftables_rules.py", 'Rule("not redirected", ct_label(NOT_REDIRECTED), return_()),\n', "",
        "what a stranger redirects behind the maps keeps its source",
        "tests/system/test_redirected_by_others.py -k conditions",
    ),
    Mutant(
        "shared/admission/isolation.py", '        Rule("pods of its bridge", own, drop()),\n        others,\n', "",
        "isolated holds at layer 3", "tests/system/test_isolation.py -k isolated_at_layer_3 and nftables",
    ),
    Mutant(
        "shared/admission/isolation.py", 'Rule("connections from uplinks", own, ct_label(FROM_UPLINK), return_()),', "",
        "isolated lets pass what comes from an uplink", "tests/system/test_isolation.py -k uplinks",
    ),
    Mutant(
        "shared/admission/isolation.py", 'Rule("from uplinks", own, _with_priority(CARRIED), return_()),', "",
        "isolated lets pass packets of no connection from an uplink",
        "tests/system/test_isolation.py -k no_connection and through",
    ),
    Mutant(
        "shared/admission/isolation.py", 'Rule("passed on", _with_priority(CARRIED), _set_priority(NO_PRIORITY)),', "",
        "no priority is left on what a bridge passes on", "tests/system/test_isolation.py -k priorities",
    ),
    Mutant(
        "shared/admission/nftables.py", 'now is None or element.data not in (None, now.get("NFTA_SET_ELEM_DATA"))',
        "now is None", "pods of the release before are isolated at layer 3 by the next ADD",
        "tests/system/test_isolation.py -k release_before",
    ),
    Mutant(
        "shared/admission/firewalld.py", "    except TryAgainLater:  # Absent is one", "    except Absent:",
        "a silent bus fails no ADD that can do without", "tests/system/test_busy_bus.py -k silent",
    ),
    Mutant(
        "shared/admission/firewalld.py", "    if not any(posix.access(path, posix.F_OK) for path in FILES):", "    if False:",
        "a host without firewalld does not ask the bus", "tests/system/test_busy_bus.py -k without",
    ),
)  # fmt: skip
