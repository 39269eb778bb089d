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
        "shared/net/netns.py", "    try:\n        return open_netns(path)\n    except (UnknownContainer, InvalidNetns):\n",
        "    try:\n        return open_netns(path)\n    except UnknownContainer:\n",
        "to DEL, a pod whose path leads to the host's own namespace is gone", "tests/system/test_paths.py -k hosts_own_namespace_at",
    ),
)  # fmt: skip
