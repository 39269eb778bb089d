"""Mistakes of encryption between nodes: of its decisions, and of the device's peers."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

DECISIONS = "tests/unit/test_cluster_decide.py"
PEERS = "tests/unit/test_cluster_wireguard.py"
ROUTE_TESTS = "tests/system/test_cluster_routes.py"
NODE_TESTS = "tests/system/test_cluster_duty_wireguard.py -k cannot"
ENCRYPTION, PEERING = "shared/cluster/encryption.py", "shared/cluster/peering.py"
WIREGUARD, ROUTES, NODE = "shared/cluster/wireguard.py", "shared/cluster/routes.py", "shared/cluster/node.py"

TABLE: tuple[Mutant, ...] = (
    Mutant(
        ENCRYPTION, 'peer.public_key in ("", node.public_key):\n        return', 'peer.public_key == "":\n        return',
        "a peer with this node's key is no way", f"{DECISIONS} -k own_is_refused",
    ),
    Mutant(
        ENCRYPTION, "for cidr, name in refused.items() if cidr not in done", "for cidr, name in refused.items()",
        "an encrypted CIDR is not refused", f"{DECISIONS} -k encrypted_routes_go",
    ),
    Mutant(
        ENCRYPTION, "if via.version in versions and", "if",
        "a peer is reached by a family that the node has", f"{DECISIONS} -k encrypted_routes_go",
    ),
    Mutant(
        PEERING, "route.cidr in unreached and not local.node.encrypts", "route.cidr in unreached",
        "a route to a peer that has no key any more goes", f"{DECISIONS} -k old_key",
    ),
    Mutant(
        PEERING, "r.mac, r.key, r.is_refused", "r.mac, r.is_refused",
        "a new key sets the routes", f"{DECISIONS} -k kernels_routes",
    ),
    Mutant(
        PEERING, "encryption.refuse_clear(routes, {}) if local.node.encrypts else routes", "routes",
        "nothing leaves in clear while the engine is silent", f"{DECISIONS} -k in_clear",
    ),
    Mutant(
        WIREGUARD, "            cidrs |= found[key].cidrs\n", "",
        "a peer in several parts is read whole", f"{PEERS} -k joins_the_parts",
    ),
    Mutant(
        WIREGUARD, "        peer = name\n", "",
        "further CIDRs of a peer are added to the first ones", f"{PEERS} -k several_requests",
    ),
    Mutant(
        WIREGUARD, "    if path.stat().st_mode & OTHERS:\n", "    if False:\n",
        "a private key that others can read is refused", f"{PEERS} -k bad_file",
    ),
    Mutant(
        WIREGUARD, "key[-1] & 127 | 64", "key[-1]",
        "the file's key is compared as the kernel stores it", f"{PEERS} -k genkey",
    ),
    Mutant(
        ROUTES, '        body["RTA_OIF"] = LOOPBACK', "        pass",
        "a refusal is deleted, and not the route beside it", f"{ROUTE_TESTS} -k refusal_and_its_route",
    ),
    Mutant(
        ROUTES, "TYPES = (RTN_UNICAST, RTN_UNREACHABLE)", "TYPES = (RTN_UNICAST,)",
        "refusals are read back", f"{ROUTE_TESTS} -k refused",
    ),
    Mutant(
        NODE, "                self._encryption_failure = str(error)\n", "                pass\n",
        "a node says why it cannot encrypt", NODE_TESTS,
    ),
    Mutant(
        NODE, "            return wireguard.pod_mtu(smallest)\n", "            pass\n",
        "encrypted packets of pods fit into the link's", NODE_TESTS,
    ),
)  # fmt: skip
