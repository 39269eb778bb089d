"""Real etcd in a pretend host: one member or more, with TLS and users if the test wants them."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from shared.cluster.connection import Tls
from shared.cluster.engine import EngineError
from shared.cluster.etcd import Etcd, Settings
from shared.cluster.etcd_follow import Pace
from shared.cluster.etcd_gateway import Gateway, encode
from shared.cluster.http import Client
from shared.net.netns import Netns, open_netns
from tests.certificates import Authority
from tests.pretend import PretendHost, until

CLIENT_PORT, PEER_PORT = 2379, 2380
PACE = Pace(sign=2, timeout=30, pause=0.05, spread=0.1)
PREFIX = "/pycni/v1/"
NODE, NODE_PASSWORD = "node", "the node's"


@dataclass(frozen=True)
class Place:
    """The address of a member, and its network namespace: one of the host's, or the host's own."""

    address: str = "127.0.0.1"
    netns: str = ""


class Member:
    """One etcd process, which may be killed and started again with its data."""

    def __init__(
        self, host: PretendHost, number: int, place: Place, options: Sequence[str], scheme: str, program: str
    ) -> None:
        self.name = f"m{number}"
        self.url = f"{scheme}://{place.address}:{CLIENT_PORT + 10 * number}"
        self.peer_url = f"http://{place.address}:{PEER_PORT + 10 * number}"
        self.data = host.root / "run" / self.name
        self._host = host
        self._inside = ("ip", "netns", "exec", place.netns) if place.netns else ()
        self._program, self._options = program, options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, cluster: str) -> None:
        with (self._host.root / "run" / f"{self.name}.log").open("ab") as log:
            self._process = self._host.popen(
                *self._inside, self._program, "--name", self.name, "--data-dir", f"/run/{self.name}", "--logger", "zap", "--log-level", "error",
                "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
                "--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url,
                "--initial-cluster", cluster, *self._options,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def back_up(self) -> None:
        """Copy the data of a member that does not run."""
        shutil.copytree(self.data, self.data.with_suffix(".backup"))

    def restore(self) -> None:
        """Put the copy in place of the data."""
        shutil.rmtree(self.data)
        self.data.with_suffix(".backup").rename(self.data)


class Cluster:
    """Members of one cluster of etcd, and calls to it as an administrator."""

    def __init__(
        self,
        host: PretendHost,
        netns: Netns,
        *,
        places: Sequence[Place] = (Place(),),
        authority: Authority | None = None,
        program: str = "etcd",
    ) -> None:
        self.netns = netns
        options = ["--bcrypt-cost", "4"]
        self.authority = authority
        self.tls = Tls()
        if authority is not None:
            certificate, key = authority.issue("etcd")
            own, own_key = authority.issue("node", client=True, groups=["nodes"], is_named=False)
            options += ["--cert-file", str(certificate), "--key-file", str(key)]
            options += ["--client-cert-auth", "--trusted-ca-file", str(authority.certificate)]
            self.tls = Tls(ca_file=str(authority.certificate), certificate_file=str(own), key_file=str(own_key))
        scheme = "https" if authority else "http"
        self.members = [Member(host, number, place, options, scheme, program) for number, place in enumerate(places)]
        self.names = ",".join(f"{member.name}={member.peer_url}" for member in self.members)
        self.urls = tuple(member.url for member in self.members)
        self.user = self.password = self.last_failure = ""

    def start(self, *members: Member) -> None:
        """Start members, all by default, and wait until the cluster answers."""
        for member in members or self.members:
            member.start(self.names)
        try:
            until(self.is_ready, seconds=60)
        except AssertionError:
            raise AssertionError(self.last_failure) from None

    def is_ready(self) -> bool:
        try:
            self.call("kv/range", key=encode(b"x"))
        except EngineError as error:
            self.last_failure = str(error)
            return False
        return True

    def call(self, path: str, *, url: str = "", **document: object) -> dict[str, Any]:
        """Call the gateway of a member, the first one that answers by default."""
        client = Client([url] if url else self.urls, self.tls)
        try:
            return Gateway(client, self.user, self.password).call(f"/v3/{path}", document, timeout_seconds=10)
        finally:
            client.close()

    def put(self, key: str, value: bytes, prefix: str = PREFIX) -> None:
        self.call("kv/put", key=encode(f"{prefix}{key}".encode()), value=encode(value))

    def empty(self) -> None:
        self.call("kv/deleterange", key=encode(b"\0"), range_end=encode(b"\0"))

    def replace(self, values: Mapping[str, str]) -> None:
        """Make the keys below the prefix those of `values`, in base64, in one transaction."""
        present = self.keys().keys() - values.keys()
        gone = [{"request_delete_range": {"key": encode(f"{PREFIX}{key}".encode())}} for key in present]
        put = [
            {"request_put": {"key": encode(f"{PREFIX}{key}".encode()), "value": value}} for key, value in values.items()
        ]
        self.call("kv/txn", success=[*gone, *put])

    def compact(self) -> None:
        revision = self.call("kv/range", key=encode(b"x"))["header"]["revision"]
        self.call("kv/compaction", revision=revision, physical=True)

    def leader(self) -> Member:
        for member in self.members:
            with suppress(EngineError):  # it does not run
                status = self.call("maintenance/status", url=member.url)
                if status["leader"] == status["header"]["member_id"]:
                    return member
        raise AssertionError("no member is the leader")

    def demand_users(self) -> None:
        """Demand a user with a password, `node`, who has the right to the prefix alone."""
        root = {"name": "root", "password": "the root's"}
        self.call("auth/user/add", **root)
        self.call("auth/role/add", name="root")
        self.call("auth/user/grant", user="root", role="root")
        self.call("auth/role/add", name="node")
        span = {"key": encode(PREFIX.encode()), "range_end": encode(b"/pycni/v10")}
        self.call("auth/role/grant", name="node", perm={"permType": "READWRITE", **span})
        self.call("auth/user/add", name=NODE, password=NODE_PASSWORD)
        self.call("auth/user/grant", user=NODE, role="node")
        self.call("auth/enable")
        self.user, self.password = root["name"], root["password"]

    def keys(self) -> dict[str, dict[str, str]]:
        """Return the keys below the prefix, in order, with their etcd fields."""
        found = self.call("kv/range", key=encode(PREFIX.encode()), range_end=encode(b"/pycni/v10")).get("kvs", [])
        return {base64.b64decode(kv["key"]).decode().removeprefix(PREFIX): kv for kv in found}

    def value(self, name: str) -> Any:
        """Return a key's JSON value."""
        return json.loads(base64.b64decode(self.keys()[name]["value"]))

    def settings(self, *urls: str, user: str = "", password: str = "", pace: Pace = PACE) -> Settings:
        return Settings(urls or self.urls, self.tls, user, password, PREFIX, pace)

    def engine(self, *urls: str, pace: Pace = PACE) -> Etcd:
        """Return an engine without a user."""
        return Etcd(self.settings(*urls, pace=pace))

    def node(self) -> Etcd:
        """Return an engine with a node's user."""
        return Etcd(self.settings(user=NODE, password=NODE_PASSWORD))


@contextmanager
def running(size: int = 1, authority: Authority | None = None, program: str = "etcd") -> Iterator[Cluster]:
    """Run a cluster of an etcd in a host of its own. `with cluster.netns` the test's thread, and those it starts, reach it."""
    with PretendHost() as host:
        netns = open_netns(f"/proc/{host.first_pid}/ns/net")
        try:
            cluster = Cluster(host, netns, places=[Place()] * size, authority=authority, program=program)
            with netns:
                cluster.start()
            yield cluster
        finally:
            netns.close()
