"""A certificate authority for the tests' servers and clients, by openssl."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")


@dataclass(frozen=True)
class Authority:
    """A CA in a directory."""

    directory: Path
    name: str

    @property
    def certificate(self) -> Path:
        return self.directory / f"{self.name}.crt"

    @property
    def key(self) -> Path:
        return self.directory / f"{self.name}.key"

    def issue(
        self,
        name: str,
        hosts: Sequence[str] = ("127.0.0.1",),
        *,
        client: bool = False,
        groups: Sequence[str] = (),
        is_named: bool = True,
    ) -> tuple[Path, Path]:
        """Return the paths of a new certificate for a server of these hosts, or for a client, and of its key.

        Without `is_named` its subject is the groups alone, without a CommonName.
        """
        certificate, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        subject = "".join(f"/O={group}" for group in groups) + (f"/CN={name}" if is_named else "")
        # etcd's gateway is a client of its own server, with the server's certificate.
        uses = "clientAuth" if client else "serverAuth,clientAuth"
        extensions = [f"extendedKeyUsage={uses}", "basicConstraints=critical,CA:FALSE"]
        if not client:
            extensions.append("subjectAltName=" + ",".join(map(_alternative, hosts)))
        _openssl(subject, certificate, key, *("-CA", self.certificate, "-CAkey", self.key), extensions=extensions)
        return certificate, key


def make(directory: Path, name: str = "ca") -> Authority:
    """Make a CA in the directory."""
    authority = Authority(directory, name)
    extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"]
    _openssl(f"/CN={name}", authority.certificate, authority.key, extensions=extensions)
    return authority


def _openssl(subject: str, certificate: Path, key: Path, *more: object, extensions: Sequence[str]) -> None:
    # An empty configuration: the machine's own adds extensions of a CA to each certificate.
    argv = ["openssl", "req", "-config", "/dev/null", "-x509", "-days", "2", *KEY, "-subj", subject]
    argv += ["-out", str(certificate), "-keyout", str(key), *map(str, more)]
    argv += [part for extension in extensions for part in ("-addext", extension)]
    subprocess.run(argv, check=True, capture_output=True)


def _alternative(host: str) -> str:
    try:
        return f"IP:{ip_address(host)}"
    except ValueError:
        return f"DNS:{host}"
