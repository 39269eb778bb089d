"""`python -m tests.conformance --bin-dir DIR`: what agrees with the reference by plugin and verb, and what does not."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.conformance.cases import CASES
from tests.conformance.compare import Outcome, compare, played, supported


def main() -> int:
    """Play the cases and print the report; 1 if a difference is not listed, or a listed one does not show."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--bin-dir", required=True, help="the executables to judge")
    parser.add_argument(
        "--reference", default="/usr/lib/cni", help="the reference's executables (default: %(default)s)"
    )
    parser.add_argument("-k", default="", metavar="PATTERN", help="only cases whose name contains this")
    parser.add_argument("-v", action="store_true", help="show the listed differences too")
    options = parser.parse_args()
    chosen = [(case, name, ours_first) for case in CASES for name, ours_first in played(case) if options.k in name]
    lacking = [name for case, name, _ in chosen if not supported(case)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = list(
            pool.map(
                lambda item: compare(item[0], options.reference, options.bin_dir, ours_first=item[2]),
                [item for item in chosen if item[1] not in lacking],
            )
        )
    report(outcomes, listed=options.v)
    for name in lacking:
        print(f"skipped, this kernel lacks what it needs: {name}")
    return int(not all(outcome.good for outcome in outcomes))


def report(outcomes: list[Outcome], *, listed: bool) -> None:
    """Print the table of plugins and verbs, then the differences."""
    steps = Counter(step for outcome in outcomes for step in outcome.steps)
    verdicts = ("same", "listed", "unlisted")
    print(f"{'differences':24}{'none':>10}{'listed':>10}{'unlisted':>10}")
    for label in sorted({label for label, _ in steps}):
        print(f"{label:24}" + "".join(f"{steps[label, verdict]:10}" for verdict in verdicts))
    if listed:
        print("\nDifferences that are meant:")
        for outcome in outcomes:
            for difference, known in outcome.listed:
                print(f"{outcome.case}: step {difference.step} {difference}\n    because: {known.reason}")
    meant = sum(len(outcome.listed) for outcome in outcomes)
    bad = [outcome for outcome in outcomes if not outcome.good]
    print(
        f"\n{len(outcomes)} cases: {len(outcomes) - len(bad)} as expected ({meant} listed differences), {len(bad)} not"
    )
    for outcome in bad:
        print(outcome)


if __name__ == "__main__":
    raise SystemExit(main())
