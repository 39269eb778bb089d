"""The packages pycni and pycni-tools for dpkg, rpm and apk, by nfpm.

A package brings the source, and its script runs install.sh there. So an upgrade is install.sh's own: no call fails.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from string import Template
from typing import Any

from artifacts import bundle, manual, wheels
from artifacts.contents import Contents
from artifacts.context import Architecture, Context
from artifacts.managers import MANAGERS, Manager

RELEASE = "1"  # of the packages; raise it if packages of the same version change
MAINTAINER = "pycni <pycni@pycni.invalid>"
# Each script runs packaging/nfpm/setup with this action.
SCRIPTS = {
    "pycni": {"installed": "", "removing": "remove", "removed": ""},
    "pycni-tools": {"installed": "tools", "removing": "unload"},
}
UNITS = ("agent/pycni-agent.service", "cli/dhcp/cni-dhcp.service", "cli/dhcp/cni-dhcp.socket")
UNIT_DIR = "/usr/lib/systemd/system"
PROGRAM = {"mode": 0o755}

Entries = list[dict[str, Any]]


def make(context: Context, *, kind: str) -> list[Path]:
    """Write the packages for a package manager: pycni for each architecture, and pycni-tools."""
    manager = MANAGERS[kind]
    made = [_pycni(context, manager, architecture) for architecture in context.architectures]
    return [*made, _tools(context, manager)]


def _pycni(context: Context, manager: Manager, architecture: Architecture) -> Path:
    stage = _stage(context, manager, "pycni", architecture.name)
    bundle.add_suite(Contents(stage / "source"), context, architecture)
    shutil.copytree(context.once("manual", lambda: manual.write(context)), stage, dirs_exist_ok=True)
    copyright_text = (context.source() / "packaging/nfpm/pycni.copyright").read_bytes()
    licence = copyright_text if manager.name == "deb" else (context.source() / "LICENSE").read_bytes()
    contents = [*_services(context, manager, stage), *_documents(context, manager, stage, licence)]
    if manager.has_ghosts:
        contents += [
            {"dst": f"{manager.bin_dir}/{name}", "type": "ghost", "file_info": PROGRAM}
            for name in manual.executables(context)
        ]
    return _package(context, manager, stage, contents, manager.relations, arch=architecture.name)


def _tools(context: Context, manager: Manager) -> Path:
    stage = _stage(context, manager, "pycni-tools", "all")
    shutil.copytree(context.wheels(), stage / "source/wheels")
    parts = []
    for library in context.once("libraries", lambda: wheels.libraries(context)):
        parts += [f"{library.name} {library.version}: {library.licence}\n".encode(), *library.texts.values()]
    contents = _documents(context, manager, stage, b"\n".join(parts))
    same = manager.same.format(version=manager.version(context.version), release=RELEASE)
    return _package(context, manager, stage, contents, {"depends": [same]}, arch="all")


def _stage(context: Context, manager: Manager, name: str, architecture: str) -> Path:
    """Return a directory with the package's scripts, and an empty directory for the source."""
    stage = context.work / f"{manager.name}-{architecture}" / name
    (stage / "source").mkdir(parents=True)
    for script, action in SCRIPTS[name].items():
        _fill(context, script, stage / script, action=action)
    for file in ("setup", "pycni-agent.json", "pycni-agent.openrc"):
        _fill(context, file, stage / file, bin_dir=manager.bin_dir)
    return stage


def _fill(context: Context, name: str, target: Path, **words: str) -> None:
    """Write a file of packaging/nfpm with each @word@ replaced."""
    text = (context.source() / "packaging/nfpm" / name).read_text()
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    target.write_text(text)


