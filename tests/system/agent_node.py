"""A pretend host on which install.sh installs the agent: no systemd runs there, and /etc/systemd is its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.cni.suite import launched
from tests.agent.running import IDLE_WORKERS
from tests.pretend import PATH, PATIENCE, PretendHost, until
from tests.system.test_install import Site

ASK = """
import socket
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as agent:
    agent.settimeout(20)
    agent.connect("/run/pycni/control.sock")
    agent.send(b"state")
    print(agent.recv(1 << 20).decode())
"""
# The installed agent without its duties, which need nothing here.
NO_DUTIES = json.dumps({"heal": False, "collect": False, "metrics": ""})
FAKE_SYSTEMCTL = """#!/bin/sh
echo "$@" >>/run/systemctl
[ ! -e /run/systemctl-fails ] || { echo "Job failed." >&2; exit 1; }
"""


class AgentNode:
    """The host, the installation, and the agent if `start` has started it."""

    def __init__(self, host: PretendHost, site: Site) -> None:
        self.host, self.site = host, site
        host.bin_dir = str(site.bin)
        host.run("tee", "/etc/cni/pycni-agent.json", input=NO_DUTIES)
        host.run("sh", "-ec", "mount -t tmpfs -o mode=755 tmpfs /etc/systemd; mkdir /etc/systemd/system")
        self.agent: subprocess.Popen[bytes] | None = None

    def install(self, *options: str, path: str = PATH, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run install.sh inside; it must say nothing on stderr if it succeeds."""
        done = self.host.run(*self.site.argv(*options), env={"PATH": path}, check=False, timeout=120)
        assert not check or (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done

    def start(self, *prefix: str) -> None:
        """Start the agent by hand, and wait until it has workers."""
        self.agent = self.host.popen(*prefix, f"{self.site.bin}/pycni-agent", stdin=subprocess.DEVNULL, stderr=None)
        until((self.host.root / "run/pycni/control.sock").exists, self._require)
        until(lambda: self.state()["workers"]["idle"] == 4)

    def _require(self) -> None:
        assert self.agent is not None and self.agent.poll() is None

    def state(self) -> dict[str, Any]:
        """Return the agent's own words on its state."""
        return dict(json.loads(self.host.python(ASK)))

    def served(self) -> int:
        """Return the number of calls that workers have served."""
        calls = self.state()["calls"]
        return sum(number for verbs in calls.values() for codes in verbs.values() for number in codes.values())

    def await_release(self) -> None:
        """Wait until the installed release runs, with workers of its own: beside calls, more than half of them."""

        def is_there() -> bool:
            state = self.state()
            return bool(state["tree"] == str(self.tree()) and state["workers"]["idle"] > IDLE_WORKERS // 2)

        until(is_there)

    def ended(self) -> int:
        """Return the agent's exit status, after its end."""
        assert self.agent is not None
        return self.agent.wait(60 * PATIENCE)

    def tree(self) -> Path:
        """Return the tree that every launcher names."""
        trees = {one[0] for path in self.site.bin.iterdir() if (one := launched(str(path)))}
        assert len(trees) == 1, trees
        return Path(trees.pop())

    def version(self, *names: str) -> None:
        """Ask plugins for their versions, all by default; each must answer."""
        for name in names or self.site.names() - {"cnitool"}:
            answer = self.host.cni(name, "VERSION", {"cniVersion": "1.0.0"})
            assert answer.status == 0 and "1.0.0" in answer.json["supportedVersions"], (name, answer)

    def add_systemd(self, directory: Path) -> str:
        """Pretend that systemd runs, with a systemctl that notes its arguments; return the PATH."""
        systemctl = directory / "systemctl"
        systemctl.write_text(FAKE_SYSTEMCTL)
        systemctl.chmod(0o755)
        self.host.run("mkdir", "-p", "/run/systemd/system")
        return f"{directory}:{PATH}"

    def systemctl_calls(self) -> list[str]:
        """Return the calls of systemctl since the last look."""
        log = self.host.root / "run/systemctl"
        text = log.read_text() if log.exists() else ""
        log.unlink(missing_ok=True)
        return [line.removeprefix("--quiet ").removesuffix(" pycni-agent.service") for line in text.splitlines()]


def is_program(path: Path) -> bool:
    """Return True if an executable is a compiled launcher."""
    return path.read_bytes().startswith(b"\x7fELF") and launched(str(path)) is not None


def kinds(site: Site) -> set[bool]:
    """Return whether the plugins' executables are compiled: each of the two that there is."""
    return {is_program(site.bin / name) for name in site.names() - {"cnitool"}}


def compile_launcher(target: Path, *options: str) -> None:
    """Compile the launcher of this tree."""
    source = Path(__file__).resolve().parents[2] / "shared" / "launcher.c"
    compiler: Sequence[str] = (shutil.which("cc") or "cc", "-std=c11", *options)
    subprocess.run([*compiler, "-o", target, source], check=True)
