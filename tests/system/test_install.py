"""install.sh, run for real into directories of the test: installed files, refusals, and calls in the meantime."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from tests.pretend import PATIENCE
from tests.pythons import OLDEST, OLDEST_OF_TOOLS

PROJECT = Path(__file__).resolve().parents[2]
OWN_LINE = "# pycni launcher:"
NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="install.sh is for root")


@dataclass
class Site:
    """A copy of the source tree, so that a test can change it, and its two target directories."""

    source: Path
    bin: Path
    lib: Path
    env: dict[str, str] = field(default_factory=dict)

    def argv(self, *options: str) -> list[str]:
        return [str(self.source / "install.sh"), "--bin-dir", str(self.bin), "--lib-dir", str(self.lib), *options]

    def run(self, *options: str, check: bool = True, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.argv(*options),
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            umask=umask,
            timeout=120 * PATIENCE,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def refused(self, *options: str, status: int = 1) -> str:
        """Return the one sentence on stderr of a run that must fail and print nothing else."""
        done = self.run(*options, check=False)
        return sentence(done, status)

    def change(self, text: str) -> None:
        """Make the source another release: add one more comment."""
        with (self.source / "shared" / "launch.py").open("a") as file:
            file.write(f"# {text}\n")

    def trees(self) -> set[Path]:
        return {path for path in self.lib.glob("*") if path.is_dir() and not path.is_symlink()}

    def tree(self) -> Path:
        """Return the tree that every launcher names."""
        named = {launched_tree(path) for path in self.bin.iterdir() if is_launcher(path)}
        assert len(named) == 1, named
        return named.pop()

    def names(self) -> set[str]:
        code = "import sys; sys.path.insert(0, sys.argv[1]); from shared.executables import PLUGINS; print(*PLUGINS)"
        done = subprocess.run(
            [sys.executable, "-I", "-B", "-c", code, self.source], capture_output=True, text=True, check=True
        )
        return {*done.stdout.split(), "cnitool"}

    def leftovers(self) -> list[Path]:
        return [*self.bin.glob(".pycni*"), *self.lib.glob(".pycni*")]

    def assert_works(self, *, whole: bool = True) -> None:
        """Execute each executable; they are of one release, unless a run was killed while it replaced them."""
        if whole:
            self.tree()
        assert {path.name for path in self.bin.iterdir() if is_launcher(path)} == self.names()
        for name in self.names():
            done = version(self.bin / name)
            assert done.returncode == 0, done.stdout + done.stderr
            if name == "cnitool":
                assert done.stdout == f"cnitool {launched_tree(self.bin / name).name.rpartition('-')[0]}\n"
            else:
                assert "1.0.0" in json.loads(done.stdout)["supportedVersions"]
        assert (self.lib / "current").is_dir()


def sentence(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stdout == ""
    assert re.fullmatch(r"install\.sh: [^\n]+\n", done.stderr), done.stderr
    return done.stderr


def is_launcher(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and f"\n{OWN_LINE}".encode() in path.read_bytes()


def launched_tree(launcher: Path) -> Path:
    return Path(launcher.read_text().splitlines()[1].partition("the code is in ")[2])


def version(executable: Path, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
    """Return a plugin's answer to VERSION, which takes no arguments, or cnitool's to its argument."""
    return subprocess.run(
        [executable, "version"],
        env={"CNI_COMMAND": "VERSION"},
        input='{"cniVersion": "1.0.0"}',
        capture_output=True,
        text=True,
        umask=umask,
        timeout=60 * PATIENCE,
    )


def content(*roots: Path) -> dict[str, tuple[int, int, int, int, bytes]]:
    """Return everything below a directory: mode, owner, inode, time of change and content."""
    found = {}
    for root in roots:
        for path in (root, *root.rglob("*")):
            info = path.lstat()
            data = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
            found[str(path)] = (info.st_mode, info.st_uid, info.st_ino, info.st_mtime_ns if data else 0, data)
    return found


def interpreter_version(path: str | Path) -> tuple[int, int] | None:
    try:
        done = subprocess.run(
            [path, "-I", "-S", "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
            timeout=60 * PATIENCE,
        )
    except OSError:
        return None
    words = done.stdout.split()
    return (int(words[0]), int(words[1])) if done.returncode == 0 and len(words) == 2 else None


def interpreters() -> dict[tuple[int, int], str]:
    """Return every Python 3 on this machine by version, from PATH and from pyenv."""
    candidates = ["/usr/bin/python3", *filter(None, (shutil.which(f"python3.{minor}") for minor in range(6, 20)))]
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True).stdout.strip()
        candidates += [str(path) for path in sorted(Path(root).glob("versions/3.*/bin/python3"))]
    found: dict[tuple[int, int], str] = {}
    for candidate in candidates:
        if (number := interpreter_version(candidate)) is not None:
            found.setdefault(number, candidate)
    return found


def in_mounts(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a mount namespace of its own."""
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "bash", "-euc", script, "bash", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120 * PATIENCE,
    )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


