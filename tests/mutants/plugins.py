"""The plugins' own mistakes."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "plugins/tuning.py", "if path in HOST_WIDE:", "if path in ():", "sysctls of the host are refused",
        "tests/system/test_tuning.py -k refused",
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
        'return end if end and ifb["index"] in qdisc.redirections(TrafficControl(), end["index"]).values() else None',
        "return end",
        "a limit that does not lead to the own ifb is another pod's", "tests/system/test_paths.py -k limit_of_the_references",
    ),
)  # fmt: skip
