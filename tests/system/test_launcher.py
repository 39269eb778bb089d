"""The launcher works under any name, and reports any failure to start a plugin as one error object."""

from __future__ import annotations

import json
import marshal
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.preload import digest
from tests.pretend import PretendHost
from tests.pythons import OLDEST, OLDEST_OF_TOOLS
from tests.system.test_install import Site, interpreters, make_site

VERSION = {"CNI_COMMAND": "VERSION"}
Place = tuple[int, int, bytes]  # length, offset, digest
BRIDGE: dict[str, Any] = {
    "cniVersion": "1.1.0", "name": "net", "type": "cnv-bridge", "bridge": "cni0",
    "ipam": {"type": "my-ipam", "subnet": "10.1.0.0/24"},
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = make_site(tmp_path_factory.mktemp("launcher"))
    site.run()
    return site


@pytest.fixture
def tree(site: Site) -> Iterator[Path]:
    """Yield the installed code for a test to damage; restore it afterwards."""
    tree = site.tree()
    whole = site.lib.parent / "whole"
    shutil.copytree(tree, whole)
    yield tree
    if tree.is_dir():
        shutil.rmtree(tree)
    else:
        tree.unlink(missing_ok=True)
    whole.rename(tree)


def bundle_of(tree: Path) -> Path:
    (bundle,) = tree.glob("bundle.*")
    return bundle


def places_in(bundle: Path) -> tuple[dict[str, Place], dict[str, Place]]:
    """Return the places of the runs, and of single modules."""
    content = bundle.read_bytes()
    _, runs, (length, offset, _), later, _ = marshal.loads(content[16 : 8 + int(content[:8])])  # noqa: S302
    return {**runs, **later}, marshal.loads(content[offset : offset + length])  # noqa: S302


def call(*argv: str | Path, env: dict[str, str] = VERSION, stdin: str = '{"cniVersion": "1.0.0"}') -> Any:
    return subprocess.run([*map(str, argv)], env=env, input=stdin, capture_output=True, text=True)


def assert_error(done: Any, *words: str, code: int = 999) -> None:
    """Assert one CNI error object on stdout, nothing else anywhere, exit status 1."""
    assert (done.returncode, done.stderr) == (1, ""), done
    answer = json.loads(done.stdout)
    assert set(answer) == {"cniVersion", "code", "msg", "details"} and answer["code"] == code, answer
    assert all(word in answer["msg"] + answer["details"] for word in ("run install.sh again", *words)), answer


def assert_works(site: Site, *names: str) -> None:
    for name in names or ("bridge", "host-local", "loopback"):
        done = call(site.bin / name)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert "1.0.0" in json.loads(done.stdout)["supportedVersions"]


# -- any name


@pytest.fixture
def bin_dir(installed: Path, tmp_path: Path) -> str:
    """Return a directory of links and copies, as OpenShift and KubeVirt make them."""
    (tmp_path / "cnv-bridge").symlink_to(installed / "bridge")
    shutil.copy(installed / "tuning", tmp_path / "cnv-tuning")
    shutil.copy(installed / "host-local", tmp_path / "my-ipam")
    shutil.copy(installed / "bridge", tmp_path / "bridge-copy")
    return str(tmp_path)


def test_life_under_another_name(host: PretendHost, bin_dir: str) -> None:
    """The same process calls the plugin and its IPAM plugin."""
    netns = host.netns("pod")
    trace = ("strace", "-f", "-qq", "-o", "/run/trace", "-e", "trace=execve")
    added = host.cni("cnv-bridge", "ADD", BRIDGE, netns=netns, bin_dir=bin_dir, prefix=trace)
    assert added.status == 0, added
    assert added.json["ips"][0]["address"] == "10.1.0.2/24"
    assert host.run("grep", "-c", "execve", "/run/trace").stdout.strip() == "1"
    tuned = {"cniVersion": "1.1.0", "name": "net", "type": "cnv-tuning", "mtu": 1400, "prevResult": added.json}
    assert host.cni("cnv-tuning", "ADD", tuned, netns=netns, bin_dir=bin_dir).status == 0
    assert host.ip("link", "show", "eth0", netns="pod")[0]["mtu"] == 1400
    for verb in ("CHECK", "DEL"):
        answer = host.cni("cnv-bridge", verb, {**BRIDGE, "prevResult": added.json}, netns=netns, bin_dir=bin_dir)
        assert answer.status == 0, answer
    assert [link["ifname"] for link in host.ip("link")] == ["lo", "cni0"]
    assert not [name for name in host.snapshot()["files"] if name.endswith("/10.1.0.2")]


@pytest.mark.parametrize("kind", ["bridge-copy", "cnv-bridge", "host-local"])
@pytest.mark.parametrize("verb", ["ADD", "DEL", "STATUS"])
def test_ipam_that_is_bridge_itself(host: PretendHost, bin_dir: str, kind: str, verb: str) -> None:
    """It is refused under any name, before anything is touched: it would call itself without end."""
    if kind == "host-local":
        shutil.copy(Path(bin_dir, "bridge-copy"), Path(bin_dir, "host-local"))
    netns = host.netns("pod")
    before = host.snapshot(["pod"])
    config = {**BRIDGE, "ipam": {"type": kind, "subnet": "10.1.0.0/24"}}
    answer = host.cni("cnv-bridge", verb, config, netns=netns, bin_dir=bin_dir)
    assert answer.code == 7 and f'"{kind}" is not an IPAM plugin' in answer.json["msg"], answer
    assert host.snapshot(["pod"]) == before


def test_ipam_of_another_installation_is_executed(host: PretendHost, site: Site, bin_dir: str) -> None:
    shutil.copy(site.bin / "host-local", Path(bin_dir, "my-ipam"))
    trace = ("strace", "-f", "-qq", "-o", "/run/trace", "-e", "trace=execve")
    added = host.cni("cnv-bridge", "ADD", BRIDGE, netns=host.netns("pod"), bin_dir=bin_dir, prefix=trace)
    assert added.status == 0, added
    assert "my-ipam" in host.run("cat", "/run/trace").stdout


def test_other_words_name_the_plugin_itself(host: PretendHost, bin_dir: str) -> None:
    """The log has the plugin's own name, and cnitool knows the keys of executables with other names."""
    config = {**BRIDGE, "brige": 1, "pycni": {"log": "/run/log"}}
    assert host.cni("cnv-bridge", "STATUS", config, bin_dir=bin_dir).status == 0
    assert json.loads(host.run("cat", "/run/log").stdout)["plugin"] == "bridge"
    host.run("tee", "/run/net.conf", input=json.dumps({**BRIDGE, "brige": 1, "ipam": {"type": "my-ipam", "subnt": 1}}))
    cnitool = f"{host.bin_dir}/cnitool"
    said = host.run(cnitool, "validate", "--bin-dir", bin_dir, "/run/net.conf", check=False).stdout
    assert "brige" in said and "ipam.subnt" in said and "not a plugin of this suite" not in said, said
    host.run("tee", "/run/net.conf", input=json.dumps({**BRIDGE, "ipam": {"type": "bridge-copy"}}))
    said = host.run(cnitool, "validate", "--bin-dir", bin_dir, "/run/net.conf", check=False).stdout
    assert '"bridge-copy" is not an IPAM plugin' in said, said


# -- faults that keep a plugin from starting


def without_bundle(tree: Path, path: str, text: str | None) -> None:
    """Replace a module, or remove it."""
    bundle_of(tree).unlink()
    if text is None:
        (tree / path).unlink()
    else:
        (tree / path).write_text(text)


def replaced(tree: Path) -> Path:
    shutil.rmtree(tree)
    return tree


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no tree": (shutil.rmtree, "ModuleNotFoundError"),
    "tree is a file": (lambda tree: replaced(tree).write_text(""), "ModuleNotFoundError"),
    "empty tree": (lambda tree: replaced(tree).mkdir(), "ModuleNotFoundError"),
    "no launch": (lambda tree: without_bundle(tree, "shared/launch.py", None), "shared.launch"),
    "syntax": (lambda tree: without_bundle(tree, "shared/launch.py", "def"), "SyntaxError"),
    "zeros": (lambda tree: without_bundle(tree, "shared/launch.py", "\0" * 4096), "null bytes"),
    "empty": (lambda tree: without_bundle(tree, "shared/launch.py", ""), "ImportError"),
    "memory": (lambda tree: without_bundle(tree, "shared/undo.py", "raise MemoryError"), "MemoryError"),
    "recursion": (lambda tree: without_bundle(tree, "shared/undo.py", "def f(): f()\nf()"), "RecursionError"),
    "exit": (lambda tree: without_bundle(tree, "shared/undo.py", "raise SystemExit(3)"), "SystemExit"),
    "interrupt": (lambda tree: without_bundle(tree, "shared/undo.py", "raise KeyboardInterrupt"), "KeyboardInterrupt"),
    "words": (lambda tree: without_bundle(tree, "shared/undo.py", "raise OSError('\"\\'\\\\ü\\n\\0\\ud800')"), "OSError"),
    "plugin": (lambda tree: without_bundle(tree, "plugins/bridge.py", "1/0"), ""),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_keeps_a_plugin_from_starting(site: Site, tree: Path, damage: str) -> None:
    do, word = DAMAGE[damage]
    do(tree)
    if damage == "plugin":  # found out when the call is served already
        done = call(site.bin / "bridge", env={"CNI_COMMAND": "STATUS", "CNI_PATH": "/"}, stdin=json.dumps(BRIDGE))
        assert (done.returncode, done.stderr, json.loads(done.stdout)["code"]) == (1, "", 999), done
        return
    assert_error(call(site.bin / "bridge"), word, "pycni bridge", str(tree))
    assert_error(call(site.bin / "host-local", env={"CNI_COMMAND": "STATUS"}), word, "pycni host-local", code=50)
    # Without stdout the error is lost; without the others it is the same.
    for closed, heard in (
        ("0<&-", True),
        ("2>&-", True),
        ("0<&- 2>&-", True),
        ("1>&-", False),
        ("0<&- 1>&- 2>&-", False),
    ):
        done = call("/bin/sh", "-c", f"exec {site.bin}/bridge {closed}")
        if heard:
            assert_error(done, word)
        else:
            assert (done.returncode, done.stdout, done.stderr) == (1, "", ""), (closed, done)


@pytest.mark.parametrize("damage", ["no tree", "syntax", "exit", "words"])
def test_cnitool_says_it_in_a_sentence(site: Site, tree: Path, damage: str) -> None:
    if damage == "no tree":
        shutil.rmtree(tree)
    else:
        text = {"syntax": "def", "exit": "raise ImportError('no')", "words": "raise OSError('\\ud800')"}[damage]
        (tree / "shared/cli/commands.py").write_text(text)
    done = call(site.bin / "cnitool", "version")
    assert done.returncode == 1 and done.stdout == "" and "Traceback" not in done.stderr
    assert done.stderr.startswith("cnitool cannot start: ") and "run install.sh again" in done.stderr


@pytest.mark.parametrize("module", ["_socket", "_json", "errno", "marshal", "_imp"])
def test_a_standard_library_in_part(site: Site, module: str) -> None:
    """The error names a missing module, unless the code has an alternative."""
    run = f"import sys; sys.modules[{module!r}] = None; sys.argv = sys.argv[1:]; exec(open(sys.argv[0]).read())"
    done = call("/usr/bin/python3", "-IS", "-c", run, site.bin / "bridge")
    if done.returncode:
        assert_error(done, module)


def test_older_pythons(site: Site) -> None:
    """Each can parse the launchers, which report that the Python is too old."""
    old = {number: path for number, path in interpreters().items() if number < OLDEST_OF_TOOLS}
    if not old:
        pytest.skip("no Python too old for cnitool on this machine")
    for number, path in old.items():
        release = ".".join(map(str, number))
        if number < OLDEST:
            assert_error(call(path, "-IS", site.bin / "bridge"), "needs Python 3.9 or newer", f"Python {release}")
        done = call(path, "-IS", site.bin / "cnitool", "version")
        assert done.returncode == 1 and "needs Python 3.11 or newer" in done.stderr and "Traceback" not in done.stderr


# -- a bundle that is garbled


def garbled(content: bytes, runs: dict[str, Place], modules: dict[str, Place]) -> Iterator[tuple[str, bytes]]:
    """Yield damaged variants of a bundle, each with its name."""
    chance = random.Random(33)
    head = 8 + int(content[:8])
    places = [*range(20), *(chance.randrange(20, head) for _ in range(20))]
    # a whole run is passed over for its modules, a garbled one of these for its source
    whole = bytearray(content)
    for _, offset, _ in (runs["bridge"], runs["loopback"]):
        whole[offset] ^= 1
    for name in ("shared.launch", "shared.cni", "plugins.bridge", "plugins.loopback", "shared.cni.plugin"):
        _, offset, _ = modules[name]
        yield f"runs and {name} flipped", bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
    for length, offset, _ in (runs["bridge"], runs["loopback"]):
        places += [offset, offset + length - 1, chance.randrange(offset, offset + length)]
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << chance.randrange(8)
        yield f"byte {place} flipped", bytes(flipped)
    for length in (0, 1, 7, 8, 9, 15, 16, 17, head - 1, head, head + 1, len(content) // 2, len(content) - 1):
        yield f"cut at {length}", content[:length]
    for start in (0, 4096, head, len(content) // 2):
        yield f"zeros from {start}", content[:start] + bytes(len(content) - start)
    yield "random", chance.randbytes(len(content))
    yield "a length beyond everything", b"99999999" + content[8:]
    yield "a negative length", b"-0000001" + content[8:]
    body = marshal.dumps(())
    yield "a head of another format", b"%08d" % (8 + len(body)) + bytes(8) + body


@pytest.mark.slow
def test_a_garbled_bundle_is_passed_over(site: Site, tree: Path) -> None:
    """The compiled files beside it, written with it, are skipped as well."""
    bundle = bundle_of(tree)
    content = bundle.read_bytes()
    cases = list(garbled(content, *places_in(bundle)))
    for number, path in enumerate(sorted(tree.rglob("*.pyc"))):
        data = path.read_bytes()
        path.write_bytes((data[:16] + b"\xe3" * 40, bytes(len(data)), data[:20], b"")[number % 4])
    for what, data in (*cases, ("lost", b"")):
        bundle.write_bytes(data)
        if what == "lost":
            bundle.unlink()
        for name in ("bridge", "loopback"):
            done = call(site.bin / name)
            assert (done.returncode, done.stderr) == (0, ""), (what, done)
    assert len(cases) > 65
    assert not list(tree.glob("none")) and {path.stat().st_size for path in tree.rglob("*.pyc")} > {0}


BUILD = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from shared.build import bundle
sys.stdout.buffer.write(bundle.build(pathlib.Path(sys.argv[1]), sys.argv[1]))
"""


def test_another_pythons_bundle_is_passed_over(site: Site, tree: Path) -> None:
    """It has this Python's name: the digests derive from the format of the compiled code as well."""
    mine = bundle_of(tree)
    others = [path for number, path in interpreters().items() if number >= OLDEST]
    others = [path for path in others if os.path.realpath(path) != os.path.realpath("/usr/bin/python3")]
    if not others:
        pytest.skip("only one usable Python on this machine")
    for path in others:
        done = subprocess.run([path, "-I", "-B", "-c", BUILD, tree], stdout=subprocess.PIPE, check=True)
        mine.write_bytes(done.stdout)
        assert_works(site)


def test_a_module_that_is_garbled_and_needed_late(site: Site, tree: Path, tmp_path: Path) -> None:
    """The module is not in the executable's fixed order; the call imports it."""
    bundle = bundle_of(tree)
    length, offset, _ = places_in(bundle)[1]["shared.cni.log"]
    with bundle.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(length))
    config = {**BRIDGE, "type": "loopback", "pycni": {"log": str(tmp_path / "log")}}
    done = call(site.bin / "loopback", env={"CNI_COMMAND": "STATUS", "CNI_PATH": "/"}, stdin=json.dumps(config))
    assert (done.returncode, done.stderr) == (0, ""), done
    assert json.loads((tmp_path / "log").read_text())["plugin"] == "loopback"


def test_the_digest_is_the_interpreters_own() -> None:
    """Any flipped bit changes it."""
    content = os.urandom(1000)
    assert digest(content) == digest(bytes(content)) and len(digest(content)) == 8
    assert all(digest(content[:n] + bytes([content[n] ^ 1]) + content[n + 1 :]) != digest(content) for n in range(1000))
