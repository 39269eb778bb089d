"""From the raw samples to medians and ratios, the Markdown tables and the plot."""

from __future__ import annotations

import random
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TITLES = {"reference": "reference", "executed": "executed", "agent": "with the agent"}
COLOURS = {"reference": "#9aa5b1", "executed": "#8fb3dd", "agent": "#2f6db3"}
# Upper limits of the ratio to the reference: executed, with the agent. None: no target.
TARGETS: dict[str, tuple[float | None, float | None]] = {
    "loopback ADD": (None, 0.65), "loopback DEL": (None, 0.65),
    "bridge ADD": (1.4, 0.45), "bridge DEL": (0.6, 0.2),
    "masq ADD": (0.65, 0.25), "masq DEL": (0.25, 0.1),
    "chain ADD": (0.6, 0.22), "chain DEL": (0.35, 0.15),
    "10 × masq ADD": (None, 0.35), "10 × masq DEL": (None, 0.2),
    **{f"{name} {verb}": (0.7 if verb == "DEL" else None, 0.5)
       for name in ("ptp", "macvlan", "ipvlan", "vlan", "host-device") for verb in ("ADD", "DEL")},
}  # fmt: skip
AGENT_TARGET_MIB = 40
GROWTH_TARGET = 1.2  # of a suite against itself: many leases or pods, and few
CROWDED = ("bridge", "masq", "portmap", "chain", "macvlan")
MISSING = "–"

Rows = dict[str, dict[str, list[float]]]


def interval_of_ratio(over: Sequence[float], under: Sequence[float], draws: int = 1000) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the ratio of the medians.

    Rounds are drawn whole, as they were measured.
    """
    chance = random.Random(2)
    rounds = range(min(len(over), len(under)))
    ratios = []
    for _ in range(draws):
        drawn = chance.choices(rounds, k=len(rounds))
        ratios.append(statistics.median(over[i] for i in drawn) / statistics.median(under[i] for i in drawn))
    ratios.sort()
    return ratios[int(draws * 0.025)], ratios[int(draws * 0.975) - 1]


def verdict(value: float, target: float | None) -> str:
    """Judge the printed number, with two decimals."""
    if target is None:
        return ""
    return f"≤ {target:.2f}: {'met' if round(value, 2) <= target else 'not met'}"


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, padded for a terminal; all columns but the first are numbers."""
    widths = [max(len(line[i]) for line in [header, *body]) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        for line in [header, *body]
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [padded[0], rule, *padded[1:]])


def call_table(rows: Rows) -> str:
    header = ["call", "reference, ms"]
    for suite in ("executed", "agent"):
        header += [f"{TITLES[suite]}, ms", "ratio", "95 %", "target"]
    return table(header, [call_line(row, suites) for row, suites in rows.items()])


def call_line(row: str, suites: dict[str, list[float]]) -> list[str]:
    reference = suites.get("reference")
    line = [row, f"{statistics.median(reference):.1f}" if reference else MISSING]
    for suite, target in zip(("executed", "agent"), TARGETS.get(row, (None, None)), strict=True):
        samples = suites.get(suite)
        line.append(f"{statistics.median(samples):.1f}" if samples else MISSING)
        if samples and reference:
            ratio = statistics.median(samples) / statistics.median(reference)
            low, high = interval_of_ratio(samples, reference)
            line += [f"{ratio:.2f}", f"{low:.2f}–{high:.2f}", verdict(ratio, target)]
        else:
            line += [MISSING, MISSING, "" if target is None else f"≤ {target:.2f}: not measured"]
    return line


def growth_table(rows: Rows, plan: dict[str, Any]) -> str:
    """Compare each suite with itself: with many leases or pods, and with few."""
    pairs = [
        (f"bridge {verb}, {count:,} leases", f"bridge {verb}") for verb in ("ADD", "DEL") for count in plan["leases"]
    ]
    for name in CROWDED:
        pairs += [(f"{name} {verb}, {plan['pods'][-1]} pods", f"{name} {verb}") for verb in ("ADD", "DEL")]
    body = []
    for much, little in pairs:
        line = [f"{much} / without" if "leases" in much else f"{much} / 1 pod"]
        for suite in TITLES:
            if suite not in rows[much]:
                line += [MISSING] * (1 if suite == "reference" else 2)
                continue
            ratio = statistics.median(rows[much][suite]) / statistics.median(rows[little][suite])
            line += [f"{ratio:.2f}", *([verdict(ratio, GROWTH_TARGET)] if suite != "reference" else [])]
        body.append(line)
    return table(["a suite against itself", "reference", "executed", "target", "with the agent", "target"], body)


