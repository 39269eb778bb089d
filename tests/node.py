"""A node: a pretend host, the pods on it, and plugins called on them as a runtime calls them."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tests.pretend import Answer, PretendHost, read_line, until

# Put in front of an executable, it closes stdout: an ADD fails at its very end, when it cannot write its result.
DEAF = ("sh", "-c", 'exec "$0" >&-')
V4, V6 = "10.1.0.0/24", "fd00:1::/64"


def host_local(*subnets: str, **keys: Any) -> dict[str, Any]:
    """Return an `ipam` section with a range set for each subnet, by default one of each family."""
    return {"type": "host-local", "ranges": [[{"subnet": subnet}] for subnet in subnets or (V4, V6)], **keys}


BRIDGE: dict[str, Any] = {"type": "bridge", "bridge": "cni0", "ipam": host_local()}


def injected(call: str, what: str, number: int | str) -> tuple[str, ...]:
    """Return words that, put in front of an executable, have strace tamper with a system call by its number."""
    tampering = ("-e", f"trace={call}", "-e", f"inject={call}:{what}:when={number}")
    return ("strace", "-f", "-qq", "-o", "/dev/null", *tampering)


class Node:
    """A pretend host and its pods; a pod's container ID is the name of its network namespace.

    A call's configuration is `config`, then the mapping `keys`, then keywords; a key that is set to `...` is left out.
    """

    DEFAULTS: ClassVar[Mapping[str, Any]] = {"cniVersion": "1.1.0", "name": "net"}

    def __init__(self, host: PretendHost, **config: Any) -> None:
        self.host = host
        self.config = {**self.DEFAULTS, **config}
        self.results: dict[Any, Any] = {}

    def netns(self, pod: str) -> str:
        """Return the path of a pod's network namespace; create it if it does not exist."""
        path = f"/run/netns/{pod}"
        return path if (self.host.root / path[1:]).exists() else self.host.netns(pod)

    def call(
        self,
        verb: str,
        pod: str,
        keys: Mapping[str, Any] = {},
        /,
        *,
        netns: str | None = None,
        ifname: str = "eth0",
        args: str = "",
        bin_dir: str | None = None,
        path: str | None = None,
        env: Mapping[str, str | None] = {},
        prefix: Sequence[str] = (),
        **more: Any,
    ) -> Answer:
        """Execute the plugin that the configuration's `type` names; ADD creates the pod if it does not exist."""
        config = {key: value for key, value in {**self.config, **keys, **more}.items() if value is not ...}
        if netns is None:
            netns = self.netns(pod) if verb == "ADD" else f"/run/netns/{pod}" if pod else ""
        return self.host.cni(
            config["type"], verb, config, netns=netns, container_id=pod, ifname=ifname, args=args, bin_dir=bin_dir,
            path=path, env=env, prefix=prefix,
        )  # fmt: skip

    def add(self, pod: str, keys: Mapping[str, Any] = {}, /, **more: Any) -> Any:
        """Return the result of an ADD, which must succeed; keep it for CHECK."""
        answer = self.call("ADD", pod, keys, **more)
        assert answer.status == 0, answer
        self.results[pod] = answer.json
        return answer.json

    def check(self, pod: str, keys: Mapping[str, Any] = {}, /, **more: Any) -> str:
        """Return the details, or else the message, of CHECK's error, "" if CHECK succeeds."""
        answer = self.call("CHECK", pod, {"prevResult": self.results.get(pod), **keys}, **more)
        return "" if answer.status == 0 else str(answer.json.get("details", answer.json["msg"]))

    def delete(self, pod: str, keys: Mapping[str, Any] = {}, /, **more: Any) -> None:
        """Execute a DEL, which must succeed and print nothing."""
        answer = self.call("DEL", pod, keys, **more)
        assert (answer.status, answer.stdout) == (0, ""), answer

    def collect(self, *valid: str, **more: Any) -> None:
        """Execute a GC with eth0 of these pods valid, which must succeed and print nothing."""
        attachments = [{"containerID": pod, "ifname": "eth0"} for pod in valid]
        answer = self.call("GC", "", {"cni.dev/valid-attachments": attachments}, **more)
        assert (answer.status, answer.stdout) == (0, ""), answer

    def refused(self, pod: str, code: int, words: str, keys: Mapping[str, Any] = {}, /, **more: Any) -> Answer:
        """Return the answer of an ADD that must fail and leave everything as it was."""
        self.netns(pod)
        before = self.host.snapshot([pod])
        answer = self.call("ADD", pod, keys, **more)
        assert answer.status == 1 and answer.code == code, answer
        assert re.search(words, answer.json["msg"] + " " + answer.json.get("details", "")), answer
        assert answer.json["cniVersion"] == self.config["cniVersion"]
        after = self.host.snapshot([pod])
        for files in (before["files"], after["files"]):  # locks and indexes hold no lease
            for name in [
                name for name in files if name.endswith("/lock") or "last_reserved_ip" in name or ".pycni" in name
            ]:
                del files[name]
        assert after == before
        return answer

    def kill(self, pod: str) -> None:
        """Delete a pod's namespace without DEL; wait until the kernel has deleted its links on the host."""
        inside = len(self.host.ip("link", "show", "type", "veth", netns=pod))
        left = len(self.links("veth")) - inside
        self.host.drop_netns(pod)
        until(lambda: len(self.links("veth")) <= left)

    def links(self, kind: str) -> list[str]:
        """Return the names of the host's links of a kind."""
        return [link["ifname"] for link in self.host.ip("link", "show", "type", kind)]

    def addresses(self, pod: str) -> list[str]:
        """Return the addresses of a pod's result, without their prefix lengths."""
        return [ip["address"].partition("/")[0] for ip in self.results[pod]["ips"]]

    def serve(self, netns: str, script: str, *args: str) -> Any:
        """Start a Python script in a network namespace, "" for the host's, and wait until it prints `ready`."""
        inside = ("ip", "netns", "exec", netns) if netns else ()
        process = self.host.popen(*inside, sys.executable, "-c", script, *args)
        assert read_line(process) == b"ready\n"
        return process

    def pings(self, pod: str, address: str) -> bool:
        """Return True if an address answers a pod's echo request within a second."""
        ping = ("ip", "netns", "exec", pod, "ping", "-n", "-c1", "-W1", address)
        return self.host.run(*ping, check=False).returncode == 0


