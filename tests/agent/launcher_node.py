"""A pretend host with the launcher of a plugin, an interpreter that notes its calls, and an agent under orders."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.agent.fake_agent import SOCKET
from tests.pretend import PATH, PATIENCE, TREE, Answer, PretendHost, read_line

SOURCE = Path(TREE, "shared/launcher.c")
BARE_SOURCE = Path(TREE, "shared/launcher_bare.h")
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-Wpedantic")
WITHOUT_LIBC = " ".join(
    re.findall(r'^without_libc\+?="(.*)"$', Path(TREE, "install.sh").read_text(), re.MULTILINE)
).split()
BUILDS = {
    **({"bare": WITHOUT_LIBC} if platform.machine() in ("x86_64", "aarch64") else {}),
    "static": ["-O2", "-static"],
    "dynamic": ["-O2"],
    "sanitized": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
}
INSTALLED = next(iter(BUILDS))  # the build that install.sh makes on this machine
MARKER, PLACE_BYTES = b"@pycni-launcher@", 4096
CODE, INTERPRETER, RAN, FALLBACKS = "/run/code", "/run/interpreter", "/run/ran", "/run/pycni/fallbacks"
STATUS = 7  # of the interpreter
ANSWER_MILLISECONDS = int(1000 * PATIENCE)
# It notes its arguments, its environment, its descriptors, its signals, and copies its input.
SCRIPT = f"""#!/bin/bash -p
[ -n "$DRY" ] || echo "$*" >>{RAN}
[ -z "$LOOK" ] || {{ cat /proc/$$/environ >/run/environment; cat /proc/self/status >/run/status; ls /proc/$$/fd >/run/open; }}
[ -z "$COPY" ] || cat
echo done
exit {STATUS}
"""


def compile_launcher(directory: Path, build: str) -> Path:
    """Compile the launcher, with nothing filled in.

    It waits longer for the worker's answer than the real one: on a busy machine a fake worker may be late.
    """
    program = directory / build
    text = SOURCE.read_text().replace("ANSWER_MILLISECONDS = 200,", f"ANSWER_MILLISECONDS = {ANSWER_MILLISECONDS},")
    command = ["gcc", *WARNINGS, *BUILDS[build], f"-iquote{SOURCE.parent}", "-o", str(program), "-x", "c", "-"]
    subprocess.run(command, input=text, text=True, check=True)
    return program


def fill_in(program: Path, plugin: str = "bridge", code: str = CODE, python: str = INTERPRETER) -> bytes:
    """Return the program for a plugin, as install.sh writes it."""
    content = program.read_bytes()
    assert content.count(MARKER) == 1
    at = content.index(MARKER)
    assert content[at : at + PLACE_BYTES] == MARKER.ljust(PLACE_BYTES, b"\0")
    words = (f"\n# pycni launcher: {plugin}; the code is in {code}\n", plugin, code, python)
    text = b"".join(word.encode() + b"\0" for word in words)
    return content[:at] + text[:PLACE_BYTES].ljust(PLACE_BYTES, b"\0") + content[at + PLACE_BYTES :]


class Node:
    """A pretend host with a launcher, a program at /run/bridge."""

    def __init__(self, host: PretendHost, program: Path) -> None:
        self.host = host
        self.program = program
        self.run = host.root / "run"
        self.write("bridge", fill_in(program))
        self.write("interpreter", SCRIPT.encode())
        (self.run / "code").mkdir()
        (self.run / "code/launcher").touch()
        (self.run / "pycni").mkdir(mode=0o700)

    def write(self, name: str, content: bytes) -> None:
        """Write an executable below /run."""
        path = self.run / name
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        path.chmod(0o755)

    def executions(self) -> list[str]:
        """Return the arguments of each execution of the interpreter so far."""
        ran = self.run / "ran"
        return ran.read_text().splitlines() if ran.exists() else []

    def call(self, *prefix: str, env: Mapping[str, str] | None = None, stdin: str = "") -> Answer:
        """Call the launcher, with the words of a command in front."""
        done = self.host.run(
            *prefix, "/run/bridge", input=stdin, env={"PATH": PATH} if env is None else env, check=False, timeout=30
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def begin(self, *prefix: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start the launcher and let it run."""
        return self.host.popen(*prefix, "/run/bridge", env=env)

    @contextmanager
    def agent(self, *calls: list[Any], **orders: Any) -> Iterator[Agent]:
        """Run an agent that follows these scripts."""
        document = json.dumps({"calls": calls, **orders})
        process = self.host.popen(
            sys.executable, "-m", "tests.agent.fake_agent", document, env={"PATH": PATH, "PYTHONPATH": TREE}
        )
        try:
            assert read_line(process) == b"listening\n", process.stderr and process.stderr.read()
            yield Agent(process)
        finally:
            process.kill()
            process.wait()
            (self.run / SOCKET.removeprefix("/run/")).unlink(missing_ok=True)


class Agent:
    """The process of an agent."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def record(self) -> dict[str, Any]:
        """Return the record of the next connection at its end."""
        line = read_line(self.process)
        assert line, self.process.stderr and self.process.stderr.read().decode()
        document = json.loads(line)
        assert isinstance(document, dict)
        return document
