"""How to reach a Kubernetes API server and prove oneself: a pod's ServiceAccount, or a kubeconfig.

Files are read again for each connection and each request, so a rotated token, certificate or CA is used at once.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shared.cluster import plain_yaml
from shared.cluster.connection import Tls

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
JSON_HINT = "write it as JSON: kubectl config view --raw --minify --flatten -o json"


@dataclass(frozen=True)
class Source:
    """A secret or certificate: the path of a file, which is read anew for each use, or the content."""

    path: Path | None = None
    data: bytes = field(default=b"", repr=False)

    def __bool__(self) -> bool:
        return self.path is not None or bool(self.data)

    def read(self) -> bytes:
        """Return the content. Raise OSError if the file cannot be read."""
        return self.path.read_bytes() if self.path else self.data


@dataclass(frozen=True)
class Access:
    """One API server, and the credentials for it."""

    server: str  # https://HOST[:PORT][/PATH]
    ca: Source = Source()
    token: Source = Source()
    certificate: Source = Source()
    key: Source = Source()
    server_name: str = ""  # the name in the server's certificate, if it is not the host of `server`

    def __post_init__(self) -> None:
        """Raise ValueError for a URL that would send credentials in clear."""
        parts, shown = urlsplit(self.server), self.server.rpartition("@")[2][:80]  # the rest may have a password
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.username:
            raise ValueError(f"server {shown!r} is not https://HOST[:PORT][/PATH]")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise ValueError(f"server {shown!r}: http is for loopback addresses alone; use https")
        if bool(self.certificate) != bool(self.key):
            raise ValueError("client-certificate and client-key belong together: one of them is missing")

    def headers(self) -> dict[str, str]:
        """Return the header that proves who asks; empty with a client certificate alone."""
        if not self.token:
            return {}
        try:
            token = self.token.read().decode("ascii").strip()
        except UnicodeDecodeError:
            token = ""
        if not token or any(mark.isspace() for mark in token):
            raise ValueError(f"token file {self.token.path}: one line of ASCII characters is expected")
        return {"Authorization": f"Bearer {token}"}

    def tls(self) -> Tls:
        """Return the settings of TLS connections."""
        return _AccessTls(self)


class _AccessTls(Tls):
    """TLS as an Access describes it."""

    def __init__(self, access: Access) -> None:
        super().__init__(server_name=access.server_name)
        object.__setattr__(self, "_access", access)

    def context(self) -> ssl.SSLContext:
        access: Access = self.__dict__["_access"]
        # Not ssl.create_default_context: from Python 3.13 on it refuses CAs without an authority key identifier,
        # as clusters have them.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if access.ca:
            context.load_verify_locations(cadata=access.ca.read().decode("ascii", "replace"))
        else:
            context.load_default_certs()
        if access.certificate:
            with _as_file(access.certificate) as certificate, _as_file(access.key) as key:
                # An encrypted key would make OpenSSL ask the terminal.
                context.load_cert_chain(certificate, key, password="")
        return context


def in_cluster(
    server: str = "", *, directory: Path = SERVICE_ACCOUNT, environment: Mapping[str, str] = os.environ
) -> Access:
    """Return the access of a pod's ServiceAccount.

    `server` is the API server's own address: the service's address, the default, needs somebody to translate it.
    Raise ValueError outside of a pod.
    """
    if not server:
        host, port = (environment.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
        if not host or not port:
            raise ValueError("KUBERNETES_SERVICE_HOST and _PORT are not set: this is no pod; give server or kubeconfig")
        server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    for name in ("ca.crt", "token"):
        if not (directory / name).exists():
            raise ValueError(f"{directory / name} is missing: the pod needs a ServiceAccount with its token mounted")
    return Access(server, ca=Source(directory / "ca.crt"), token=Source(directory / "token"))


def from_kubeconfig(path: Path, *, context: str = "", server: str = "") -> Access:
    """Return the access of a kubeconfig's current context, or of the named one; `server` overrides its server.

    Raise ValueError, which names file and key.
    """
    try:
        document = plain_yaml.parse(path.read_text())
    except OSError as error:
        raise ValueError(f"kubeconfig {path}: {error.strerror}") from None
    except plain_yaml.Unreadable as error:
        raise ValueError(f"kubeconfig {path}: {error}; {JSON_HINT}") from None
    except UnicodeDecodeError:
        raise ValueError(f"kubeconfig {path}: is not UTF-8; {JSON_HINT}") from None
    try:
        return _Kubeconfig(document, path.absolute().parent).access(context, server)
    except ValueError as error:
        raise ValueError(f"kubeconfig {path}: {error}") from None


class _Kubeconfig:
    """A kubeconfig's content, and the directory that its relative paths begin in."""

    def __init__(self, document: object, directory: Path) -> None:
        if not isinstance(document, dict):
            raise ValueError("a mapping with clusters, users and contexts is expected")
        self.document, self.directory = document, directory

    def access(self, context: str, server: str) -> Access:
        name = context or self.document.get("current-context")
        if not isinstance(name, str) or not name:
            raise ValueError("current-context is not set; name a context")
        chosen = self._named("contexts", "context", name)
        cluster = self._named("clusters", "cluster", chosen.get("cluster"))
        user = self._named("users", "user", chosen.get("user"))
        _refuse(cluster, user)
        return Access(
            server or _text(cluster, "server"),
            ca=self._source(cluster, "certificate-authority"),
            token=Source(data=_text(user, "token").encode()) if user.get("token") else self._file(user, "tokenFile"),
            certificate=self._source(user, "client-certificate"),
            key=self._source(user, "client-key"),
            server_name=_text(cluster, "tls-server-name"),
        )

    def _named(self, many: str, one: str, name: object) -> dict[str, Any]:
        entries = self.document.get(many)
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(one), dict):
                return dict(entry[one])
        raise ValueError(f"{many} has no entry {str(name)[:60]!r}")

    def _file(self, where: Mapping[str, Any], key: str) -> Source:
        text = _text(where, key)
        return Source(self.directory / text) if text else Source()

    def _source(self, where: Mapping[str, Any], key: str) -> Source:
        """Return the content of KEY-data, or the file that KEY names; the data win, as in kubectl."""
        text = _text(where, f"{key}-data")
        if not text:
            return self._file(where, key)
        try:
            return Source(data=base64.b64decode("".join(text.split()), validate=True))
        except binascii.Error as error:
            raise ValueError(f"{key}-data is not base64: {error}") from None


def _refuse(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> None:
    """Raise ValueError for keys that would be unsafe, or that are not supported."""
    if cluster.get("insecure-skip-tls-verify"):
        raise ValueError(
            "insecure-skip-tls-verify is true: anybody on the way could read the token and hand out addresses;"
            " set certificate-authority instead"
        )
    if cluster.get("proxy-url"):
        raise ValueError("proxy-url is not supported: give the API server's own address")
    for key in ("exec", "auth-provider", "username", "password", "as"):
        if user.get(key):
            raise ValueError(f"users: {key} is not supported; use a client certificate or a ServiceAccount's token")


def _text(where: Mapping[str, Any], key: str) -> str:
    found = where.get(key)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise ValueError(f"{key} must be a string")
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def _as_file(source: Source) -> Iterator[str]:
    """Yield a path with the source's content. Content without a file stays in memory."""
    if source.path:
        yield str(source.path)
        return
    descriptor = os.memfd_create("credential")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(source.data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
