"""Mistakes in the operator's tools and install.sh."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "shared/cli/doctor/switches.py", "if not names or _is_guarded():", "if not names or True:",
        "doctor reports route_localnet without its rules", "tests/system/test_route_localnet.py -k doctor",
    ),
    Mutant(
        "shared/cli/doctor/kernel.py", "before = switches.keep_routes() if path == sysctl.FORWARDING[6] else []", "before = list[str]()",
        "doctor's command for forwarding keeps routes by advertisements", "tests/system/test_doctor.py -k would",
    ),
)  # fmt: skip
