"""Mistakes of the cluster duty: the order of effects, its pauses, its settings and its report."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

EXECUTOR, NODE, DUTY = "shared/cluster/executor.py", "shared/cluster/node.py", "shared/cluster/duty.py"
STEPS, UNIT = "tests/unit/test_cluster_executor.py", "tests/unit/test_cluster_{}.py"
SYSTEM, KUBERNETES = "tests/system/test_cluster_duty.py", "tests/system/test_cluster_duty_kubernetes.py"

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "shared/cluster/network.py", ", *self.local.vanished]", "]",
        "a block that vanished a moment ago is not claimed", f"{UNIT.format('decide')} -k vanished",
    ),
    Mutant(
        "shared/cluster/network.py", "                left = set()\n", "                pass\n",
        "no pod starts without a family", f"{UNIT.format('decide')} -k pauses",
    ),
    Mutant(
        "shared/cluster/vanished.py", " if before[key].uid != local.node.uid", "",
        "own blocks can be claimed again", UNIT.format("vanished"),
    ),
    Mutant(
        "shared/cluster/vanished.py", " if now - group[0] < local.node.grace_seconds]", "]",
        "a vanished block is free after the grace", UNIT.format("vanished"),
    ),
    Mutant(
        "shared/cluster/checkpoint.py", '            self._node = ""  # unknown, if this fails: the new text may be there all the same\n', "",
        "a write that failed at its end is not trusted", f"{UNIT.format('checkpoint')} -k failed_at_its_end",
    ),
    Mutant(
        EXECUTOR, "        self._settle(key, is_open=True)\n", "",
        "an attempt is noted before its request", f"{STEPS} -k answer_of_a_claim",
    ),
    Mutant(
        EXECUTOR, "            if not self._confirm(key, local):\n                raise\n", "            self._confirm(key, local)\n",
        "a block that another node took is not used", f"{STEPS} -k another_node_took",
    ),
    Mutant(
        EXECUTOR, "block.state if is_attempted else State.DRAINING", "block.state",
        "an unknown block is drained", f"{STEPS} -k unknown_own_block",
    ),
    Mutant(
        EXECUTOR, "        if is_draining:\n            self._note_draining(key, is_draining=True)\n", "",
        "draining is noted before its request", f"{STEPS} -k draining_is_noted",
    ),
    Mutant(
        EXECUTOR, "                self._leave((block.network, block.cidr), snapshot)\n", "",
        "a released block leaves no gateway address", f"{SYSTEM} -k leaves_the_settings",
    ),
    Mutant(
        EXECUTOR, "                    self._leave((network, cidr), snapshot)\n", "",
        "a forgotten block leaves no gateway address", f"{STEPS} -k forgotten",
    ),
    Mutant(
        EXECUTOR, "            elif _network_of(action) not in failed:\n", "            else:\n",
        "nothing is marked before it left the conflist", f"{STEPS} -k stay_unmarked",
    ),
    Mutant(
        EXECUTOR, "RETRY_SECONDS if self._is_futile(decision) else decision.again_seconds", "decision.again_seconds",
        "missing routes are not tried each second", f"{STEPS} -k missing_routes",
    ),
    Mutant(
        EXECUTOR, "        if sources != self._sources and", "        if False and",
        "tunnels follow the own blocks", f"{STEPS} -k tunnels_follow",
    ),
    Mutant(
        EXECUTOR, "announced=replace(peer, revision=self.engine.announce(peer).revision)", "announced=self.engine.announce(peer)",
        "an engine with older kinds is told once", f"{STEPS} -k older_kinds",
    ),
    Mutant(
        NODE, "            conflist.withdraw(target, cidrs)\n", "",
        "lost ranges leave without a template", f"{SYSTEM} -k without_a_template",
    ),
    Mutant(
        NODE, "if key[0] == assigned and key not in checkpoint.held", "if False",
        "a lost checkpoint makes no blocks of podCIDRs", f"{KUBERNETES} -k checkpoint_that_is_lost",
    ),
    Mutant(
        NODE, "        return {**known, **self._settings.places()}\n", "        return self._settings.places()\n",
        "leases of a removed network are counted", f"{SYSTEM} -k leaves_the_settings",
    ),
    Mutant(
        NODE, "            self._require_leases(network, target, template)\n", "",
        "leases of pods are counted under another dataDir", f"{SYSTEM} -k where_they_are_counted",
    ),
    Mutant(
        NODE, "            conflist.withdraw(former.conflist, ())", "            pass",
        "a former conflist leases no more", f"{SYSTEM} -k conflist_that_moves",
    ),
    Mutant(
        NODE, "    found |= {one.version: one for one in known if", "    found |= {one.version: one for one in () if",
        "the node's addresses stay without a default route", f"{SYSTEM} -k default_route",
    ),
    Mutant(
        DUTY, "st_ctime_ns", "st_mtime_ns",
        "new leases begin a step", f"{SYSTEM} -k before_the_first_one_is_full",
    ),
    Mutant(
        DUTY, "            self._end, self._is_new = end, True\n", "            self._is_new = True\n",
        "a state that nobody keeps current is not used", f"{UNIT.format('duty')} -k keeps_current",
    ),
    Mutant(
        "shared/cluster/settings.py", "            if key not in self.fields:\n", "            if False:\n",
        "unknown keys are named", f"{UNIT.format('settings')} -k named",
    ),
    Mutant(
        "shared/cluster/neighbour_limits.py", "if int(path.read_text()) < number * factor:", "if True:",
        "limits are never lowered", f"{UNIT.format('duty')} -k neighbours",
    ),
    Mutant(
        EXECUTOR, "        alarms += _tell_life_refusal(local, self.engine.find_life_refusal())\n", "",
        "a refused sign of life is told", f"{STEPS} -k sign_of_life",
    ),
    Mutant(
        EXECUTOR, "            if set(kept) == cidrs:", "            if True:",
        "a range that is needed again stays in the conflist", f"{STEPS} -k still_right",
    ),
    Mutant(
        "shared/cluster/network.py", "        if not self.is_wanted:\n", "        if False:\n",
        "blocks of a removed network are given back", f"{UNIT.format('decide')} -k left_the_settings",
    ),
)  # fmt: skip
