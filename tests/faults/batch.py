"""Many executions of the plugins inside a pretend host, by one process there.

A call of nsenter for each would cost more than the plugins do.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.pretend import PATH, PATIENCE, Answer, PretendHost

LIMIT = 90.0  # seconds for one call, times PATIENCE
DRIVER = str(Path(__file__).with_name("driver.py"))
POD = "{pod}"  # the namespace that belongs to the driver's thread: pod0, pod1…


@dataclass(frozen=True)
class Call:
    """One execution; `env` overrides or adds variables, None removes one.

    `stdin` is text, bytes, a JSON object, or parts and the number of their repetitions. A shell puts `redirect` behind
    the command. `signal` is a number and the seconds until it is sent. `observe` names directories to list when the
    call has ended. With `undo`, a DEL follows an ADD that succeeded.
    """

    plugin: str
    command: str
    stdin: str | bytes | Mapping[str, Any] | Sequence[tuple[bytes, int]]
    env: Mapping[str, str | None] = field(default_factory=dict)
    redirect: str = ""
    signal: tuple[int, float] | None = None
    observe: tuple[str, ...] = ()
    undo: bool = False

    def _parts(self) -> Sequence[tuple[bytes, int]]:
        if isinstance(self.stdin, bytes):
            return [(self.stdin, 1)]
        if isinstance(self.stdin, str):
            return [(self.stdin.encode(), 1)]
        if isinstance(self.stdin, Mapping):
            return [(json.dumps(self.stdin).encode(), 1)]
        return self.stdin

    def to_json(self, bin_dir: str) -> dict[str, Any]:
        """Return the driver's input."""
        env: dict[str, str | None] = {
            "PATH": PATH,
            "CNI_COMMAND": self.command,
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": POD,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": bin_dir,
            **self.env,
        }
        return {
            "executable": f"{bin_dir}/{self.plugin}",
            "stdin": [(base64.b64encode(part).decode(), count) for part, count in self._parts()],
            "env": {name: value for name, value in env.items() if value is not None},
            "redirect": self.redirect,
            "signal": self.signal,
            "observe": self.observe,
            "undo": self.undo,
        }


@dataclass(frozen=True)
class Outcome(Answer):
    """An answer, its seconds, and the listings of the requested directories; status None: it hung."""

    seconds: float
    seen: dict[str, list[str]]


def run(host: PretendHost, calls: Sequence[Call], *, at_once: int = 2) -> list[Outcome]:
    """Execute the calls, `at_once` of them at a time. Return the answers in the order of the calls."""
    job = json.dumps({
        "at_once": at_once, "limit": LIMIT * PATIENCE, "calls": [call.to_json(host.bin_dir) for call in calls]
    })  # fmt: skip
    done = host.run(sys.executable, "-I", "-S", DRIVER, input=job, timeout=300)
    return [Outcome(**answer) for answer in json.loads(done.stdout)]


def make_pods(host: PretendHost, number: int) -> None:
    """Make the namespaces pod0, pod1… that the driver's threads use."""
    host.run("sh", "-c", f"for n in $(seq 0 {number - 1}); do ip netns add pod$n || exit; done")
