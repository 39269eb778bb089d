"""The bundle: its form, and its Python on systems that have nothing for it, or something else."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest
from artifacts.bundle import APPLETS

from shared.build.interpreter import PLACEHOLDER
from tests.packaging.bundles import PLACE, archive, python, unpack
from tests.packaging.conftest import EPOCH
from tests.systems import SystemHost

# The kernel's files, the operator's settings for names, OpenSSL's, and libc's data of languages: docs/how-to/bundle.md.
OPENED = re.compile(
    r"/(proc|sys|dev)/"
    r"|/etc/(ld\.so\.preload|localtime|nsswitch\.conf|passwd|hosts|host\.conf|resolv\.conf|gai\.conf|services)$"
    r"|/usr/lib/ssl/openssl\.cnf$"
    r"|/usr/lib/locale/|/usr/share/locale/locale\.alias$|/usr/lib/[^/]+/gconv/gconv-modules\.cache$"
)
FACTS = """
import ctypes, hashlib, json, os, pwd, socket, ssl, sys, threading, time
assert sys.prefix == sys.exec_prefix == "{place}/python", sys.prefix
assert all(path.startswith("{place}/python/lib") for path in sys.path), sys.path
assert hashlib.blake2b(b"pycni", digest_size=16).hexdigest() == "709839abe1cce1223034d9b5461ddcb7"
assert hashlib.new("sha256", b"").hexdigest().startswith("e3b0c442")
assert ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).check_hostname
assert ctypes.CDLL(None, use_errno=True).getpid() == os.getpid()
assert socket.getaddrinfo("127.0.0.1", 80)
for module in (json, ssl, socket, threading):
    assert module.__cached__.endswith("cpython-311.pyc") and os.path.exists(module.__cached__)
try:
    pwd.getpwnam("nobody")
    socket.getaddrinfo("no.such.name.invalid", 80)
except (KeyError, OSError):
    pass
# libc loads libgcc_s when Python's end stops this thread, and aborts without it.
threading.Thread(target=lambda: [time.sleep(0.001) for _ in range(9999)], daemon=True).start()
time.sleep(0.01)
print("done")
"""
IMPORTS = """
import importlib, os, sys
sys.path[:0] = [{place!r}, *sys.argv[1:]]
LEFT_OUT = {{"shared.build.library"}}  # a part of setuptools' build of the library
failed = []
for top in ("plugins", "ipam", "shared"):
    for directory, _, files in os.walk({place!r} + "/" + top):
        for file in files:
            name = os.path.relpath(directory + "/" + file[:-3], {place!r}).replace("/", ".")
            if file.endswith(".py") and name not in LEFT_OUT:
                try:
                    importlib.import_module(name.removesuffix(".__init__"))
                except Exception as error:
                    failed.append(f"{{name}}: {{error!r}}")
