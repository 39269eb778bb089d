"""The plugins' own mistakes."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "plugins/tuning.py", "if path in HOST_WIDE:", "if path in ():", "sysctls of the host are refused",
        "tests/system/test_tuning.py -k refused",
    ),
    Mutant(
        "plugins/bridge.py", "bridges.learning_limit(bridge)) != wanted_limit", "bridges.learning_limit(bridge)) == -1",
        "CHECK names another limit of learned MACs", "tests/system/test_learned_addresses.py -k was_there",
    ),
    Mutant(
        "plugins/portmap.py", "    _guard_if_open(wanted, links_here)\n    return result", "    return result",
        "an ADD without host ports restores the rules", "tests/system/test_route_localnet.py -k restores",
    ),
    Mutant(
        "plugins/portmap.py", '                undo.push("set route_localnet back", _set_localnet_back)\n', "                pass\n",
        "a failed ADD leaves route_localnet as it was", "tests/system/test_route_localnet.py -k failed_add",
    ),
    Mutant(
        "plugins/bridge.py", 'if (now := sysctl.read(sysctl.FORWARDING[version])) in ("0", None):', "if ():",
        "CHECK says that the host forwards no more", "tests/system/test_hidden_sysctls.py -k forwards",
    ),
    Mutant(
        "plugins/tuning.py", "            sysctl.require_visible()\n", "            pass\n",
        "STATUS says that sysctls are hidden", "tests/system/test_hidden_sysctls.py -k tuning",
    ),
)  # fmt: skip
