"""Put the code into a tree of an installation. install.sh calls `build` with the Python that will run the plugins.

A tree is <lib-dir>/<version>-<digest of its files>. A new one is made in a stage and appears by one rename. An existing
one is repaired, each file by a rename, as calls may be reading it.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import re
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

from shared.build import bundle, interpreter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PARTS = ("plugins", "ipam", "shared")
KINDS = (".py", ".yaml")  # code, and manifests for Kubernetes
# An older Python does not know all words of cnitool's code, which it never executes.
OPERATORS = re.compile("/shared/(cli|cluster|runtime)/") if sys.version_info < (3, 11) else None
OWN = "python"  # the directory of a bundle's Python, which brings its compiled files
PROGRAM = "python/bin/python3"


def build(source: str, lib: str, stage: str, version: str, *, own: bool) -> Path:
    """Make or repair the tree, and return its path. `stage` has the file `launcher`; the tree's files pass through it.

    `own` takes the source's Python into the tree, as its interpreter. Raise SystemExit if a module cannot be compiled.
    """
    files = dict(_code(Path(source)))
    files["launcher"] = Path(stage, "launcher").read_bytes()
    digest = hashlib.sha256(version.encode())
    for name, content in files.items():
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    programs: set[str] = set()
    if own:
        python = dict(_python(Path(source), programs))
        for name, content in python.items():
            digest.update(f"\0{name}\0{name in programs:d}\0{len(content)}\0".encode() + content)
        files.update(python)
    final = Path(lib, f"{version}-{digest.hexdigest()[:12]}")
    if own:
        (loader,) = (name for name in files if re.fullmatch(rf"{OWN}/lib/ld-linux-[^/]*\.so\.\d+", name))
        files[PROGRAM] = interpreter.fill(files[PROGRAM], f"{final}/{loader}")
    moved = (sys.base_prefix, f"{final}/{OWN}") if own else ("", "")
    _fill(final if final.is_dir() else Path(stage, "tree"), final, Path(stage), files, programs, moved)
    return final


def _code(source: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file of the code.

    A Python at work in the source may replace its compiled files: pass them over.
    """
    for part in PARTS:
        found = []
        for directory, directories, names in os.walk(source / part):
            directories[:] = [name for name in directories if name != "__pycache__"]
            found += [path for name in names if (path := Path(directory, name)).suffix in KINDS and path.is_file()]
        for path in sorted(found):
            yield str(path.relative_to(source)), path.read_bytes()


def _python(source: Path, programs: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file of the source's Python; add the executable ones to `programs`."""
    for path in sorted((source / OWN).rglob("*")):
        if path.is_file():
            name, content = str(path.relative_to(source)), path.read_bytes()
            if path.stat().st_mode & 0o100:
                programs.add(name)
            # An image's names a loader already.
            yield name, interpreter.fill(content, interpreter.PLACEHOLDER) if name == PROGRAM else content


def _fill(
    tree: Path, final: Path, stage: Path, files: dict[str, bytes], programs: set[str], moved: tuple[str, str]
) -> None:
    """Give the tree its files, compiled, with owner and mode, and its name."""

    def put(content: bytes, target: Path) -> None:
        """Write a file whole. A new tree is put on the disk as one, later; a file that is replaced may be in use."""
        with open(stage / "file", "wb") as file:
            file.write(content)
            file.flush()
            if tree == final:
                os.fsync(file.fileno())
        os.replace(stage / "file", target)

    for name, content in files.items():
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink() or not target.is_file() or target.read_bytes() != content:
            put(content, target)
    for path in list(tree.rglob("*")):
        if _is_stray(path.relative_to(tree), files) and (path.is_symlink() or not path.is_dir()):
            path.unlink(missing_ok=True)
    _compile(tree, final)
    put(bundle.build(tree, str(final), moved), tree / f"bundle.{sys.implementation.cache_tag}")
    for path in (tree, *tree.rglob("*")):
        os.chown(path, 0, 0, follow_symlinks=False)
        path.chmod(0o755 if path.is_dir() or str(path.relative_to(tree)) in programs else 0o644)
    (tree / ".superseded").unlink(missing_ok=True)
    if tree != final:
        os.rename(tree, final)


def _is_stray(path: Path, files: dict[str, bytes]) -> bool:
    """Return True if a file, by its path in the tree, is none of the tree's."""
    if path.parts[0] == OWN or path.suffix in KINDS:
        return str(path) not in files
    return path.parent.name == "__pycache__" and path.suffix != ".pyc"


def _compile(tree: Path, final: Path) -> None:
    """Compile the code. The compiled files name the final path; otherwise each import would correct it.

    The environment must not choose the invalidation mode: comparing hashes would read every source file on every call.
    """
    for part in PARTS:
        if not compileall.compile_dir(
            tree / part, quiet=1, force=True, rx=OPERATORS, stripdir=str(tree), prependdir=str(final),
            invalidation_mode=PycInvalidationMode.TIMESTAMP,
        ):  # fmt: skip
            raise SystemExit("compiling failed")
