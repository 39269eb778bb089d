"""Name the executables: each module of `plugins` and `ipam` is one.

A call does without this list: install.sh writes it into the launchers.
"""

from __future__ import annotations

from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
PACKAGES = ("ipam", "plugins")


def _find(package: str) -> list[str]:
    """Return the modules of a package, each with the package's name before it."""
    entries = (entry for entry in (TREE / package).iterdir() if not entry.stem.startswith((".", "_")))
    return [
        f"{package}.{entry.stem}" for entry in entries if entry.suffix == ".py" or (entry / "__init__.py").is_file()
    ]


# From an executable's name, `host-local`, to its module, `ipam.host_local`.
PLUGINS = dict(sorted(
    (module.rpartition(".")[2].replace("_", "-"), module) for package in PACKAGES for module in _find(package)
))  # fmt: skip
