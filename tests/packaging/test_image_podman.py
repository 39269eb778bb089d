"""podman loads and runs the image: without a command it installs, then is the agent."""

from __future__ import annotations

from pathlib import Path

from tests.clients.container_host import ARCHIVE, IMAGE, require
from tests.clients.test_podman import Node
from tests.packaging.daemon_pod import BIN_DIR, ENTRY
from tests.packaging.image_node import RELEASE
from tests.pretend import until

require("podman", "conmon", "runc")

# As docs/how-to/container-image.md has them.
PLACE = (
    "--pid", "host", "--network", "host", "--security-opt", "apparmor=unconfined", "--security-opt", "label=disable",
    "--cap-drop", "all", "--volume", "/opt/cni:/opt/cni", "--volume", "/etc/cni:/etc/cni",
)  # fmt: skip
RUN = (
    "--restart", "always", "--stop-timeout", "75", "--read-only", *PLACE,
    "--cap-add", "NET_ADMIN,NET_RAW,SYS_ADMIN,SYS_PTRACE,SYS_MODULE,SYS_CHROOT",
    "--cap-add", "DAC_OVERRIDE,DAC_READ_SEARCH,CHOWN,FOWNER,KILL",
)  # fmt: skip
UNINSTALL = ("--cap-add", "SYS_PTRACE,NET_ADMIN,KILL")
NAME = f"localhost/pycni:{RELEASE}"


def test_install_and_run(artefacts: Path, tmp_path: Path) -> None:
    with Node(Path(BIN_DIR), tmp_path) as node:
        node.run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/opt")
        node.run("mkdir", "--parents", BIN_DIR)
        node.podman("load", "--input", ARCHIVE)
        node.podman("load", "--input", str(artefacts / f"pycni-{RELEASE}-image-linux-amd64.tar"))
        node.podman("run", "--detach", "--name", "pycni", *RUN, NAME)
        probe = ("podman", "exec", "pycni", *ENTRY, "probe")
        until(lambda: node.run(*probe, env=node.variables, check=False).returncode == 0, seconds=120)
        node.podman("run", "--detach", "--name", "web", IMAGE)
        calls = node.run(f"{BIN_DIR}/cnitool", "agent", "status").stdout
        assert "bridge" in calls and node.leases() == {"front/10.44.0.2", "front/fd00:44::2"}
        assert node.podman("stop", "pycni") == "pycni"
        assert node.podman("inspect", "--format", "{{.State.ExitCode}}", "pycni") == "0"
        node.podman("rm", "--force", "--time", "0", "web")
        node.podman("run", "--rm", *PLACE, *UNINSTALL, NAME, "uninstall")
        assert not [path for path in node.path("/opt").rglob("*") if not path.is_dir()]
        done = node.run("podman", "run", "--rm", "--network=host", NAME, "agent", env=node.variables, check=False)
        assert done.returncode == 1 and "hostPID: true (podman: --pid=host)" in done.stderr
