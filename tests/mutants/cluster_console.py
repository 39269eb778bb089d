"""Mistakes of the commands and checks that administrators use on a cluster."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TESTS, DOCTOR = "tests/system/test_cluster_console.py", "tests/system/test_cluster_doctor.py"
RELEASE, TABLES, POOL = (f"shared/cli/cluster/{name}.py" for name in ("release", "tables", "pool"))
TABLE: tuple[Mutant, ...] = (
    Mutant(
        RELEASE, "    if life:\n", "    if life and not machine.peer:\n",
        "a machine with a sign of life is not released", f"{TESTS} -k living_node",
    ),
    Mutant(
        RELEASE, "own.strip() == machine.uid and not machine.renamed", "not own",
        "a machine does not release itself", f"{TESTS} -k release_itself",
    ),
    Mutant(
        RELEASE, "return () if self.renamed else self.blocks", "return self.blocks",
        "a renamed machine keeps its blocks", f"{TESTS} -k renamed_machine",
    ),
    Mutant(
        RELEASE, "        if machine is None:\n            _show", "        if machine is None and len(machines) > 1:\n            _show",
        "nothing is released without the machine's id", f"{TESTS} -k test_release",
    ),
    Mutant(
        RELEASE, "peer if peer and peer.uid == uid else None", "peer",
        "the successor of a machine keeps its peer object", f"{TESTS} -k former_machine",
    ),
    Mutant(
        "shared/cluster/etcd.py", '        self._delete(f"{NODES}{codec.to_name(peer.node, \'node\')}", _number(peer.revision))\n',
        '        key = encode(self._key(f"{NODES}{peer.node}"))\n        self._gateway.call("/v3/kv/deleterange", {"key": key}, timeout_seconds=9)\n',
        "a peer object that somebody has written stays", "tests/system/test_cluster_etcd.py -k withdraw_compares",
    ),
    Mutant(
        "shared/cluster/kubernetes.py", '_condition(peer.revision, f"peer {name}")', "{}",
        "a Peer that somebody has written stays", "tests/system/test_cluster_kubernetes.py -k withdraw_compares",
    ),
    Mutant(
        "shared/cluster/kubernetes.py", '.uid != uid:\n            return ""', '.uid == uid:\n            return ""',
        "a Node is the sign of life of the machine that has its name now", "tests/system/test_cluster_kubernetes.py -k sign_of_life",
    ),
    Mutant(
        "shared/cluster/etcd.py", '        key = f"{ALIVE}{codec.to_name(node, \'node\')}/{uid}"\n', '        key = f"{ALIVE}{node}/{uid[:4]}"\n',
        "a machine's key is its sign of life", "tests/system/test_cluster_etcd.py -k keys_and_leases",
    ),
    Mutant(
        TABLES, "and route.via not in peer.addresses", "and not route",
        "a route to another node is no way", f"{TESTS} -k ways_to_them",
    ),
    Mutant(
        POOL, '        theirs += [(ip_network(address), f"node {peer.node} itself") for address in peer.addresses]\n', "",
        "a pool does not take the nodes' own addresses", f"{TESTS} -k pool_that_harms",
    ),
    Mutant(
        POOL, "present.kind is not pool.kind and used", "present.kind is not pool.kind and not used",
        "a network with blocks keeps its kind", f"{TESTS} -k pool_that_harms",
    ),
    Mutant(
        POOL, "        if others:\n", "        if not others:\n",
        "addresses that a node has just claimed are not reserved", f"{TESTS} -k being_reserved",
    ),
    Mutant(
        "shared/cli/cluster/state.py", "return age(state) > STALE_SECONDS", "return False",
        "an agent that hangs is told", f"{TESTS} -k troubled_node",
    ),
    Mutant(
        "shared/cli/doctor/cluster.py", "if one.uid not in present", "if one.node not in snapshot.peers",
        "doctor names machines that are gone", f"{DOCTOR} -k machines_that_are_gone",
    ),
    Mutant(
        "shared/cli/doctor/cluster.py", 'text.removesuffix(".").rpartition(". ")', 'text.partition(". ")',
        "an alarm's next step is its last sentence", f"{DOCTOR} -k alarms_and_reports",
    ),
    Mutant(
        "shared/cli/cluster/clean.py", '    routes.apply((), End("", ()))\n', "",
        "a node that leaves has no routes to the others", "tests/system/test_install_agent.py -k leaves_the_cluster",
    ),
    Mutant(
        "shared/cli/cluster/clean.py", "options.forget and DIRECTORY.is_dir()", "DIRECTORY.is_dir()",
        "a machine keeps its id", "tests/system/test_install_agent.py -k leaves_the_cluster",
    ),
)  # fmt: skip
