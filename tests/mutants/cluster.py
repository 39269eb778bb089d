"""Mistakes in a node's decisions about its cluster."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

DECIDE, NETWORK, PEERING, CLAIMS = (f"shared/cluster/{name}.py" for name in ("decide", "network", "peering", "claims"))
FOLLOW = "shared/cluster/etcd_follow.py"
SINGLE, STORIES = "tests/unit/test_cluster_decide.py", "tests/unit/test_cluster_machine.py"
TABLE: tuple[Mutant, ...] = (
    Mutant(
        DECIDE, "    if not snapshot.is_current:\n", "    if not snapshot.pools:\n",
        "a silent engine changes nothing on a node", f"{SINGLE} -k without_an_engine",
    ),
    Mutant(
        DECIDE, "if kept[0] not in published and kept[1]", "if kept[1]",
        "without an engine only a deleted conflist is written", f"{SINGLE} -k without_an_engine",
    ),
    Mutant(
        DECIDE, "            if key in local.held or key in attempted:\n                continue\n", "            if True:\n                continue\n",
        "a block that a crash left is found", STORIES,
    ),
    Mutant(
        NETWORK, "if one.used or one.is_published or one.cidr not in self.owners)", "if one)",
        "after a restored backup the route leads to the node with the pods", f"{SINGLE} -k announced_unless",
    ),
    Mutant(
        NETWORK, "if version in self.unknown or any(", "if any(",
        "a machine that was installed again claims nothing that it need not", f"{SINGLE} -k installed_again",
    ),
    Mutant(
        DECIDE, "other is not None and other.uid == node.uid", "False",
        "a copied machine id adopts no blocks", f"{SINGLE} -k copied_machine_id",
    ),
    Mutant(
        DECIDE, "        actions.append(Announce(after))\n    return actions + _finish(waiting)", "        return [*actions, *_finish(waiting), Announce(after)]\n    return actions + _finish(waiting)",
        "no pod has an address before other nodes have a route", f"{SINGLE} -k in_this_order",
    ),
    Mutant(
        DECIDE, "    actions += _finish(ready)\n    actions += [*unknown,", "    waiting += ready\n    actions += [*unknown,",
        "a claim that fails delays no other network", f"{SINGLE} -k delays_no_other",
    ),
    Mutant(
        DECIDE, "key=lambda n: (n in tried, n)", "key=lambda n: n",
        "a network whose request failed comes last", f"{SINGLE} -k delays_no_other",
    ),
    Mutant(
        NETWORK, "        elif block.uid != self.local.node.uid:\n", "        elif block.node != self.local.node.name:\n",
        "a new machine has no blocks of the former one of its name", f"{SINGLE} -k new_machine_withdraws",
    ),
    Mutant(
        NETWORK, "block is None and self._is_taken(one.cidr)", "False",
        "a block that another node has, by a read, leaves at once", f"{SINGLE} -k read_by_name",
    ),
    Mutant(
        NETWORK, "            self.plan.withdrawal = Publish(", "            self.plan.publication = Publish(",
        "lost ranges wait for no request", f"{SINGLE} -k leaves_the_conflist_at_once",
    ),
    Mutant(
        NETWORK, "return self.now - one.empty_since >= self.local.node.grace_seconds", "return True",
        "an ADD in progress keeps its block", STORIES,
    ),
    Mutant(
        NETWORK, "if one.is_published or one.used or one.empty_since is None", "if one.is_published or one.empty_since is None",
        "a block with pods is not released", f"{SINGLE} -k no_pod_can_have",
    ),
    Mutant(
        NETWORK, "        if self._is_idle(one):\n            self.gone", "        if not one.is_published:\n            self.gone",
        "a missing block with pods is claimed again", f"{SINGLE} -k missing_block_that_pods",
    ),
    Mutant(
        NETWORK, "(block.state is State.DRAINING or one.is_draining)", "block is one",
        "a late release deletes no block that is used again", STORIES,
    ),
    Mutant(
        NETWORK, "and one.is_draining and block.state is State.DRAINING", "and one.is_draining",
        "a release compares the revision of the mark", f"{SINGLE} -k waits_for_the_mark",
    ),
    Mutant(
        NETWORK, "math.ceil(DRAIN_MARGIN * size)", "0",
        "few pods' coming and going claims and drains nothing", f"{SINGLE} -k few_pods",
    ),
    Mutant(
        NETWORK, "if free - self._free(emptiest) >= enough", "if free >= enough",
        "draining leaves enough addresses", f"{SINGLE} -k half_a_block",
    ),
    Mutant(
        NETWORK, " or any(one.cidr.version == version for one in self.open_attempts):", ":",
        "no second block is claimed while a claim's answer is open", f"{SINGLE} -k open_claim",
    ),
    Mutant(
        NETWORK, "key=lambda one: one.used)\n            self.outside", "key=lambda one: -one.used)\n            self.outside",
        "the fullest draining block is used again", f"{SINGLE} -k before_a_claim",
    ),
    Mutant(
        NETWORK, "known += [cidr for cidr in self.owners if", "known += [cidr for cidr in self.owners if False and",
        "addresses that a peer has are not claimed", f"{SINGLE} -k peers_addresses",
    ),
    Mutant(
        NETWORK, "if not one.is_published and not one.used and one.cidr in self.owners", "if False",
        "a block from a backup is left to its present user", f"{SINGLE} -k from_a_backup",
    ),
    Mutant(
        NETWORK, "(other.since, other.uid) < (block.since, block.uid)", "True",
        "of overlapping blocks the older stays", f"{SINGLE} -k overlapping",
    ),
    Mutant(
        NETWORK, "self._families() <= ", "set() <= ",
        "no pod misses a family", f"{SINGLE} -k all_families",
    ),
    Mutant(
        NETWORK, "        elif others:\n            self.outside", "        elif not others:\n            self.outside",
        "an assigned CIDR stays until there is another", f"{SINGLE} -k assign",
    ),
    Mutant(
        PEERING, "cidr.prefixlen >= mine.prefixlen or mine in underlay", "mine in underlay",
        "own addresses are never routed away", f"{SINGLE} -k own_addresses",
    ),
    Mutant(
        PEERING, "cidr.prefixlen >= mine.prefixlen or mine in underlay", "cidr.prefixlen >= mine.prefixlen",
        "the nodes' own network is never routed away", f"{SINGLE} -k own_network",
    ),
    Mutant(
        PEERING, "key=lambda one: (one.uid != owner, ", "key=lambda one: (",
        "the engine's owner of a CIDR has its route", f"{SINGLE} -k engines_owner",
    ),
    Mutant(
        PEERING, "r.is_tunnelled, r.mac, ", "r.is_tunnelled, ",
        "a new MAC of a tunnel's end is set", f"{SINGLE} -k new_mac",
    ),
    Mutant(
        PEERING, "if is_without_way or (", "if (",
        "a route stays while a peer claims it", f"{SINGLE} -k route_stays",
    ),
    Mutant(
        PEERING, "max(since, present.since + 1)", "since",
        "a machine with a slow clock takes its name over", f"{SINGLE} -k takes_over",
    ),
    Mutant(
        DECIDE, "not is_new or any(", "True or any(",
        "a node that joins announces itself once", "tests/system/test_cluster_scale.py -k life",
    ),
    Mutant(
        CLAIMS, "for name, cidr in snapshot.blocks if name == network)", "for name, cidr in snapshot.blocks)",
        "blocks of other networks take nothing", "tests/unit/test_cluster_claims.py",
    ),
    Mutant(
        PEERING, "and not stale else wanted", "else wanted",
        "nobody announces a block that is released", f"{SINGLE} -k nobody_announces",
    ),
    Mutant(
        FOLLOW, "max(1.0, keys / pace.page_keys)", "1.0",
        "a large cluster's new lists take their time", "tests/unit/test_cluster_etcd_follow.py",
    ),
    Mutant(
        CLAIMS, "        if place < start:\n            break\n", "",
        "only free blocks are chosen", "tests/unit/test_cluster_claims.py",
    ),
    Mutant(
        CLAIMS, "if any(overlap(entry.cidr, one.cidr) for entry in pool.ranges)), None)", "if False), None)",
        "a range from before the cluster is not claimed", f"{SINGLE} -k before_the_cluster",
    ),
    Mutant(
        DECIDE, "find_owners(snapshot, local.node, parts)", "find_owners(snapshot, local.node, {})",
        "a part of another node's block gets no route", f"{SINGLE} -k part_of_anothers",
    ),
    Mutant(
        PEERING, "if node.encrypts or not missing:", "if True:",
        "a peer without a way is told", f"{SINGLE} -k without_a_way",
    ),
    Mutant(
        CLAIMS, "max(1, 1 << cidr.max_prefixlen - cidr.prefixlen >> bits)", "1",
        "blocks of former lengths are taken, too", "tests/unit/test_cluster_claims.py",
    ),
)  # fmt: skip