def _services(context: Context, manager: Manager, stage: Path) -> Entries:
    """Write the units with the path of the executables; return where the files of the services go."""
    if manager.name == "apk":
        return [{"src": str(stage / "pycni-agent.openrc"), "dst": "/etc/init.d/pycni-agent", "file_info": PROGRAM}]
    for unit in UNITS:
        path = context.source() / "shared" / unit
        (stage / path.name).write_text(path.read_text().replace("/opt/cni/bin", manager.bin_dir))
    names = [Path(unit).name for unit in UNITS]
    return [{"src": str(stage / name), "dst": f"{UNIT_DIR}/{name}"} for name in names]


def _documents(context: Context, manager: Manager, stage: Path, licence: bytes) -> Entries:
    """Write the licences, and for Debian its other documents; return where they go."""
    name = stage.name
    (stage / "licence").write_bytes(licence)
    entries: Entries = [{"src": str(stage / "licence"), "dst": manager.licence.format(name)}]
    if manager.name == "rpm":
        entries[0]["type"] = "license"
        entries.append({"dst": str(Path(entries[0]["dst"]).parent), "type": "dir"})
    if manager.name == "deb":
        version = f"{manager.version(context.version)}-{RELEASE}"
        text = f"{name} ({version}) unstable; urgency=medium\n\n  * Release {context.version}.\n\n"
        text += f" -- {MAINTAINER}  {formatdate(context.epoch)}\n"
        (stage / "changelog").write_bytes(gzip.compress(text.encode(), 9, mtime=0))
        _fill(context, f"{name}.lintian", stage / "lintian")
        entries += [
            {"src": str(stage / "changelog"), "dst": f"/usr/share/doc/{name}/changelog.Debian.gz"},
            {"src": str(stage / "lintian"), "dst": f"/usr/share/lintian/overrides/{name}"},
        ]
    return entries


def _package(
    context: Context, manager: Manager, stage: Path, entries: Entries, relations: dict[str, list[str]], *, arch: str
) -> Path:
    """Write nfpm's configuration, run nfpm, and return the package in the output directory."""
    for path in (stage, *stage.rglob("*")):
        os.utime(path, (context.epoch, context.epoch))
    configuration, made = (stage.with_name(f"{stage.name}{ending}") for ending in (".yaml", ".made"))
    template = Template((context.source() / "packaging/nfpm" / f"{stage.name}.yaml").read_text())
    text = template.substitute(
        arch=arch,
        bin_dir=manager.bin_dir,
        link=f"..{manager.bin_dir.removeprefix('/usr')}/cnitool",
        maintainer=MAINTAINER,
        release=f'"{RELEASE}"',
        stage=stage,
        time=datetime.fromtimestamp(context.epoch, UTC).strftime('"%Y-%m-%dT%H:%M:%SZ"'),
        version=manager.version(context.version),
    )
    if manager.name == "apk":  # its description is a line
        text = re.sub(r"(description: \|\n.*\n)(?:  .*\n)+", r"\1", text)
    # JSON is YAML, too.
    text += "".join(f"  - {json.dumps(entry)}\n" for entry in entries)
    text += "".join(f"{key}: {json.dumps(value)}\n" for key, value in (relations | _settings(manager, stage)).items())
    configuration.write_text(text)
    made.mkdir()
    nfpm = Path(sys.executable).with_name("nfpm")
    words = [str(nfpm), "package", "--config", str(configuration), "--packager", manager.name, "--target", f"{made}/"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(context.epoch)}
    subprocess.run(words, stdout=subprocess.DEVNULL, env=environment, check=True)
    (package,) = made.iterdir()
    return package.replace(context.output / package.name)


def _settings(manager: Manager, stage: Path) -> dict[str, Any]:
    """Return the manager's settings with the paths of the scripts that the package has."""
    settings: dict[str, Any] = json.loads(json.dumps(manager.settings))
    for key, script in manager.scripts.items():
        if (stage / script).exists():
            place = settings
            *outer, last = key.split(".")
            for word in outer:
                place = place.setdefault(word, {})
            place[last] = str(stage / script)
    return settings
