"""The bundle: the suite with all that a node needs to install it, a Python and a few programs included."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from artifacts import debian, python, sbom, wheels
from artifacts.archives import write_tar_gz
from artifacts.contents import Contents
from artifacts.context import Architecture, Context

SOURCES = ("install.sh", "pyproject.toml", "LICENSE", "README.md", "plugins", "ipam", "shared")
# The applets of busybox that install.sh calls; Debian's busybox-static has them all.
APPLETS = re.findall(
    r"\w+",
    """
    basename cat chmod chown cp cut date dirname env grep ln ls mkdir mktemp mv
    readlink rm rmdir sleep sort stat sync tail touch tr uname
    """,
)
INSTALL = b"""#!/bin/sh
# Installs this bundle, `./install --help` says how. It needs nothing of the system but a shell.
case $0 in */*) here=${0%/*} ;; *) here=. ;; esac
here=$(cd -- "$here" && pwd) || exit
PATH="$here/programs:$PATH" exec "$here/programs/bash" "$here/install.sh" "$@"
"""


def add_suite(contents: Contents, context: Context, architecture: Architecture) -> None:
    """Add the source and the compiled launcher."""
    source = context.source()
    for part in SOURCES:
        for path in sorted((source / part).rglob("*")) or [source / part]:
            if path.is_file():
                is_executable = bool(path.stat().st_mode & 0o100)
                contents.copy(path, str(path.relative_to(source)), sbom.SUITE, is_executable=is_executable)
    launcher = f"shared/launcher-{architecture.machine}"
    contents.copy(context.launcher(architecture), launcher, sbom.SUITE, is_executable=True)


def add_programs(contents: Contents, packages: dict[str, debian.Package]) -> None:
    """Add the shell and busybox, which need no libraries."""
    contents.copy(packages["bash-static"].files / "bin/bash-static", "programs/bash", "bash-static", is_executable=True)
    contents.copy(
        packages["busybox-static"].files / "bin/busybox", "programs/busybox", "busybox-static", is_executable=True
    )
    for name in APPLETS:
        contents.link(f"programs/{name}", "busybox", "busybox-static")


def add_libraries(contents: Contents, context: Context, libraries: list[wheels.Library]) -> None:
    """Add the tools' libraries and their licences."""
    for library in libraries:
        contents.copy(library.file, f"wheels/{library.file.name}", library.file.name)
        for name, text in library.texts.items():
            contents.write(f"licences/{library.name}/{name}", text, library.file.name)
    contents.copy(context.wheels() / "SHA256SUMS", "wheels/SHA256SUMS", sbom.SUITE)


def unpacked(context: Context, architecture: Architecture) -> Path:
    """Make the bundle's directory and return it."""
    packages = context.once(f"debian-{architecture.name}", lambda: debian.fetch(context, architecture))
    libraries = context.once("libraries", lambda: wheels.libraries(context))
    contents = Contents(context.work / f"pycni-{context.version}-linux-{architecture.name}")
    add_suite(contents, context, architecture)
    contents.write("install", INSTALL, sbom.SUITE, is_executable=True)
    python.add(contents, context, architecture, packages)
    add_programs(contents, packages)
    add_libraries(contents, context, libraries)
    for name, package in packages.items():
        contents.write(f"licences/{name}/copyright", package.copyright(), name)
    text = sbom.build(context, packages, libraries, contents.origins)
    contents.write("sbom.cdx.json", text.encode(), sbom.SUITE)
    return contents.top


def make(context: Context) -> list[Path]:
    """Write the bundles, and their lists of components beside them."""
    made = []
    for architecture in context.architectures:
        tree = context.bundle(architecture)
        archive, components = (context.output / f"{tree.name}{ending}" for ending in (".tar.gz", ".cdx.json"))
        write_tar_gz(tree, tree.name, archive, context.epoch)
        shutil.copyfile(tree / "sbom.cdx.json", components)
        made += [archive, components]
    return made
