"""cnitool agent status: ask the running agent, and print its answer."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from shared.cli.networks import Options, print_json
from shared.cli.terminal import print_table, say

SOCKET = "/run/pycni/control.sock"
ANSWER_SECONDS = 5.0
ANSWER_BYTES = 1 << 20


class NoAgent(Exception):
    """No agent answers; the message says why."""


def run(options: Options) -> int:
    """Print the agent's state. Return 1 if no agent runs."""
    try:
        state = ask()
    except NoAgent as error:
        if options.json:
            print_json({"running": False, "msg": str(error)})
        else:
            print(f"cnitool: {error}", file=sys.stderr)
        return 1
    if options.json:
        print_json({"running": True, **state})
    else:
        _print(state)
    return 0


def ask() -> dict[str, Any]:
    """Return the agent's document. Raise NoAgent."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(SOCKET)
            connection.sendall(b"status")
            answer = json.loads(connection.recv(ANSWER_BYTES))
    except (FileNotFoundError, ConnectionRefusedError):
        raise NoAgent(
            f"no agent runs on this node (nobody listens at {SOCKET}): plugins are executed as without it;"
            " start it with `systemctl start pycni-agent`"
        ) from None
    except (OSError, ValueError) as error:
        raise NoAgent(f"the agent at {SOCKET} does not answer: {error}") from error
    if not isinstance(answer, dict):
        raise NoAgent(f"the agent at {SOCKET} answers {str(answer)[:80]!r}")
    return answer


def _print(state: dict[str, Any]) -> None:
    workers, duties = _section(state, "workers"), _section(state, "duties")
    say(f"agent     {state.get('release', '?')}, process {state.get('pid', '?')}, since {_moment(state.get('since'))}")
    say(f"code      {state.get('tree', '?')}")
    say(f"workers   {workers.get('idle', 0)} idle, {workers.get('busy', 0)} busy")
    say(f"executed  {state.get('fallbacks', 0)} calls that no worker took, {state.get('declined', 0)} declined")
    restarts = duties.get("restarts", 0)
    say(
        f"duties    {f'process {pid}' if (pid := duties.get('pid')) else 'not running'}, started again {restarts} times"
    )
    rows = list(_rows(_section(state, "calls")))
    if rows:
        say("")
        print_table(("PLUGIN", "VERB", "OK", "FAILED", "CODES"), rows)


def _rows(calls: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    """Return a row for each plugin and verb: the successful calls, the failed ones, and these by their code."""
    for plugin, verbs in sorted(calls.items()):
        for verb, codes in sorted(verbs.items()):
            failed = {code: number for code, number in sorted(codes.items()) if str(code) != "0"}
            shown = ", ".join(f"{code}: {number}" for code, number in failed.items())
            yield plugin, verb, codes.get("0", 0), sum(failed.values()), shown


def _section(state: dict[str, Any], name: str) -> dict[str, Any]:
    found = state.get(name)
    return found if isinstance(found, dict) else {}


def _moment(since: object) -> str:
    """Return a moment in seconds since 1970 as text, and any other value as it is."""
    if isinstance(since, int | float):
        return datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds")
    return str(since or "?")