print(*failed, sep="\\n", end="")
"""


@pytest.fixture(scope="session")
def bundle(artefacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the unpacked bundle for amd64, which nobody may change."""
    return unpack(artefacts, "amd64", tmp_path_factory.mktemp("bundle"))


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_the_archive_depends_on_nothing_but_its_content(architecture: str, request: pytest.FixtureRequest) -> None:
    artefacts = request.getfixturevalue("artefacts" if architecture == "amd64" else "artefacts_of_arm64")
    file = archive(artefacts, architecture)
    assert struct.unpack_from("<HBBI", file.read_bytes()[:8]) == (0x8B1F, 8, 0, 0)  # gzip, without a name and a time
    with tarfile.open(file) as tar:
        entries = tar.getmembers()
    names = [entry.name.split("/") for entry in entries]
    assert names == sorted(names) and {name[0] for name in names} == {file.name.removesuffix(".tar.gz")}
    assert {(entry.uid, entry.gid, entry.mtime) for entry in entries} == {(0, 0, int(EPOCH))}
    assert {entry.mode for entry in entries if not entry.issym()} == {0o755, 0o644}
    assert not [entry.name for entry in entries if not (entry.isfile() or entry.isdir() or entry.issym())]


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_the_python_is_whole_and_has_a_place_for_its_loader(
    architecture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Its libraries are all beside it, and no other file names a directory of libraries."""
    artefacts = request.getfixturevalue("artefacts" if architecture == "amd64" else "artefacts_of_arm64")
    top = unpack(artefacts, architecture, tmp_path)
    program = top / "python/bin/python3"
    assert program.read_bytes().count(PLACEHOLDER.encode() + b"\0") == 1
    assert not [path for path in (top / "python").rglob("*") if path.is_symlink()]
    libraries = {path.name for path in (top / "python/lib").iterdir() if path.is_file()}
    assert len([name for name in libraries if name.startswith("ld-linux-")]) == 1
    for path in (program, *(path for path in (top / "python/lib").rglob("*.so*"))):
        shown = subprocess.run(
            ["readelf", "--dynamic", "--wide", path], capture_output=True, text=True, check=True
        ).stdout
        assert set(re.findall(r"\(NEEDED\).*\[(.+)\]", shown)) <= libraries, path
        wanted = ["RPATH", "$ORIGIN/../lib"] if path == program else []
        assert [word for pair in re.findall(r"\((RU?N?PATH)\).*\[(.+)\]", shown) for word in pair] == wanted, path


def test_the_programs_are_all_there(bundle: Path) -> None:
    listed = subprocess.run([bundle / "programs/busybox", "--list"], capture_output=True, text=True, check=True).stdout
    assert set(APPLETS) <= set(listed.split())
    links = {path.name: str(path.readlink()) for path in (bundle / "programs").iterdir() if path.is_symlink()}
    assert links == dict.fromkeys(APPLETS, "busybox")


@pytest.mark.parametrize("system", ["bare", "alpine", "trixie", "bullseye"])
def test_the_python_starts_on_any_system(system: str, bundle: Path) -> None:
    """The system's libc is none, another, a newer and an older one, and its variables are for another Python."""
    env = {"PYTHONHOME": "/usr", "PYTHONPATH": "/usr/lib/python3/dist-packages", "LC_ALL": "de_DE.ISO-8859-1"}
    with SystemHost(system, shares={PLACE: bundle}) as host:
        done = host.run(*python(), "-c", FACTS.format(place=PLACE), env=env)
        assert (done.stdout, done.stderr) == ("done\n", "")


def test_the_python_opens_nothing_of_the_system(bundle: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    words = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=open,openat,execve", "-e", "status=successful"]
    script = FACTS.format(place=bundle)
    env = {"LANG": "C.UTF-8"}
    subprocess.run([*words, *python(bundle), "-c", script], capture_output=True, check=True, env=env)
    names = set(re.findall(r'(?:open|execve)(?:at)?\((?:AT_FDCWD, )?"([^"]+)"', trace.read_text()))
    opened = {os.path.normpath(name) for name in names}
    assert f"{bundle}/python/lib/libcrypto.so.3" in opened
    assert [name for name in sorted(opened) if not name.startswith(f"{bundle}/") and not OPENED.match(name)] == []


def test_garbled_data_of_languages_does_no_harm(bundle: Path) -> None:
    """The system's libc may have another form of them."""
    with SystemHost("bare", shares={PLACE: bundle}) as host:
        for name in ("locale/C.utf8/LC_CTYPE", "locale/locale-archive", "x86_64-linux-gnu/gconv/gconv-modules.cache"):
            path = host.root / "usr/lib" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"garbled" * 9999)
        done = host.run(*python(), "-c", FACTS.format(place=PLACE), env={"LANG": "C.UTF-8"})
        assert (done.stdout, done.stderr) == ("done\n", "")


def test_compiled_files_are_not_compared_with_their_sources(bundle: Path, tmp_path: Path) -> None:
    """A start reads one file per module, whatever time an archive's program gave the source."""
    shutil.copytree(bundle / "python", tmp_path / "python")
    (tmp_path / "python/lib/python3.11/json/__init__.py").write_text("raise SystemExit('the source was read')")
    subprocess.run([*python(tmp_path), "-c", "import json"], check=True)


def test_each_module_can_be_imported(bundle: Path, tmp_path: Path) -> None:
    """The plugins' and those of the operator tier, with the tools' libraries of the bundle."""
    for file in (bundle / "wheels").glob("*.whl"):
        shutil.unpack_archive(file, tmp_path, "zip")
    (sources,) = (bundle / "wheels").glob("*.tar.gz")
    subprocess.run(["tar", "-xzf", sources, "-C", tmp_path], check=True)
    (package,) = tmp_path.glob("argparse_manpage-*/argparse_manpage")
    package.rename(tmp_path / package.name)
    with SystemHost("bare", shares={PLACE: bundle, "/libraries": tmp_path}) as host:
        done = host.run(*python(), "-c", IMPORTS.format(place=PLACE), "/libraries", timeout=120)
        assert (done.stdout, done.stderr) == ("", "")
