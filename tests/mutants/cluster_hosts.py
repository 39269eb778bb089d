"""Mistakes of the cluster's part on the node: routes, tunnels, conflists, leases and the node's own memory."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

ROUTE_TESTS = "tests/system/test_cluster_routes.py"
TUNNEL_TESTS = "tests/system/test_cluster_tunnel.py"
LIST_TESTS = "tests/system/test_cluster_conflist.py"
UNIT = "tests/unit/test_cluster_{}.py"
ROUTES, TUNNEL, CONFLIST = "shared/cluster/routes.py", "shared/cluster/tunnel.py", "shared/cluster/conflist.py"
FILES, CHECKPOINT, LEASES = "shared/cluster/files.py", "shared/cluster/checkpoint.py", "shared/cluster/leases.py"
RECALL = "shared/cluster/recall.py"
LOOK, GATEWAYS, NODE = "shared/cluster/look.py", "shared/cluster/gateways.py", "shared/cluster/node.py"

TABLE: tuple[Mutant, ...] = (
    Mutant(
        ROUTES, "NLM_F_APPEND if hop.cidr in known else NLM_F_EXCL", "NLM_F_APPEND",
        "a stranger's route to the same CIDR stays", f"{ROUTE_TESTS} -k strangers_route",
    ),
    Mutant(
        ROUTES, "    return added + deleted", "    return deleted + added",
        "a new next hop comes before the old one goes", f"{ROUTE_TESTS} -k next_hop",
    ),
    Mutant(
        ROUTES, '"flags": RTNH_F_ONLINK', '"flags": 0',
        "a peer on a link without a network gets its route", f"{ROUTE_TESTS} -k without_a_network",
    ),
    Mutant(
        ROUTES, "    if not is_done:\n", "    if False:\n",
        "a refused route is told", f"{ROUTE_TESTS} -k strangers_route",
    ),
    Mutant(
        ROUTES, "        except InternalError as error:\n", "        except NotImplementedError as error:\n",
        "a tunnel that cannot be keeps no route waiting", f"{TUNNEL_TESTS} -k cannot_be",
    ),
    Mutant(
        ROUTES, "_changes(have, {*hops.values(), *kept})", "_changes(set(), {*hops.values(), *kept})",
        "only differences are written", f"{ROUTE_TESTS} -k ten_thousand",
    ),
    Mutant(
        ROUTES, "return {hop for hop in have if hop.cidr in keys and", "return {hop for hop in have if False and",
        "routes stay while their tunnel cannot be made", f"{TUNNEL_TESTS} -k cannot_be_made",
    ),
    Mutant(
        TUNNEL, '    set_sources(host, link["index"], end.sources)\n', "",
        "hosts reach pods through tunnels", f"{TUNNEL_TESTS} -k reaches_every",
    ),
    Mutant(
        TUNNEL, "        *_forwarding_gone(index, have, replaced),\n        *(_neighbour(index, one, mac) for one, mac in changed.items()),\n",
        "        *(_neighbour(index, one, mac) for one, mac in changed.items()),\n        *_forwarding_gone(index, have, replaced),\n",
        "a killed run leaves no forwarding entry of a replaced peer", f"{ROUTE_TESTS} -k killed",
    ),
    Mutant(
        TUNNEL, "[*_forwarding_gone(index, have, left - replaced), *(_neighbour(index, one) for one in gone)]",
        "[*(_neighbour(index, one) for one in gone), *_forwarding_gone(index, have, left - replaced)]",
        "a killed run leaves no forwarding entry of a peer that left", f"{ROUTE_TESTS} -k killed",
    ),
    Mutant(
        RECALL, "            if without:\n", "            if False:\n",
        "entries of tunnels are recalled, though their ages change", f"{ROUTE_TESTS} -k decoded",
    ),
    Mutant(
        RECALL, "            if result is not None:\n                found[content] = result\n",
        "            if result is not None:\n                found[content] = result\n        found = {**before, **found}\n",
        "deleted entries are not recalled", f"{ROUTE_TESTS} -k decoded",
    ),
    Mutant(
        CHECKPOINT, 'self._node, self._routes = texts.get("node.json", ""), found.get("kept_routes")', "pass",
        "a garbled file is written again", UNIT.format("checkpoint"),
    ),
    Mutant(
        TUNNEL, ' and one.get("NDA_PROTOCOL") == PROTOCOL', "",
        "a stranger's entries on the device stay", f"{TUNNEL_TESTS} -k leaves",
    ),
    Mutant(
        NODE, "lost = held & {route.cidr for route in wanted}", "lost = held & set()",
        "a lost block's new owner is reached", "tests/system/test_cluster_hosts.py -k goes_to_another",
    ),
    Mutant(
        GATEWAYS, "    host.batch([_anycast_gone(", "    list([_anycast_gone(",
        "a block that is given back leaves no anycast route", f"{LIST_TESTS} -k anycast",
    ),
    Mutant(
        TUNNEL, '"IFLA_VXLAN_LEARNING": 0', '"IFLA_VXLAN_LEARNING": 1',
        "the device learns nothing", f"{TUNNEL_TESTS} -k flooded_or_learned",
    ),
    Mutant(
        TUNNEL, "OVERHEAD_BYTES = {4: 50, 6: 70}", "OVERHEAD_BYTES = {4: 50, 6: 50}",
        "the greatest packets fit into tunnels over IPv6", f"{TUNNEL_TESTS} -k reaches_every",
    ),
    Mutant(
        CONFLIST, "if one.version == version]", "]",
        "each family has its range set", UNIT.format("conflist"),
    ),
    Mutant(
        CONFLIST, "first + 1 if first == subnet.network_address else first", "first",
        "a segment's first address is not leased", UNIT.format("conflist"),
    ),
    Mutant(
        CONFLIST, "    except FileNotFoundError:\n        if not wanted:\n            return False\n", "    except FileNotFoundError:\n        pass\n",
        "there is no conflist before the first range", UNIT.format("conflist"),
    ),
    Mutant(
        CONFLIST, "pool.kind is Kind.ROUTED or None)", "None)",
        "a bridge has the gateways of several blocks", f"{LIST_TESTS} -k given_back",
    ),
    Mutant(
        CONFLIST, "list(dict.fromkeys([*known, *map(str, unmasqueraded)]))", "list(known)",
        "pods keep their addresses towards pods of other hosts", f"{ROUTE_TESTS} -k reaches_every",
    ),
    Mutant(
        GATEWAYS, "            addresses.remove(host, index, prefix)\n", "            pass\n",
        "a block that is given back leaves no address", f"{LIST_TESTS} -k given_back",
    ),
    Mutant(
        FILES, "                os.fsync(file.fileno())\n", "",
        "a file is on the disk before its name", UNIT.format("checkpoint"),
    ),
    Mutant(
        FILES, "        unfinished.unlink(missing_ok=True)\n        descriptor", "        descriptor",
        "a file can be written after a kill", f"{UNIT.format('conflist')} -k killed",
    ),
    Mutant(
        FILES, " or held.st_mode & OTHERS_WRITE", "",
        "a checkpoint that others can write is refused", UNIT.format("checkpoint"),
    ),
    Mutant(
        CHECKPOINT, "        if text is not None and not noted:\n", "        if False:\n",
        "a garbled id makes no new node", UNIT.format("checkpoint"),
    ),
    Mutant(
        LEASES, " if version == address.version else None", "",
        "leases of the other family do not count", UNIT.format("leases"),
    ),
    Mutant(
        LOOK, "used.get(key, 1) > 0", "used.get(key, 0) > 0",
        "a network without files is not taken for empty", UNIT.format("look"),
    ),
    Mutant(
        LOOK, "now if since is None else since", "now",
        "a block is empty since the first look", UNIT.format("look"),
    ),
)  # fmt: skip
