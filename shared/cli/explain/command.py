"""`cnitool explain`: list the steps of an ADD on this node, from a rehearsal in a throw-away host."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from shared.cli import throwaway
from shared.cli.explain import mirror
from shared.cli.networks import bin_dirs, capability_args, cni_args
from shared.cli.terminal import readable
from shared.cli.throwaway import Failure
from shared.runtime.attachment import Attachment
from shared.runtime.conflist import ConfigError, NetworkConfigList, load

CONTAINER_ID = "explain"
NETNS = f"/run/netns/{CONTAINER_ID}"
REHEARSAL = "import sys; sys.path[:] = {!r}; from shared.cli.explain.rehearsal import main; main()"


def run(options: argparse.Namespace) -> int:
    """Print the steps.

    Return 1 if the ADD (or DEL) would fail or cannot be rehearsed, else 0.
    """
    try:
        throwaway.expect(
            options.conflist.is_file(), f"{options.conflist} is not a file; name a .conflist or .conf file"
        )
        network = load(options.conflist, print)[0]
        attachment = Attachment(CONTAINER_ID, NETNS, options.ifname, cni_args(), capability_args())
        told = rehearse(network, options.bin_dir or bin_dirs(), attachment, delete=options.delete)
    except (ConfigError, Failure, ValueError) as error:
        print(f"cnitool explain: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({"network": network.name, **told}, indent=2))
    else:
        _print(Console(highlight=False, soft_wrap=True), network, told)
    return 1 if told["error"] else 0


def rehearse(
    network: NetworkConfigList, directories: Sequence[Path | str], attachment: Attachment, *, delete: bool
) -> dict[str, Any]:
    """Return the answer of rehearsal.rehearse. Raise Failure if the rehearsal was not possible."""
    places = [Path(directory).absolute() for directory in directories]
    throwaway.expect_visible([*places, Path(__file__)], mirror.HIDDEN)
    task = {
        "outside": throwaway.own_namespaces(),
        "network": network.to_json(),
        "node": mirror.read_node(),
        "attachment": asdict(attachment),
        "bin_dirs": [str(place) for place in places],
        "delete": delete,
    }
    child = throwaway.command("-c", REHEARSAL.format(sys.path))
    done = subprocess.run(child, input=json.dumps(task), capture_output=True, text=True, check=False)
    sys.stderr.write(done.stderr)
    told: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"failure": f"exit status {done.returncode}"}
    if "failure" in told:
        raise Failure(f"the rehearsal failed: {told['failure']}")
    return told


def _print(console: Console, network: NetworkConfigList, told: Mapping[str, Any]) -> None:
    about = f"({network.path}), cniVersion {network.cni_version}: a rehearsal, this node is not changed"
    console.print(f"[bold]{network.name}[/] {about}")
    silent = [call for call in range(len(told["calls"])) if all(step["call"] != call for step in told["steps"])]
    begun: set[int] = set()
    last = (-1, False)
    for number, step in enumerate(told["steps"], 1):
        while silent and silent[0] < step["call"]:
            _head(console, told["calls"][silent.pop(0)], "changes nothing")
        if last != (step["call"], step["undo"]):
            last = (step["call"], step["undo"])
            remark = "rolled back" if step["undo"] else "continued" if step["call"] in begun else ""
            _head(console, told["calls"][step["call"]], remark)
            begun.add(step["call"])
        style = "red" if step.get("refused") or step["undo"] else ""
        line = Text(f"{number:>4}  ", style="dim").append(f"{step['where']:<6}", style="cyan")
        console.print(Text.assemble(line, (step["text"], style)))
    for call in silent:
        _head(console, told["calls"][call], "changes nothing")
    if told["result"] is not None:
        console.print("\n[bold]result[/]")
        console.print(Text(readable(told["result"])))
    if told["error"]:
        _print_error(console, **told["error"])


def _head(console: Console, call: Mapping[str, Any], remark: str) -> None:
    remarks = [
        *([remark] if remark else []),
        *(["not recorded: the steps are its changes"] if call["executed"] else []),
    ]
    title = (f"\n{call['plugin']} {call['command']}", "bold")
    console.print(Text.assemble(title, (f"  {', '.join(remarks)}" if remarks else "", "dim")))


def _print_error(
    console: Console, *, plugin: str, command: str, code: int, msg: str, details: str, notes: Sequence[str]
) -> None:
    text = f"\n{plugin} {command} fails: {msg}{f': {details}' if details else ''} (code {code})"
    for line in (text, *notes):
        console.print(Text(line, style="bold red"))
