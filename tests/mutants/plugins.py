"""The plugins' own mistakes."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "plugins/tuning.py", "if path in HOST_WIDE:", "if path in ():", "sysctls of the host are refused",
        "tests/system/test_tuning.py -k refused",
    ),
    Mutant(
        "plugins/bridge.py", "    _require_free_mac(host, pod)\n\n", "\n",
        "a MAC that another has is refused before anything is touched", "tests/system/test_macs.py -k another_has",
    ),
    Mutant(
        "plugins/bridge.py", "    _require_free_mac(host, pod)  # again", "    # again",
        "of several that ask for one MAC at once, one at most gets it", "tests/system/test_macs.py -k several",
    ),
    Mutant(
        "plugins/tuning.py", "_require_free_mac(host, link, wanted)\n", "pass\n",
        "tuning sets no MAC that another link on the bridge has", "tests/system/test_macs.py -k tuning",
    ),
)  # fmt: skip
