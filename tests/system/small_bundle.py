"""A bundle made of this machine's Python and Debian's static programs, and a host on which there is nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.build.interpreter import PLACEHOLDER
from tests.pretend import Answer, PretendHost
from tests.system.test_install import Site, launched_tree, make_site

PYTHON = Path("/usr/bin/python3").resolve()
# The programs of the bundle that `programs` has as links to busybox.
APPLETS = (
    *(
        "cat",
        "chmod",
        "chown",
        "cp",
        "date",
        "dirname",
        "env",
        "ln",
        "mkdir",
        "mktemp",
        "mv",
        "readlink",
        "rm",
        "rmdir",
    ),
    *("sleep", "sort", "stat", "sync", "tail", "touch", "uname"),
)
LEFT_OUT = ("__pycache__", "test", "idlelib", "ensurepip", "tkinter", "lib2to3", "pydoc_data", "config-*", "*-packages")


def make_bundle(directory: Path) -> Site:
    """Make the bundle, `directory/source`."""
    site = make_site(directory)
    _make_python(site.source / "python")
    programs = site.source / "programs"
    programs.mkdir()
    shutil.copy(shutil.which("bash-static") or "", programs / "bash")
    shutil.copy(shutil.which("busybox") or "", programs / "busybox")
    for name in APPLETS:
        (programs / name).symlink_to("busybox")
    return site


def copy_bundle(site: Site, directory: Path) -> Site:
    """Return a copy whose code can be changed; its Python and programs are hard links."""
    shutil.copytree(site.source, directory / "source", symlinks=True, copy_function=os.link)
    launch = directory / "source" / "shared" / "launch.py"
    launch.unlink()
    shutil.copy(site.source / "shared" / "launch.py", launch)
    return Site(directory / "source", directory / "bin", directory / "lib")


def _make_python(target: Path) -> None:
    library = f"lib/{PYTHON.name}"
    shutil.copytree(Path("/usr") / library, target / library, ignore=shutil.ignore_patterns(*LEFT_OUT))
    modules = list((target / library / "lib-dynload").glob("*.so"))
    listed = subprocess.run(["ldd", PYTHON, *modules], capture_output=True, text=True, check=False).stdout
    for path in {*re.findall(r"^\t(?:.* => )?(/\S+) \(", listed, re.MULTILINE)}:
        shutil.copy(path, target / "lib")
    (target / "bin").mkdir()
    program = target / "bin" / "python3"
    shutil.copy(PYTHON, program)
    subprocess.run(
        ["patchelf", "--force-rpath", "--set-rpath", "$ORIGIN/../lib", "--set-interpreter", PLACEHOLDER, program],
        check=True,
    )
    compileall = ("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", target, target / library)
    subprocess.run([PYTHON, "-I", *compileall], check=True)
    for path in target.rglob("*"):
        if path.is_file():
            path.chmod(0o755 if path.parent.name == "bin" or path.name.startswith("ld-linux") else 0o644)


ROOT = "/run/bare"
CHROOT = (shutil.which("chroot") or "", ROOT)
MAKE_ROOT = f"""
mkdir {ROOT}
mount -t tmpfs -o mode=755 tmpfs {ROOT}
cd {ROOT}
for directory in proc sys dev run; do
    mkdir "$directory"
    mount --rbind "/$directory" "$directory"
done
mkdir -p bundle var/lib etc opt
mount --bind "$1" bundle
mount -o remount,bind,ro bundle
"""


class BareHost(PretendHost):
    """A pretend host with a root in which there are the kernel's directories, the bundle and nothing else.

    `bare` runs a command there, `call` a plugin. `files` is the root's path as tests see it.
    """

    def __init__(self, bundle: Path) -> None:
        super().__init__("/opt/cni/bin")
        self.pod = self.netns("pod")
        self.run("sh", "-ec", MAKE_ROOT, "sh", str(bundle))
        self.files = self.root / ROOT.removeprefix("/")

    def bare(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the root, with the bundle's programs."""
        return self.run(*CHROOT, *argv, env={"PATH": "/bundle/programs"}, check=check, timeout=120)

    def install(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the bundle's install.sh."""
        done = self.bare("/bundle/programs/bash", "/bundle/install.sh", *options, check=check)
        assert not check or done.stderr == "", done.stderr
        return done

    def call(self, plugin: str, verb: str, config: Mapping[str, Any], **more: Any) -> Answer:
        """Execute a plugin for the pod."""
        return self.cni(plugin, verb, config, netns=self.pod, prefix=CHROOT, **more)

    def tree(self) -> Path:
        """Return the tree, as tests see it."""
        tree = launched_tree(self.files / "opt/cni/bin/cnitool")
        return self.files / tree.relative_to("/")
