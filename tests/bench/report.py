"""From the raw samples to medians and ratios, the Markdown tables and the plot."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WALL, CPU = 0, 1  # the columns of a sample

# Upper limits of ours/reference in wall time. CPU has none of its own: its ratio shall not be above that in wall time.
TARGETS = {
    "bridge ADD": 1.0, "bridge DEL": 1.05, "loopback ADD": 2.0, "loopback DEL": 2.0,
}  # fmt: skip
# The same where the reference has two backends, against each.
TARGETS |= {
    f"{plugin} {verb}, {setting} ({backend})": target
    for backend in ("iptables", "nftables")
    for plugin, setting, targets in (
        ("bridge", "ipMasq", {"ADD": 0.45, "DEL": 0.45}),
        ("portmap", "two ports", {"ADD": 0.2, "DEL": 0.2}),
        ("bridge", "ipMasq + portmap + firewall + bandwidth", {"ADD": 0.35, "DEL": 0.3}),
    )
    for verb, target in targets.items()
}
PEAK_TARGET = 1.0
OWN_LEASE_TARGET = 1.2
OWN_POD_TARGET = 1.15
OWN_RULED_POD_TARGET = 1.2
CROWDS = (("bridge", "ipMasq"), ("portmap", "two ports"), ("bridge", "ipMasq + portmap + firewall + bandwidth"))

Rows = dict[str, dict[str, list[list[float]]]]


@dataclass(frozen=True)
class Line:
    """One row: medians in ms as (wall, CPU), and the ratios with the 95 % interval of the one in wall time."""

    row: str
    reference: tuple[float, float] | None
    ours: tuple[float, float]
    ratio: tuple[float, float] | None = None
    interval: tuple[float, float] | None = None


def medians(samples: Sequence[Sequence[float]]) -> tuple[float, float]:
    return statistics.median(s[WALL] for s in samples), statistics.median(s[CPU] for s in samples)


def interval_of_ratio(
    over: Sequence[Sequence[float]], under: Sequence[Sequence[float]], draws: int = 1000
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the ratio of the wall medians.

    Rounds are drawn whole, as they were measured.
    """
    chance = random.Random(2)
    rounds = range(min(len(over), len(under)))
    ratios = []
    for _ in range(draws):
        drawn = chance.choices(rounds, k=len(rounds))
        medians_drawn = [statistics.median(samples[i][WALL] for i in drawn) for samples in (over, under)]
        ratios.append(medians_drawn[0] / medians_drawn[1])
    ratios.sort()
    return ratios[int(draws * 0.025)], ratios[int(draws * 0.975) - 1]


def lines(rows: Rows) -> list[Line]:
    result = []
    for row, suites in rows.items():
        ours = medians(suites["ours"])
        if "reference" not in suites:
            result.append(Line(row, None, ours))
            continue
        reference = medians(suites["reference"])
        ratio = (ours[WALL] / reference[WALL], ours[CPU] / reference[CPU])
        result.append(Line(row, reference, ours, ratio, interval_of_ratio(suites["ours"], suites["reference"])))
    return result


def judged(value: float, limit: float) -> str:
    """Judge the printed number, with two decimals."""
    return "met" if round(value, 2) <= round(limit, 2) else "missed"


