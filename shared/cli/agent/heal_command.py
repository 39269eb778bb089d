"""cnitool heal: repair the attachments in the runtime's cache once, or show CHECK's complaints with --dry-run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from shared.cli.agent import repairs
from shared.cli.agent.repairs import Executables, Outcome, Plan, Runners, Step
from shared.cli.networks import Options, bin_dirs, print_json, run_guarded, warn
from shared.runtime.cache import Cache, CacheError

BUSY_TRIES = 3  # of an attachment that another call is using
BUSY_PAUSE_SECONDS = 1.0


class Unrepaired(CacheError):
    """Something is not in order; the message counts it."""


def run(options: Options) -> int:
    """Repair, or look. Return 1 if an attachment is not in order afterwards."""
    return run_guarded(options, _heal)


def _heal(options: Options) -> None:
    cache, executables = Cache(options.cache_dir), Executables(bin_dirs())
    plan = repairs.plan(cache, executables, options.network)
    for reason in plan.skipped:
        warn(reason)
    found = (
        _complaints(plan.steps)
        if options.dry_run
        else _repaired(plan, lambda busy: repairs.plan_again(busy, cache, executables, options.network))
        + _complaints([step for step in plan.steps if not step.is_repairable])
    )
    if options.json:
        print_json(_document(plan, found))
    elif options.dry_run:
        _print([f"{one.step}: {one.error}" if one.step.is_repairable else one.complaint for one in found])
    else:
        _print([line for one in found for line in (*one.repairs, one.complaint) if line])
    wrong = [one for one in found if one.is_wrong]
    if not options.json:
        print(_summary(plan, found, wrong, is_trial=options.dry_run))
    if wrong:
        sys.stdout.flush()
        raise SystemExit(1)


def _complaints(steps: list[Step]) -> list[Outcome]:
    return list(repairs.complaints(steps))


def _repaired(plan: Plan, plan_again: Callable[[list[Step]], Plan]) -> list[Outcome]:
    """Repair all steps; plan those anew that another call was using."""
    runners, steps, found = Runners(), plan.steps, []
    try:
        for tries_left in reversed(range(BUSY_TRIES)):
            outcomes = list(runners.repair(steps))
            found += [one for one in outcomes if not (one.is_busy and tries_left)]
            busy = [one.step for one in outcomes if one.is_busy]
            if not busy:
                break
            time.sleep(BUSY_PAUSE_SECONDS)
            steps = plan_again(busy).steps
    finally:
        runners.close()
    return found


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _summary(plan: Plan, found: list[Outcome], wrong: list[Outcome], *, is_trial: bool) -> str:
    looked = f"{_counted(plan.attachments, 'attachment')} looked at"
    if is_trial:
        lost = sum(not one.step.is_repairable for one in wrong)
        parts = [f"{len(wrong) - lost} to repair", *([f"{lost} that only a new ADD repairs"] if lost else [])]
        return f"{looked}: {', '.join(parts)}" if wrong else f"{looked}: all in order"
    made = sum(len(one.made) for one in found)
    if not made and not wrong:
        return f"{looked}: all in order"
    return f"{looked}: {_counted(made, 'repair')}, {_counted(len(wrong), 'failure')}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _document(plan: Plan, found: list[Outcome]) -> dict[str, Any]:
    return {
        "attachments": plan.attachments,
        "found": [
            {
                "network": one.step.network, "containerID": one.step.container_id, "ifname": one.step.ifname,
                "plugin": one.step.plugin, "repaired": list(one.made), "code": one.code, "error": one.error,
            }
            for one in found
            if one.made or one.error
        ],
        "skipped": plan.skipped,
    }  # fmt: skip
