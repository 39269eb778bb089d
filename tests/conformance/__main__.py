"""The command that compares a directory's plugins with the reference's, by plugin and verb, and lists differences.

Each case is played twice, each time on a pretend host of its own: answers, the kernel's state and the files are
compared fact by fact. Intended differences are listed with their reasons; others make the exit status 1.
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conformance.cases import CASES
from tests.conformance.compare import Difference, Outcome, compare, is_supported, play_names
from tests.conformance.known_differences import KNOWN
from tests.kernel import boot
from tests.kernel.image import ROOT

VERDICTS = ("same", "listed", "unlisted")
NAMES, OUTCOMES = "names", "outcomes"  # files that the stock kernel's machine shares with this one
LIMIT = 3600.0  # seconds that the cases may take there
LONGEST = 160  # characters of a table's cell


def main() -> int:
    """Play the cases and print the report; 1 if a difference is not listed, or a listed one does not show."""
    parser = argparse.ArgumentParser(prog="tests/conformance/run", description=__doc__)
    parser.add_argument("--bin-dir", required=True, help="the executables to judge")
    parser.add_argument(
        "--reference", default="/usr/lib/cni", help="the reference's executables (default: %(default)s)"
    )
    parser.add_argument("-k", default="", metavar="PATTERN", help="only cases whose name contains this")
    parser.add_argument("-v", action="store_true", help="show the listed differences too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report to FILE, too")
    parser.add_argument(
        "--stock-kernel", action="store_true",
        help="play the cases that need more than this kernel has on Debian's, in qemu, which takes some ten minutes",
    )  # fmt: skip
    parser.add_argument("--share", type=Path, help=argparse.SUPPRESS)  # given by play_on_stock_kernel
    options = parser.parse_args()
    chosen = {name: (case, ours_first) for case in CASES for name, ours_first in play_names(case) if options.k in name}
    if options.share:
        chosen = {name: chosen[name] for name in (options.share / NAMES).read_text().splitlines()}
    lacking = [name for name, (case, _) in chosen.items() if not is_supported(case)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = list(
            pool.map(
                lambda name: compare(chosen[name][0], options.reference, options.bin_dir, ours_first=chosen[name][1]),
                [name for name in chosen if name not in lacking],
            )
        )
    if options.share:
        (options.share / OUTCOMES).write_bytes(pickle.dumps(outcomes))
        return 0
    if options.stock_kernel and lacking:
        outcomes += play_on_stock_kernel(lacking, options.reference, options.bin_dir)
        lacking = []
    report(outcomes, listed=options.v)
    if options.markdown:
        options.markdown.write_text(markdown(outcomes))
    for name in lacking:
        print(f"skipped, this kernel lacks what it needs: {name}")
    return int(not all(outcome.good for outcome in outcomes))


def play_on_stock_kernel(names: list[str], reference: str, bin_dir: str) -> list[Outcome]:
    """Play the cases of these names on Debian's kernel. Its machine has a /tmp of its own."""
    if Path(bin_dir).absolute().is_relative_to("/tmp") and not Path(bin_dir).absolute().is_relative_to(ROOT):
        raise SystemExit(f"--stock-kernel needs a --bin-dir outside of /tmp, and {bin_dir} is there")
    with tempfile.TemporaryDirectory() as directory:
        share = Path(directory)
        (share / NAMES).write_text("\n".join(names))
        command = [sys.executable, "-m", "tests.conformance", "--share", str(boot.INSIDE)]
        command += ["--reference", reference, "--bin-dir", str(Path(bin_dir).absolute())]
        status = boot.run(command, sys.stdout.buffer.write, share=share, limit=LIMIT)
        if status:
            raise SystemExit(f"on the stock kernel the command ended with {status}")
        outcomes: list[Outcome] = pickle.loads((share / OUTCOMES).read_bytes())  # noqa: S301 # written by this program
        return outcomes


def markdown(outcomes: list[Outcome]) -> str:
    """Return two tables: the numbers of equal steps, and the behaviour of both suites at each difference."""
    steps = Counter(step for outcome in outcomes for step in outcome.steps)
    counts = [
        (label, *(str(steps[label, verdict]) for verdict in VERDICTS))
        for label in sorted({label for label, _ in steps})
    ]
    first: dict[str, Difference] = {}
    shows: Counter[str] = Counter()
    for outcome in outcomes:
        for difference, known in outcome.listed:
            first.setdefault(known.reason, difference)
            shows[known.reason] += 1
    meant = [
        (reason, f"{one.label}: {one.fact}", one.reference, one.ours, str(shows[reason]))
        for reason, one in sorted(first.items(), key=lambda item: item[1].label)
    ]
    unseen = {known.reason: known for known in KNOWN if known.reason not in first}
    meant += [(reason, known.where, "–", "–", "not played here") for reason, known in unseen.items()]
    return f"""\
# Conformance

`tests/conformance/run --bin-dir DIR --stock-kernel --markdown tests/conformance/RESULTS.md` wrote this from
{len(outcomes)} cases, each played on the reference (Debian's `containernetworking-plugins`) and on this suite.

## Steps of the cases, by plugin and verb

{table(("call", "the same in all facts", "with differences that are meant", "with others"), counts)}

## What is meant to differ

The fact is an example, the first in which the difference shows; the last column says how often it does.

{table(("why", "fact", "reference", "this suite", "facts"), meant)}
"""


def cell(text: str) -> str:
    """Return a text as a cell of a Markdown table; a long text is cut."""
    cut = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return cut.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in [header, ["---"] * len(header), *body])


def report(outcomes: list[Outcome], *, listed: bool) -> None:
    """Print the table of plugins and verbs, then the differences."""
    steps = Counter(step for outcome in outcomes for step in outcome.steps)
    print(f"{'differences':24}{'none':>10}{'listed':>10}{'unlisted':>10}")
    for label in sorted({label for label, _ in steps}):
        print(f"{label:24}" + "".join(f"{steps[label, verdict]:10}" for verdict in VERDICTS))
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
