"""The container image: the unpacked bundle and its entry program, as an OCI layout in a tar.

The lower layer has the Python, the programs and the wheels, which seldom change. The upper one has the suite.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from artifacts.context import Architecture, Context
from shared.build import interpreter

TOP = "pycni"  # the bundle's directory in the image
PYTHON = f"{TOP}/python/bin/python3"
ENTRY_PROGRAM = Path(__file__).resolve().parents[1] / "image" / "container.py"
SUITE = ("install", "install.sh", "pyproject.toml", "README.md", "plugins", "ipam", "shared")  # of the upper layer
# The host's directory. It cannot be mounted: it must have mode 0700, and the kubelet makes directories of 0755.
RUN_LINK = ("run/pycni", "/proc/1/root/run/pycni")
MEDIA = "application/vnd.oci.image"


def make(context: Context) -> list[Path]:
    """Write an archive for each architecture. Return their paths."""
    made = []
    for architecture in context.architectures:
        target = context.output / f"pycni-{context.version}-image-linux-{architecture.name}.tar"
        write(context.bundle(architecture), architecture, target, context.epoch)
        made.append(target)
    return made


def write(bundle: Path, architecture: Architecture, target: Path, epoch: int) -> None:
    """Write the image of an unpacked bundle. `epoch`, in seconds, is the time of all files."""
    version = tomllib.loads((bundle / "pyproject.toml").read_text())["project"]["version"]
    layers = [
        _layer([*_skeleton(), *_entries(bundle, architecture, is_suite=False)], epoch),
        _layer([*_entries(bundle, architecture, is_suite=True), _entry_program()], epoch),
    ]
    created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    blobs = [gzip.compress(layer, 6, mtime=0) for layer in layers]
    config = {
        "created": created,
        "architecture": architecture.name,
        "os": "linux",
        "config": {
            "Entrypoint": [f"/{PYTHON}", "-IB", f"/{TOP}/{ENTRY_PROGRAM.name}"],
            "Env": [f"PATH=/{TOP}/programs"],
            "WorkingDir": "/",
            "User": "0:0",
            "Labels": {
                "org.opencontainers.image.title": "pycni",
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
        "history": [{"created": created, "comment": text} for text in ("Python, programs, wheels", "the suite")],
    }
    blobs.append(_document(config))
    described = [_described("layer.v1.tar+gzip", blob) for blob in blobs[:-1]]
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{MEDIA}.manifest.v1+json",
        "config": _described("config.v1+json", blobs[-1]),
        "layers": described,
    }
    blobs.append(_document(manifest))
    _write_layout(target, blobs, name(version), epoch)


def name(version: str) -> str:
    """Return the image's name in the archive."""
    return f"localhost/pycni:{version.replace('+', '-')}"


def _write_layout(target: Path, blobs: list[bytes], image: str, epoch: int) -> None:
    """Write the archive. The last blob is the manifest."""
    annotations = {"io.containerd.image.name": image, "org.opencontainers.image.ref.name": image}
    manifest = {**_described("manifest.v1+json", blobs[-1]), "annotations": annotations}
    index = {"schemaVersion": 2, "mediaType": f"{MEDIA}.index.v1+json", "manifests": [manifest]}
    files = {
        "oci-layout": _document({"imageLayoutVersion": "1.0.0"}),
        "index.json": _document(index),
        **{f"blobs/sha256/{_digest(blob).partition(':')[2]}": blob for blob in blobs},
    }
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in sorted(files.items()):
            _add(archive, _file(path, 0o644), content, epoch)


# A layer's entry: the header, and the content of a file.
Entry = tuple[tarfile.TarInfo, bytes]


def _layer(entries: Iterable[Entry], epoch: int) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for header, content in entries:
            _add(archive, header, content, epoch)
    return output.getvalue()


def _add(archive: tarfile.TarFile, header: tarfile.TarInfo, content: bytes, epoch: int) -> None:
    header.size, header.mtime = len(content), epoch
    archive.addfile(header, io.BytesIO(content))


def _file(path: str, mode: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(path)
    header.mode = mode
    return header


def _directory(path: str, mode: int = 0o755) -> tarfile.TarInfo:
    header = _file(path, mode)
    header.type = tarfile.DIRTYPE
    return header


def _link(path: str, target: str) -> tarfile.TarInfo:
    header = _file(path, 0o777)
    header.type, header.linkname = tarfile.SYMTYPE, target
    return header


def _skeleton() -> list[Entry]:
    """Return the entries beside the bundle."""
    directories = ("etc", "opt", "run", "var", "var/lib", TOP)
    headers = [_directory(path) for path in directories]
    headers += [_directory("tmp", 0o1777), _link("var/run", "/run"), _link(*RUN_LINK)]
    names = (("etc/passwd", b"root:x:0:0:root:/:/pycni/programs/bash\n"), ("etc/group", b"root:x:0:\n"))
    return [*((header, b"") for header in headers), *((_file(path, 0o644), content) for path, content in names)]


def _entry_program() -> Entry:
    return _file(f"{TOP}/{ENTRY_PROGRAM.name}", 0o644), ENTRY_PROGRAM.read_bytes()


def _entries(bundle: Path, architecture: Architecture, *, is_suite: bool) -> Iterable[Entry]:
    """Yield one layer's part of the bundle, with the Python's loader filled in."""
    for path in sorted(bundle.rglob("*")):
        relative = path.relative_to(bundle)
        if (relative.parts[0] in SUITE) != is_suite:
            continue
        inside = f"{TOP}/{relative}"
        if path.is_symlink():
            yield _link(inside, str(path.readlink())), b""
        elif path.is_dir():
            yield _directory(inside), b""
        else:
            content = path.read_bytes()
            if inside == PYTHON:
                content = interpreter.fill(content, f"/{TOP}/python/lib/{architecture.loader}")
            yield _file(inside, 0o755 if path.stat().st_mode & 0o100 else 0o644), content


def _document(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _described(kind: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": f"{MEDIA}.{kind}", "digest": _digest(blob), "size": len(blob)}