class Network(Node):
    """A node with a network of the bridge plugin, and the state of its links in the kernel."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {**Node.DEFAULTS, **BRIDGE}

    def unheard(self, pod: str, **keys: Any) -> Answer:
        """Return the answer of an ADD that fails at the very end: it cannot write its result."""
        return self.call("ADD", pod, keys, prefix=DEAF)

    def host_link(self, pod: str) -> dict[str, Any]:
        """Return the host's end of a pod's link."""
        return self.host.ip("link", "show", self.results[pod]["interfaces"][1]["name"])[0]

    def kernel_addresses(self, pod: str | None, link: str = "eth0") -> dict[str, dict[str, Any]]:
        """Return the addresses of a link in a pod, or on the host, but for link-local ones."""
        (shown,) = self.host.ip("address", "show", link, netns=pod)
        return {f"{a['local']}/{a['prefixlen']}": a for a in shown["addr_info"] if not a["local"].startswith("fe80")}

    def routes(self, pod: str) -> set[tuple[str, str | None]]:
        """Return destination and gateway of a pod's routes, but for link-local and multicast ones."""
        found = self.host.ip("-4", "route", netns=pod) + self.host.ip("-6", "route", netns=pod)
        return {(r["dst"], r.get("gateway")) for r in found if not r["dst"].startswith(("fe80", "multicast"))}


def sysctl(host: PretendHost, path: str, pod: str | None = None) -> str:
    """Return the value of a kernel setting below /proc/sys/net, on the host or in a pod."""
    inside = () if pod is None else ("ip", "netns", "exec", pod)
    return host.run(*inside, "cat", f"/proc/sys/net/{path}").stdout.strip()