def make_site(directory: Path, name: str = "source") -> Site:
    source = directory / name
    source.mkdir()
    for part in ("plugins", "ipam", "shared"):
        shutil.copytree(PROJECT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("install.sh", "pyproject.toml"):
        shutil.copy2(PROJECT / part, source / part)
    return Site(source, directory / "bin", directory / "lib")


@pytest.fixture
def small_path(tmp_path: Path) -> Path:
    """Return a PATH with bash, coreutils and util-linux and nothing else: no Python, no findutils, no grep, no sed."""
    directory = tmp_path / "path"
    directory.mkdir()
    listed = subprocess.run(
        ["dpkg", "-L", "coreutils", "util-linux", "bash"], capture_output=True, text=True, check=True
    ).stdout
    for line in listed.splitlines():
        if Path(line).parent.name in ("bin", "sbin") and os.access(line, os.X_OK):
            (directory / Path(line).name).symlink_to(line)
    return directory


def test_fresh_install(site: Site) -> None:
    done = site.run()
    site.assert_works()
    assert done.stderr == ""
    assert str(site.bin) in done.stdout and str(site.tree()) in done.stdout and "/usr/bin/python3" in done.stdout
    tree = site.tree()
    assert site.trees() == {tree}
    assert re.fullmatch(r"\d+\.\d+\S*-[0-9a-f]{12}", tree.name)
    wanted = {
        path.relative_to(site.source)
        for part in ("plugins", "ipam", "shared")
        for kind in ("*.py", "*.yaml")
        for path in (site.source / part).rglob(kind)
    }
    assert Path("shared/cluster/manifests/access.yaml") in wanted
    there = {path.relative_to(tree) for path in tree.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    bundles = {path for path in there if str(path).startswith("bundle.")}
    assert there - bundles == wanted | {Path("launcher")} and len(bundles) == 1
    assert site.leftovers() == []
    assert {path.name for path in site.bin.iterdir()} == site.names()


@pytest.mark.row("python-path")
def test_launcher_is_isolated(site: Site, tmp_path: Path) -> None:
    """Neither a module beside the launcher nor the environment can inject code."""
    site.run()
    evil = tmp_path / "evil"
    evil.mkdir()
    for directory in (site.bin, evil):
        (directory / "socket.py").write_text("raise SystemExit(66)\n")
        (directory / "shared.py").write_text("raise SystemExit(66)\n")
    environment = {
        "CNI_COMMAND": "VERSION",
        "PYTHONPATH": str(evil),
        "PYTHONHOME": str(evil),
        "PYTHONSTARTUP": str(evil / "shared.py"),
    }
    for name in site.names():
        assert (site.bin / name).read_text().splitlines()[0] == "#!/usr/bin/python3 -IS"
        done = subprocess.run(
            [site.bin / name, "version"],
            env=environment,
            input='{"cniVersion": "1.0.0"}',
            capture_output=True,
            text=True,
            cwd=evil,
        )
        assert done.returncode == 0, done.stderr


def test_compiled_files_are_valid(site: Site) -> None:
    """A call finds every module compiled, with its path; it writes nothing."""
    site.env["SOURCE_DATE_EPOCH"] = "0"  # would make py_compile choose hashes
    site.run()
    tree = site.tree()
    before = content(tree)
    site.assert_works()
    assert content(tree) == before
    code = "import marshal, sys; print(marshal.loads(open(sys.argv[1], 'rb').read()[16:]).co_filename)"
    for path in tree.rglob("*.py"):
        (compiled,) = (path.parent / "__pycache__").glob(f"{path.stem}.cpython-*.pyc")
        assert compiled.read_bytes()[4:8] == bytes(4), "not validated by time"
        done = subprocess.run(["/usr/bin/python3", "-c", code, compiled], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(path)


@pytest.mark.parametrize("umask", [0o000, 0o077])
@pytest.mark.row("interpreter")
def test_owner_and_mode_do_not_depend_on_the_caller(site: Site, umask: int) -> None:
    for path in site.source.rglob("*"):
        os.chown(path, NOBODY, NOBODY)
        path.chmod(0o6777 if path.is_dir() or path.name == "launch.py" else 0o600)
    (site.source / "install.sh").chmod(0o755)
    site.run(umask=umask)
    site.assert_works()
    for path in (site.bin, site.lib, *site.bin.rglob("*"), *site.lib.rglob("*")):
        info = path.lstat()
        executable = path.is_dir() or path.parent == site.bin
        assert (info.st_uid, info.st_gid) == (0, 0), path
        assert path.is_symlink() or stat.S_IMODE(info.st_mode) == (0o755 if executable else 0o644), path


def test_run_again_changes_nothing(site: Site) -> None:
    site.run()
    sources = list(site.tree().rglob("*.py"))
    before = {path: content(path) for path in sources}
    tree = site.tree()
    site.run()
    assert site.trees() == {tree} == {site.tree()}
    assert {path: content(path) for path in sources} == before
    assert site.leftovers() == []


def test_run_again_repairs(site: Site) -> None:
    """The damage of a power cut: an emptied module, an emptied compiled file, a lost one, wrong modes."""
    site.run()
    tree = site.tree()
    launch = tree / "shared" / "launch.py"
    launch.write_bytes(b"")
    (tree / "plugins" / "bridge.py").unlink()
    (tree / "plugins" / "stray.py").write_text("\n")
    (tree / "shared" / "cluster" / "manifests" / "access.yaml").write_text("")
    for path in tree.rglob("*.pyc"):
        path.write_bytes(path.read_bytes()[:20])
    launch.chmod(0o666)
    (site.bin / "bridge").write_text((site.bin / "bridge").read_text()[:-10])
    site.run()
    assert site.trees() == {tree}
    site.assert_works()
    assert launch.read_bytes() == (site.source / "shared" / "launch.py").read_bytes()
    assert stat.S_IMODE(launch.stat().st_mode) == 0o644
    assert not (tree / "plugins" / "stray.py").exists()
    assert (tree / "shared" / "cluster" / "manifests" / "access.yaml").read_text().startswith("#")


class Watcher(threading.Thread):
    """Repeats an observation beside the test, and keeps its complaints."""

    def __init__(self, observe: Callable[[], list[str]]) -> None:
        super().__init__()
        self.observe = observe
        self.stop = threading.Event()
        self.complaints: list[str] = []
        self.rounds = 0

    def run(self) -> None:
        while not self.stop.is_set():
            self.complaints += self.observe()
            self.rounds += 1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.join()


def calls_that_fail(paths: list[Path]) -> list[str]:
    answers = [version(path) for path in paths]
    return [done.stdout + done.stderr for done in answers if done.returncode or not done.stdout]


def launchers_not_whole(paths: list[Path]) -> list[str]:
    found = []
    for path in paths:
        try:
            with path.open() as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                last = file.read().rpartition("\n")[0].rpartition("\n")[2]
        except OSError as error:
            found.append(str(error))
        else:
            if mode != 0o755 or not last.startswith("main("):
                found.append(f"{path.name}: {mode:o} {last!r}")
    return found


def test_upgrade_under_calls(site: Site) -> None:
    """Every call during six upgrades succeeds, and each read of a launcher finds a whole one."""
    site.run()
    paths = [site.bin / name for name in site.names()]
    with Watcher(lambda: calls_that_fail(paths)) as calls, Watcher(lambda: launchers_not_whole(paths)) as looks:
        for number in range(6):
            site.change(f"release {number}")
            site.run()
    assert calls.complaints == [] and looks.complaints == []
    assert calls.rounds > 0 and looks.rounds > 0
    assert len(site.trees()) == 7


def test_superseded_trees_go_after_ten_minutes(site: Site) -> None:
    site.run()
    first = site.tree()
    site.change("second")
    site.run()
    second = site.tree()
    assert site.trees() == {first, second}
    assert (first / ".superseded").exists() and not (second / ".superseded").exists()

    not_long_ago, long_ago = time.time() - 500, time.time() - 601
    os.utime(first / ".superseded", (not_long_ago, not_long_ago))
    site.run()
    assert site.trees() == {first, second}
    os.utime(first / ".superseded", (long_ago, long_ago))
    site.change("third")
    site.run()
    third = site.tree()
    assert site.trees() == {second, third}

    # Back to the second, however old its stamp: a tree in use stays, and is no longer superseded.
    os.utime(second / ".superseded", (long_ago, long_ago))
    launch = site.source / "shared" / "launch.py"
    launch.write_text(launch.read_text().removesuffix("# third\n"))
    site.run()
    assert site.tree() == second
    assert site.trees() == {second, third}
    assert not (second / ".superseded").exists()
    site.assert_works()


def test_tree_of_another_bin_dir_stays(site: Site, tmp_path: Path) -> None:
    site.run()
    tree = site.tree()
    other = Site(site.source, tmp_path / "other", site.lib)
    site.change("newer")
    other.run()
    other.run()
    assert not (tree / ".superseded").exists()
    site.assert_works()
    (site.lib / "tools").mkdir()
    other.run("--uninstall")
    site.assert_works()
    assert site.trees() == {tree, site.lib / "tools"}
    assert (site.lib / "current").readlink() == Path(tree.name) and str(site.bin) in (
        site.lib / ".bin-dirs"
    ).read_text()
    site.run("--uninstall")
    assert not site.lib.exists()


def test_executable_that_is_no_longer_part_goes(site: Site) -> None:
    """Its text names no plugin of this release; that of 0.1.0 names no plugin at all."""
    site.run()
    text = (site.bin / "bridge").read_text()
    for name, plugin in (
        ("former", "former;"),
        ("cnv-former", "former;"),
        ("old", "the plugin is chosen by this file's name;"),
    ):
        (site.bin / name).write_text(text.replace("launcher: bridge;", f"launcher: {plugin}"))
        (site.bin / name).chmod(0o755)
    said = site.run().stdout
    assert all(
        f"removed {site.bin}/{name}, no longer part of this installation" in said
        for name in ("former", "cnv-former", "old")
    )
    assert {path.name for path in site.bin.iterdir()} == site.names()


def aliases(site: Site) -> dict[str, str]:
    """Create an administrator's links and copies; return the plugin of each."""
    (site.bin / "cnv-bridge").symlink_to("bridge")
    (site.bin / "absolute").symlink_to(site.bin / "tuning")
    shutil.copy(site.bin / "tuning", site.bin / "cnv-tuning")
    (site.bin / "my cnitool").hardlink_to(site.bin / "cnitool")
    return {"cnv-bridge": "bridge", "absolute": "tuning", "cnv-tuning": "tuning", "my cnitool": "cnitool"}


def test_links_and_copies_follow_an_upgrade(site: Site) -> None:
    site.run()
    made = aliases(site)
    first = site.tree()
    for release in ("second", "third"):
        site.change(release)
        said = site.run().stdout
        assert "removed" not in said and "cnv-tuning" in said and "my cnitool" in said
        assert {path.name for path in site.bin.iterdir()} == site.names() | made.keys()
        assert site.tree() != first  # of every launcher, copies included
        for name, plugin in made.items():
            assert (site.bin / name).read_text() == (site.bin / plugin).read_text()
            assert version(site.bin / name).returncode == 0
        assert (site.bin / "cnv-bridge").is_symlink() and not (site.bin / "cnv-tuning").is_symlink()
    assert (first / ".superseded").exists()


def test_a_copy_keeps_its_tree(site: Site, tmp_path: Path) -> None:
    """The copy is in a bin dir in which another run replaces nothing."""
    site.run()
    tree = site.tree()
    shutil.copy(site.bin / "bridge", site.bin / "cnv-bridge")
    other = Site(site.source, tmp_path / "other", site.lib)
    other.change("newer")
    for name in site.names():
        (site.bin / name).unlink()
    for _ in range(2):
        other.run()
        assert not (tree / ".superseded").exists()
    other.run("--uninstall")
    assert version(site.bin / "cnv-bridge").returncode == 0


def test_uninstall_takes_copies_and_names_links(site: Site) -> None:
    """A copy would be useless; a link is the administrator's, and works again after the next installation."""
    site.run()
    made = aliases(site)
    done = site.run("--uninstall")
    assert {path.name for path in site.bin.iterdir()} == {"cnv-bridge", "absolute"}
    assert all(f"leads nowhere now: {site.bin}/{name}\n" in done.stdout for name in ("cnv-bridge", "absolute"))
    assert not site.lib.exists()
    site.run()
    site.assert_works()
    assert version(site.bin / "cnv-bridge").returncode == 0 and "cnv-tuning" in made


def test_foreign_file_is_left_alone_and_named(site: Site, tmp_path: Path) -> None:
    site.bin.mkdir()
    target = tmp_path / "target"
    target.write_bytes(b"\x7fELF\x00\x01\nanother bridge\n")
    (site.bin / "bridge").write_bytes(target.read_bytes())
    (site.bin / "loopback").symlink_to(target)
    (site.bin / "calico").write_text("not of this suite\n")
    before = content(site.bin)
    message = site.refused()
    assert str(site.bin / "bridge") in message and str(site.bin / "loopback") in message and "--force" in message
    assert "host-local" not in message and "calico" not in message
    assert content(site.bin) == before
    assert site.trees() == set() and site.leftovers() == []

    site.run("--force")
    site.assert_works()
    assert target.read_bytes() == b"\x7fELF\x00\x01\nanother bridge\n"
    assert (site.bin / "calico").read_text() == "not of this suite\n"


def test_foreign_file_keeps_an_older_installation_whole(site: Site) -> None:
    site.run()
    (site.bin / "bridge").unlink()
    (site.bin / "bridge").write_text("#!/bin/sh\nexit 3\n")
    before = content(site.bin, site.lib)
    site.change("newer")
    assert str(site.bin / "bridge") in site.refused()
    assert content(site.bin, site.lib) == before


def test_directory_in_the_way(site: Site) -> None:
    (site.bin / "bridge").mkdir(parents=True)
    assert "is a directory" in site.refused("--force")
    assert [path.name for path in site.bin.iterdir()] == ["bridge"]


def test_uninstall(site: Site, tmp_path: Path) -> None:
    site.run()
    site.change("newer")
    site.run()
    assert len(site.trees()) == 2
    (site.bin / "calico").write_text("not of this suite\n")
    (site.bin / "mine").symlink_to(tmp_path / "nowhere")
    (site.lib / "notes").write_text("somebody's\n")
    (site.lib / "data-0123456789ab").mkdir()
    done = site.run("--uninstall")
    assert "/var/lib/cni" in done.stdout and "bridge" in done.stdout
    assert {path.name for path in site.bin.iterdir()} == {"calico", "mine"}
    assert {path.name for path in site.lib.iterdir()} == {"notes", "data-0123456789ab"}

    site.run("--uninstall")
    site.run()
    site.assert_works()


def test_uninstall_leaves_nothing_of_its_own(site: Site) -> None:
    site.run("--uninstall")
    assert not site.bin.exists() and not site.lib.exists()
    site.run()
    site.run("--uninstall")
    assert list(site.bin.iterdir()) == []
    assert not site.lib.exists()


@pytest.mark.parametrize("shared_bin", [True, False])
def test_concurrent_runs_wait_for_each_other(tmp_path: Path, shared_bin: bool) -> None:
    """They install and remove at the same time, in one bin dir or in several with one lib dir."""
    sites = [make_site(tmp_path, f"source{number}") for number in range(4)]
    for number, site in enumerate(sites[1:]):
        site.change(f"release {number}")
        site.bin = site.bin if shared_bin else tmp_path / f"bin{number}"
    runs = [
        subprocess.Popen(site.argv(*options), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for site in sites
        for options in ([], ["--uninstall"], [])
    ]
    for run in runs:
        output, _ = run.communicate(timeout=120 * PATIENCE)
        assert run.returncode == 0, output
    for site in sites:
        site.run()
        site.assert_works()
    assert sites[0].tree() in sites[0].trees()
    assert sites[0].leftovers() == []


@pytest.mark.parametrize("whole_group", [True, False])
def test_killed_at_any_moment(site: Site, whole_group: bool) -> None:
    """After SIGKILL the earlier installation or the new one works, and the next run deletes the leftovers."""
    site.run()
    moments = random.Random(33522)
    begin = time.monotonic()
    site.run()
    duration = time.monotonic() - begin
    for number in range(15):
        site.change(f"release {number}")
        run = subprocess.Popen(
            site.argv(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(moments.uniform(0, duration * 1.2))
        if whole_group:
            os.killpg(run.pid, signal.SIGKILL)
        else:
            run.kill()
        run.wait()
        site.assert_works(whole=False)
        if number % 5 == 4:
            site.run()
            site.assert_works()
            assert site.leftovers() == []
            assert all((tree / "shared" / "launch.py").is_file() for tree in site.trees())


def test_terminated_run_cleans_up(site: Site) -> None:
    site.run()
    for delay in (0.05, 0.1, 0.15, 0.2):
        site.change(str(delay))
        run = subprocess.Popen(site.argv(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        run.terminate()
        run.wait()
        site.assert_works()
        assert site.leftovers() == []


def test_only_coreutils_util_linux_and_python(site: Site, small_path: Path) -> None:
    def run(*options: str) -> None:
        subprocess.run(
            ["/bin/bash", *site.argv(*options)], env={"PATH": str(small_path)}, check=True, timeout=120 * PATIENCE
        )

    run()
    run("--force")
    site.assert_works()
    run("--uninstall")
    assert not site.lib.exists()


def test_path_may_be_unset(site: Site) -> None:
    subprocess.run(["/bin/bash", *site.argv()], env={}, check=True, timeout=120 * PATIENCE)
    site.assert_works()


def test_default_directories(site: Site) -> None:
    done = in_mounts(
        'mount -t tmpfs tmpfs /opt; "$1"; ls /opt/cni/lib/pycni; '
        'CNI_COMMAND=VERSION /opt/cni/bin/bridge <<<\'{"cniVersion": "1.0.0"}\'; '
        '"$1" --uninstall; ls -A /opt/cni/bin /opt/cni/lib',
        site.source / "install.sh",
    )
    assert done.returncode == 0, done.stderr
    assert "supportedVersions" in done.stdout
    assert done.stdout.endswith("/opt/cni/bin:\n\n/opt/cni/lib:\n"), done.stdout


def test_space_in_every_path(tmp_path: Path) -> None:
    directory = tmp_path / "with $HOME `id` 'and' more"
    directory.mkdir()
    site = make_site(directory)
    site.run()
    site.assert_works()
    assert site.trees() == {site.tree()}
    site.change("newer")
    site.run()
    assert len(site.trees()) == 2 and (site.trees() - {site.tree()}).pop().joinpath(".superseded").exists()
    site.run("--uninstall")
    assert not site.lib.exists()


def test_relative_paths_become_absolute(site: Site, tmp_path: Path) -> None:
    subprocess.run(
        [site.source / "install.sh", "--bin-dir", "bin/", "--lib-dir", "./x/../lib/"],
        cwd=tmp_path,
        check=True,
        timeout=120 * PATIENCE,
    )
    site.assert_works()
    assert site.trees() == {site.tree()}


@pytest.mark.parametrize("option", ["--bin-dir", "--lib-dir"])
@pytest.mark.parametrize("name", ["new\nline", 'qu"ote', "back\\slash", "t\tab", "umlaut-ü"])
def test_path_that_no_launcher_can_name(site: Site, tmp_path: Path, option: str, name: str) -> None:
    assert option in site.refused(option, str(tmp_path / name), status=2)
    assert not (tmp_path / name).exists() and not site.bin.exists() and not site.lib.exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--bin-dir"],
        ["--bin-dir", ""],
        ["--lib-dir", "/"],
        ["--nonsense"],
        ["extra"],
        ["--demo", "--uninstall"],
        ["--agent", "--uninstall"],
        ["--dhcp", "--uninstall"],
        ["--python", "python3"],
    ],
)
def test_wrong_usage(site: Site, options: list[str]) -> None:
    site.refused(*options, status=2)
    assert not site.bin.exists() and not site.lib.exists()


def test_directories_within_each_other(site: Site) -> None:
    site.refused("--lib-dir", str(site.bin), status=2)
    site.refused("--lib-dir", str(site.bin / "lib"), status=2)
    assert not site.bin.exists()


def test_help_names_every_option_and_default(site: Site) -> None:
    done = site.run("--help")
    for word in (
        "--bin-dir",
        "--lib-dir",
        "--python",
        "--demo",
        "--agent",
        "--no-agent",
        "--dhcp",
        "--no-dhcp",
        "--uninstall",
        "--forget-node",
        "--force",
        "--help",
        "/opt/cni/bin",
        "/opt/cni/lib/pycni",
    ):
        assert word in done.stdout
    assert not site.bin.exists() and not site.lib.exists()


@pytest.fixture
def open_source() -> Iterator[Path]:
    """Return a copy of the source that everyone can read."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield make_site(Path(directory)).source


def test_not_root(open_source: Path) -> None:
    setpriv = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    done = subprocess.run(
        [*setpriv, open_source / "install.sh"], capture_output=True, text=True, cwd="/", timeout=60 * PATIENCE
    )
    assert "root" in sentence(done)


@pytest.mark.parametrize("which", ["bin", "lib"])
def test_read_only_target(site: Site, which: str) -> None:
    (site.bin if which == "bin" else site.lib).mkdir()
    done = in_mounts(
        'mount -t tmpfs -o ro,mode=755 tmpfs "$1"; shift; "$@"', site.bin if which == "bin" else site.lib, *site.argv()
    )
    message = sentence(done)
    assert str(site.bin if which == "bin" else site.lib) in message and "Read-only file system" in message
    assert site.leftovers() == []


def test_read_only_parent(site: Site, tmp_path: Path) -> None:
    done = in_mounts(
        'mkdir "$1"; mount -t tmpfs -o ro,mode=755 tmpfs "$1"; shift; "$@"',
        tmp_path / "ro",
        *site.argv("--lib-dir", f"{tmp_path}/ro/lib"),
    )
    assert "Read-only file system" in sentence(done)


def test_no_space(site: Site) -> None:
    site.lib.mkdir()
    done = in_mounts(
        'mount -t tmpfs -o size=16k,mode=755 tmpfs "$1"; rc=0; "${@:2}" || rc=$?; ls -A "$1" >&2; exit $rc',
        site.lib,
        *site.argv(),
    )
    assert "No space left on device" in sentence(done)
    assert list(site.bin.iterdir()) == []


def test_no_exec(site: Site) -> None:
    site.bin.mkdir()
    done = in_mounts(
        'mount -t tmpfs -o noexec,mode=755 tmpfs "$1"; rc=0; "${@:2}" || rc=$?; ls -A "$1" >&2; exit $rc',
        site.bin,
        *site.argv(),
    )
    assert "nothing is installed" in sentence(done)
    assert site.trees() == set() and site.leftovers() == []


def test_tree_that_does_not_start_replaces_nothing(site: Site) -> None:
    site.run()
    before = content(site.bin), site.trees()
    (site.source / "plugins" / "loopback.py").write_text("import no_such_module\n")
    assert "no_such_module" in site.refused()
    assert (content(site.bin), site.trees()) == before
    (site.source / "plugins" / "loopback.py").write_text("def\n")
    site.refused()
    assert (content(site.bin), site.trees()) == before
    (site.source / "plugins" / "loopback.py").write_text("\n")
    with (site.source / "shared" / "launch.py").open("a") as file:
        file.write("\n\ndef main(tree, name, plugins):\n    raise SystemExit('does not serve')\n")
    assert "does not serve" in site.refused()
    assert (content(site.bin), site.trees()) == before
    assert site.leftovers() == []


@pytest.mark.parametrize("which", ["bin", "lib"])
@pytest.mark.parametrize("flaw", ["link", "group", "world", "sticky", "owner", "parent-world", "parent-owner", "file"])
@pytest.mark.row("interpreter")
def test_target_that_others_could_change(site: Site, tmp_path: Path, which: str, flaw: str) -> None:
    parent = tmp_path / "parent"
    target = parent / "target"
    target.mkdir(parents=True)
    match flaw:
        case "link":
            target.rename(parent / "real")
            target.symlink_to(parent / "real")
        case "file":
            target.rmdir()
            target.write_text("")
        case "owner":
            os.chown(target, NOBODY, 0)
        case "parent-owner":
            os.chown(parent, NOBODY, 0)
        case "parent-world":
            parent.chmod(0o777)
        case _:
            target.chmod({"group": 0o775, "world": 0o757, "sticky": 0o1777}[flaw])
    site.refused(f"--{which}-dir", str(target))
    assert not target.is_dir() or list(target.iterdir()) == []


def test_python_missing_or_too_old(site: Site, small_path: Path, tmp_path: Path) -> None:
    assert "no such executable" in site.refused("--python", str(tmp_path / "python3"))
    (tmp_path / "python3").write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    assert "out of order" in site.refused("--python", str(tmp_path / "python3"))
    assert "cannot use /bin/true: " in site.refused("--python", "/bin/true")

    hide = '[[ ! -e /usr/bin/python3 ]] || mount --bind /dev/null "$(realpath /usr/bin/python3)"; PATH=$1; shift; "$@"'
    done = in_mounts(hide, small_path, "bash", *site.argv())
    assert "3.9" in sentence(done)
    assert not site.bin.exists() and not site.lib.exists()


def test_python_on_path_when_the_system_has_none(site: Site, small_path: Path) -> None:
    found = {
        number: path for number, path in interpreters().items() if number >= OLDEST and not path.startswith("/usr/bin/")
    }
    if not found:
        pytest.skip("no usable Python outside /usr/bin on this machine")
    number, path = min(found.items())
    shim = small_path / f"python3.{number[1]}"
    shim.write_text(f'#!/bin/sh\nexec {path} "$@"\n')  # as a version manager's
    shim.chmod(0o755)
    hide = '[[ ! -e /usr/bin/python3 ]] || mount --bind /dev/null "$(realpath /usr/bin/python3)"; PATH=$1; shift; "$@"'
    done = in_mounts(hide, small_path, "bash", *site.argv())
    assert done.returncode == 0, done.stderr
    first_line = (site.bin / "bridge").read_text().splitlines()[0]
    assert str(shim) not in first_line and interpreter_version(first_line.removeprefix("#!").split()[0]) == number


def test_python_that_is_a_shell_script(site: Site, tmp_path: Path) -> None:
    shim = tmp_path / "python3"
    shim.write_text('#!/bin/sh\nexec /usr/bin/python3 "$@"\n')
    shim.chmod(0o755)
    site.run("--python", str(shim))
    assert (site.bin / "bridge").read_text().startswith("#!/usr/bin/python3 -IS\n")


def test_old_python(site: Site) -> None:
    old = {number: path for number, path in interpreters().items() if number < OLDEST}
    if not old:
        pytest.skip("no Python too old on this machine")
    for number, path in old.items():
        assert f"Python 3.{number[1]}" in site.refused("--python", path)
    assert not site.bin.exists()


def test_cnitool_of_a_newer_python(site: Site, small_path: Path) -> None:
    """A Python that runs the plugins alone leaves cnitool to a newer one. Without that, cnitool names the version."""
    old = [path for number, path in interpreters().items() if OLDEST <= number < OLDEST_OF_TOOLS]
    if not old:
        pytest.skip("no Python that is too old for cnitool on this machine")
    for path in old:
        site.run("--python", path)
        assert (site.bin / "bridge").read_text().startswith(f"#!{path} -IS\n")
        assert version(site.bin / "cnitool").stdout.startswith("cnitool ")
        site.assert_works()
    hide = 'mount --bind /dev/null "$(realpath /usr/bin/python3)"; PATH=$1; shift; "$@"'
    done = in_mounts(hide, small_path, "bash", *site.argv("--python", old[0], "--demo"))
    assert done.returncode == 1 and "cnitool needs Python 3.11 or newer" in done.stdout, done
    assert "the plugins are installed, the demo needs Python 3.11" in done.stderr
    assert "needs Python 3.11 or newer" in version(site.bin / "cnitool").stderr
    assert version(site.bin / "bridge").returncode == 0


@pytest.mark.parametrize("name", ["white space", "long" * 30])
def test_python_path_that_no_first_line_can_hold(site: Site, tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/usr/bin/python3")
    site.refused("--python", str(tmp_path / name))
    assert not site.bin.exists()


def test_python_that_others_can_change_is_warned_of(site: Site, tmp_path: Path) -> None:
    python = tmp_path / "python3"
    shutil.copy2(os.path.realpath("/usr/bin/python3"), python)
    python.chmod(0o775)
    assert "warning" in site.run("--python", str(python), check=False).stderr


def test_python_upgraded_behind_the_same_path(site: Site, tmp_path: Path) -> None:
    found = {number: path for number, path in interpreters().items() if number >= OLDEST}
    if len(found) < 2:
        pytest.skip("only one usable Python on this machine")
    python = tmp_path / "python"
    python.symlink_to(min(found.items())[1])
    site.run("--python", str(python))
    assert (site.bin / "bridge").read_text().startswith(f"#!{python} -IS\n")
    for _number, path in sorted(found.items()):
        python.unlink()
        python.symlink_to(path)
        for name in site.names():
            done = version(site.bin / name, umask=0)
            assert done.returncode == 0, done.stderr
        site.assert_works()
        for file in site.tree().rglob("*"):
            assert stat.S_IMODE(file.stat().st_mode) == (0o755 if file.is_dir() else 0o644), file
    site.run("--python", str(python))
    site.assert_works()


def test_demo_is_started_on_the_new_installation(site: Site) -> None:
    (site.source / "shared" / "cli" / "demo" / "command.py").write_text(
        "import sys\nprint('demo', __file__, *sys.argv[1:], sys.flags.isolated)\nraise SystemExit(7)\n"
    )
    done = site.run("--demo", check=False)
    assert done.returncode == 7
    assert done.stdout.splitlines()[-1] == f"demo {site.tree()}/shared/cli/demo/command.py --bin-dir {site.bin} 1"
    site.assert_works()
