"""The package managers, and the habits of the distributions that have them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from artifacts.context import BuildError

REFERENCE = "1.9.1"  # the release of the reference plugins that the suite stands in for
LICENCES = "/usr/share/licenses/{}/LICENSE"


@dataclass(frozen=True)
class Manager:
    """A package manager."""

    name: str
    bin_dir: str  # where the distributions have their plugins
    prereleases: dict[str, str]  # the manager's words for Python's
    relations: dict[str, list[str]]  # of pycni
    same: str  # the relation to pycni of the same version
    licence: str  # where a package's licence is
    scripts: dict[str, str]  # keys of nfpm's configuration, and the script of packaging/nfpm
    settings: dict[str, Any]  # more of nfpm's configuration
    has_ghosts: bool = False  # files that belong to the package and are not in it

    def version(self, version: str) -> str:
        """Return Python's version in the manager's order. Raise BuildError for a word that has no place in it."""
        match = re.fullmatch(r"([0-9.]*[0-9])(?:\.?([a-z]+)([0-9]+))?", version)
        if not match or (match[2] and match[2] not in self.prereleases):
            raise BuildError(f"no package can have the version {version}: 1.2.3, 1.2.3.dev4 and 1.2.3rc4 are possible")
        return match[1] + (self.prereleases[match[2]] + match[3] if match[2] else "")


MANAGERS = {
    one.name: one
    for one in (
        Manager(
            name="deb",
            bin_dir="/usr/lib/cni",
            prereleases={"dev": "~dev", "rc": "~rc"},
            relations={
                "depends": ["python3 (>= 3.9)"],  # bash, coreutils and util-linux are essential
                "provides": [f"containernetworking-plugins (= {REFERENCE})", "container-network-stack (= 1)"],
                "conflicts": ["containernetworking-plugins"],
                "replaces": ["containernetworking-plugins"],
            },
            same="pycni (= {version}-{release})",
            licence="/usr/share/doc/{}/copyright",
            scripts={
                "scripts.postinstall": "installed",
                "scripts.preremove": "removing",
                "scripts.postremove": "removed",
            },
            # Compiled code and the tools' libraries are for one minor version of Python.
            settings={"deb": {"triggers": {"interest_noawait": ["/usr/bin/python3"]}}},
        ),
        Manager(
            name="rpm",
            bin_dir="/usr/libexec/cni",
            prereleases={"dev": "~dev", "rc": "~rc"},
            # Not `replaces`, which are rpm's Obsoletes: an update of the system would exchange the plugins unasked.
            relations={
                "depends": ["python3 >= 3.9", "bash", "coreutils", "util-linux"],
                "provides": [f"containernetworking-plugins = {REFERENCE}", "container-network-stack = 1"],
                "conflicts": ["containernetworking-plugins"],
            },
            same="pycni = {version}-{release}",
            licence=LICENCES,
            # After the transaction the files of the former release are deleted: the source is this release's alone.
            scripts={
                "rpm.scripts.posttrans": "installed",
                "scripts.preremove": "removing",
                "scripts.postremove": "removed",
            },
            settings={"rpm": {"buildhost": "localhost"}},
            has_ghosts=True,
        ),
        Manager(
            name="apk",
            bin_dir="/usr/libexec/cni",
            prereleases={"dev": "_alpha", "rc": "_rc"},
            # apk installs one of the packages that provide a version of one name.
            relations={
                "depends": ["python3>=3.9", "bash", "coreutils", "util-linux"],
                "provides": [f"cni-plugins={REFERENCE}-r0"],
                "replaces": ["cni-plugins"],
            },
            same="pycni={version}-r{release}",
            licence=LICENCES,
            scripts={
                "scripts.postinstall": "installed",
                "apk.scripts.postupgrade": "installed",
                "scripts.preremove": "removing",
            },
            settings={},
        ),
    )
}