def verdict(value: float, target: float) -> str:
    return f"≤ {target:.2f}: {judged(value, target)}"


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, padded for a terminal; all columns but the first are numbers."""
    widths = [max(len(line[i]) for line in [header, *body]) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        for line in [header, *body]
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [padded[0], rule, *padded[1:]])


def call_table(measured: Sequence[Line]) -> str:
    header = [
        "call",
        "reference wall ms",
        "ours wall ms",
        "ratio",
        "95 %",
        "reference CPU ms",
        "ours CPU ms",
        "ratio",
        "target wall",
        "CPU ≤ wall",
    ]
    body = []
    for line in measured:
        if line.reference is None or line.ratio is None or line.interval is None:
            body.append([line.row, "–", f"{line.ours[WALL]:.1f}", "–", "–", "–", f"{line.ours[CPU]:.1f}", "–", "", ""])
            continue
        target = TARGETS.get(line.row)
        body.append(
            [
                line.row,
                f"{line.reference[WALL]:.1f}",
                f"{line.ours[WALL]:.1f}",
                f"{line.ratio[WALL]:.2f}",
                f"{line.interval[0]:.2f}–{line.interval[1]:.2f}",
                f"{line.reference[CPU]:.1f}",
                f"{line.ours[CPU]:.1f}",
                f"{line.ratio[CPU]:.2f}",
                "" if target is None else verdict(line.ratio[WALL], target),
                "" if target is None else judged(line.ratio[CPU], line.ratio[WALL]),
            ]
        )
    return table(header, body)


def growth(plan: dict[str, Any]) -> list[tuple[str, str, str, float]]:
    """Return (label, row with much, row with little, target of ours) for each comparison of a suite with itself."""
    few, many = (f"{count:,} pod{'s' if count > 1 else ''}" for count in plan["pod_levels"])
    result = []
    for verb in ("ADD", "DEL"):
        for count in plan["lease_levels"]:
            much = f"bridge {verb}, {count:,} leases"
            result.append((f"{much} / none", much, f"bridge {verb}", OWN_LEASE_TARGET))
    for verb in ("ADD", "DEL"):
        much = f"bridge {verb}, {many}"
        result.append((f"{much} / {few}", much, f"bridge {verb}, {few}", OWN_POD_TARGET))
    for plugin, setting in CROWDS:
        for verb in ("ADD", "DEL"):
            much = f"{plugin} {verb}, {setting}, {many}"
            result.append((f"{much} / {few}", much, f"{plugin} {verb}, {setting}, {few}", OWN_RULED_POD_TARGET))
    return result


def growth_table(rows: Rows, plan: dict[str, Any]) -> str:
    body = []
    for label, much, little, target in growth(plan):
        cells = [label]
        ours = 0.0
        for suite in ("reference", "ours"):
            over, under = medians(rows[much][suite]), medians(rows[little][suite])
            ours = over[WALL] / under[WALL]
            cells += [f"{ours:.2f}", f"{over[CPU] / under[CPU]:.2f}"]
        body.append([*cells, verdict(ours, target)])
    return table(
        ["a suite against itself", "reference wall", "reference CPU", "ours wall", "ours CPU", "target of ours, wall"],
        body,
    )


def peak_table(peaks: dict[str, dict[str, list[int]]]) -> str:
    body = []
    for row, suites in peaks.items():
        ours = statistics.median(suites["ours"]) / 1024
        if "reference" in suites:
            reference = statistics.median(suites["reference"]) / 1024
            ratio = ours / reference
            body.append([row, f"{reference:.1f}", f"{ours:.1f}", f"{ratio:.2f}", verdict(ratio, PEAK_TARGET)])
        else:
            body.append([row, "–", f"{ours:.1f}", "–", ""])
    return table(["peak memory", "reference MiB", "ours MiB", "ratio", "target"], body)


def markdown(outcome: dict[str, Any]) -> str:
    """Return the whole report; `outcome` is the content of the saved JSON."""
    plan, about = outcome["plan"], outcome["about"]
    return f"""\
# {about["ours"]} against {about["reference"]}

{about["machine"]}.
Medians of {plan["rounds"]} rounds in one run ({plan["first_calls"]} for the row on first calls), the suites alternating
call by call; ratio = ours / reference, with its 95 % bootstrap interval. CPU is user + system of the plugin and the
children it waited for. Stores are on tmpfs unless the row says otherwise. Only the ratios travel to another machine.

{call_table(lines(outcome["rows"]))}

{growth_table(outcome["rows"], plan)}

Largest resident set of any one process of the call, medians of {plan["peak_calls"]} calls; /bin/true shows what
the method itself adds. While a bridge plugin executes its IPAM plugin, the two are there at the same time.

{peak_table(outcome["peaks"])}
"""


def plot(outcome: dict[str, Any], path: Path) -> None:
    """Plot wall and CPU medians of both suites side by side, on a logarithmic scale, each with its ratio, as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "bench"
    from matplotlib import pyplot

    measured = lines(outcome["rows"])
    about = outcome["about"]
    places = range(len(measured))
    figure, axes = pyplot.subplots(1, 2, sharey=True, figsize=(13, 1.5 + 0.36 * len(measured)), layout="constrained")
    for column, axis, title in ((WALL, axes[0], "wall time"), (CPU, axes[1], "CPU time, user + system")):
        # the interpreter's bare start has no reference: a bar of no length
        reference = [line.reference[column] if line.reference else 0.0 for line in measured]
        ours = [line.ours[column] for line in measured]
        for shift, values, suite, color in ((-0.2, reference, "reference", "#9aa5b1"), (0.2, ours, "ours", "#2f6db3")):
            axis.barh([place + shift for place in places], values, 0.38, label=f"{suite}: {about[suite]}", color=color)
        for place, line in enumerate(measured):
            if line.ratio is not None and line.reference is not None:
                end = max(line.reference[column], line.ours[column])
                axis.annotate(
                    f"× {line.ratio[column]:.2f}",
                    (end, place),
                    (4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
        axis.set_xscale("log")
        axis.set_xlim(1, 2 * max(*ours, *reference))  # room for the ratio
        axis.set_xlabel("median, ms (logarithmic); × = ours / reference")
        axis.set_title(title)
        axis.grid(axis="x", which="both", alpha=0.25)
        axis.set_axisbelow(True)
    axes[0].set_yticks(list(places), [line.row for line in measured])
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