def memory_table(memory: Rows) -> str:
    body = []
    for row, suites in memory.items():
        medians = {suite: statistics.median(samples) for suite, samples in suites.items()}
        judged = ""
        if row.startswith("agent with"):
            judged = f"≤ {AGENT_TARGET_MIB}: {'met' if medians['agent'] <= AGENT_TARGET_MIB else 'not met'}"
        body.append([row, *(f"{medians[suite]:.1f}" if suite in medians else MISSING for suite in TITLES), judged])
    return table(["memory, MiB", *TITLES.values(), "target"], body)


def introduction(outcome: dict[str, Any]) -> str:
    """Say what was measured, and how."""
    plan, about = outcome["plan"], outcome["about"]
    return f"""\
The reference is {about["reference"]}. The machine: {about["machine"]}.
Each figure is the median of {plan["rounds"]} rounds in one run, in ms of wall time. The suites alternate call by call.
The ratio is to the reference, with its 95 % bootstrap interval. Only ratios travel to another machine.

The agent: {plan["agent"]}{_lacking(plan.get("lacking", []))}"""


def _lacking(rows: Sequence[str]) -> str:
    """Return a sentence about the rows that the kernel has no links for."""
    return f"\n\nThis kernel has no links for the rows {', '.join(rows)}: they are not measured." if rows else ""


def tables(outcome: dict[str, Any]) -> str:
    """Return the measurement in words and tables; `outcome` is the content of the saved JSON."""
    return f"""\
{introduction(outcome)}

{call_table(outcome["rows"])}

{growth_table(outcome["rows"], outcome["plan"])}

Memory of a call is the largest resident set of any one of its processes. PSS is the proportional set size, in which
shared pages count for each process in part. `/bin/true` shows the method's own share.

{memory_table(outcome["memory"])}
"""


def clients_tables(outcome: dict[str, Any]) -> str:
    """Return the same of containerd's calls."""
    return f"{introduction(outcome)}\n\n{call_table(outcome['rows'])}\n"


def document(name: str, text: str, page: Path) -> None:
    """Write a text into a page, between `<!-- NAME -->` and `<!-- end -->`."""
    block = f"<!-- {name} -->\n{text}<!-- end -->"
    found = page.read_text(encoding="utf-8")
    page.write_text(
        re.sub(f"<!-- {name} -->.*?<!-- end -->", lambda _: block, found, flags=re.DOTALL), encoding="utf-8"
    )


def plot(outcome: dict[str, Any], path: Path) -> None:
    """Plot the medians of all suites side by side, on a logarithmic scale, each with its ratio, as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "bench"
    from matplotlib import pyplot

    rows: Rows = {row: suites for row, suites in outcome["rows"].items() if "reference" in suites}
    figure, axis = pyplot.subplots(figsize=(10, 1.5 + 0.5 * len(rows)), layout="constrained")
    for shift, suite in zip((-0.27, 0.0, 0.27), TITLES, strict=True):
        places = [place for place, suites in enumerate(rows.values()) if suite in suites]
        values = [statistics.median(suites[suite]) for suites in rows.values() if suite in suites]
        shifted = [place + shift for place in places]
        axis.barh(shifted, values, 0.26, label=TITLES[suite], color=COLOURS[suite])
        for at, value, suites in zip(shifted, values, rows.values(), strict=False):
            ratio = value / statistics.median(suites["reference"])
            text = "" if suite == "reference" else f"× {ratio:.2f}"
            axis.annotate(text, (value, at), (4, 0), textcoords="offset points", va="center", fontsize=7)
    axis.set_xscale("log")
    axis.margins(x=0.1, y=0.01)  # room for the ratio
    axis.set_xlabel(f"median, ms (logarithmic); × = ratio to {outcome['about']['reference']}")
    axis.grid(axis="x", which="both", alpha=0.25)
    axis.set_axisbelow(True)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.invert_yaxis()
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
