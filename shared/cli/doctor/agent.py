"""Check the node's agent: that the installed release runs, and serves the calls."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.cli.agent.status import NoAgent, ask
from shared.cli.doctor.configuration import executables, launched_tree
from shared.cli.doctor.findings import Finding, note, warning
from shared.cli.doctor.node import Node
from shared.cni import suite
from shared.executables import PLUGINS

PROGRAM = "pycni-agent"
START = "systemctl start pycni-agent  # or start {} yourself, where no systemd runs"
MISSED_PERCENT = 10  # of the served calls; if more found no worker, an operator may want to know the reason


def state(node: Node) -> Iterator[Finding]:
    """Report an installed agent that does not run, is of another release, or serves few calls."""
    program = next((path for one in node.bin_dirs if launched_tree(path := one / PROGRAM)), None)
    if program is None:
        return
    scripts = [path.name for path in executables([program.parent]) if _is_script(path)]
    if scripts:
        yield note(
            program,
            f"serves no call of {', '.join(scripts)}: at the installation there was no C compiler",
            "./install.sh  # again, with the program cc",
        )
    try:
        running = ask()
    except NoAgent:
        what = "is installed, but no agent answers: each call starts Python, and nothing repairs pods' networks"
        yield warning(program, what, START.format(shlex.quote(str(program))))
        return
    yield from _judge(program, running)


def _judge(program: Path, running: dict[str, Any]) -> Iterator[Finding]:
    """Report differences between a running agent's state and the expected one."""
    tree, duties, missed = launched_tree(program), running["duties"], running["fallbacks"]
    if running["tree"] != str(tree):
        yield warning(
            program,
            f"is of {tree}, but the running agent is of {running['tree']}: each call starts Python",
            f"kill -HUP {running['pid']}",
        )
        return
    if duties["restarts"] and not duties["pid"]:
        yield warning(
            program,
            f"has no duties process, which failed {duties['restarts']} times: nothing repairs pods' networks",
            "journalctl -u pycni-agent  # the reason is on the agent's standard error",
        )
    served = sum(number for verbs in running["calls"].values() for codes in verbs.values() for number in codes.values())
    if missed * 100 > served * MISSED_PERCENT:
        declined = ", ".join(f"{number} for {reason}" for reason, number in running["reasons"].items())
        yield note(
            program,
            f"served {served} calls, and {missed} others started Python; workers declined {declined or 'none'}",
            "nothing; if workers declined none, set more `workers` in /etc/cni/pycni-agent.json",
        )


def _is_script(path: Path) -> bool:
    """Return True if an executable is a plugin's launcher that starts Python by itself."""
    launched = suite.launched(str(path))
    with path.open("rb") as file:
        return launched is not None and launched[1] in PLUGINS and not file.read(4).startswith(suite.ELF)
