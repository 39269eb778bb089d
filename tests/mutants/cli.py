"""Mistakes in the operator's tools and install.sh."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "install.sh", '[[ $(stat -L -c \'%u %a\' -- "/dev/fd/$2") != "0 600" ]]', "false",
        "install.sh takes no lock file that others can open", "tests/system/test_locks.py -k found",
    ),
    Mutant(
        "install.sh", '                eval "exec $2<&-"       # clean_up must not take it for held', "                :",
        "a run that waited in vain leaves the other's lock alone", "tests/system/test_locks.py -k names_the_run",
    ),
    Mutant(
        "install.sh", "reason=$flaw\n    [[ -z $reason ]] || return 1\n    answer", 'reason=""\n    answer',
        "nothing that others can change is executed", "tests/system/test_interpreter.py -k way_that",
    ),
    Mutant(
        "install.sh", "        elif [[ $part != . && -L $path ]]; then\n            ((", "        elif [[ $part != . && -L $path ]]; then\n            true || ((",
        "a symbolic link on the way is root's", "tests/system/test_interpreter.py -k link_of_another",
    ),
)  # fmt: skip
