"""firewalld and a system bus for it on a pretend host."""

from __future__ import annotations

from typing import Any

import pytest

from tests.pretend import PATIENCE, PretendHost, read_line

BUS = """
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <servicedir>/run/dbus/services</servicedir>
  <policy context="default">
    <allow user="*"/> <allow own="*"/>
    <allow send_type="method_call"/> <allow send_type="signal"/>
    <allow send_type="method_return"/> <allow send_type="error"/>
    <allow receive_type="method_call"/> <allow receive_type="signal"/>
    <allow receive_type="method_return"/> <allow receive_type="error"/>
  </policy>
  <includedir>/etc/dbus-1/system.d</includedir>
</busconfig>
"""
# Starting firewalld because somebody asks for it would be this.
SERVICE = """
[D-BUS Service]
Name=org.fedoraproject.FirewallD1
Exec=/bin/sh -c "touch /run/activated; exit 1"
User=root
"""


class Firewalld:
    """The bus and the daemon."""

    def __init__(self, host: PretendHost) -> None:
        self.host = host
        host.run("mkdir", "-p", "/run/dbus/services", "/run/firewalld")
        (host.root / "run/dbus/bus.conf").write_text(BUS)
        (host.root / "run/dbus/services/org.fedoraproject.FirewallD1.service").write_text(SERVICE)
        self.bus = self._start("dbus-daemon", "--config-file=/run/dbus/bus.conf", "--nofork", "--nopidfile", "--print-address")  # fmt: skip
        self._await(self.bus, b"unix:path=")
        self.start()

    def _start(self, *argv: str) -> Any:
        log = (self.host.root / "run" / f"{argv[0]}.log").open("ab")
        with log:
            return self.host.popen(*argv, stderr=log)

    def _await(self, process: Any, word: bytes) -> None:
        while said := read_line(process):
            if word in said:
                return
        pytest.fail(f"{process.args} ended before it said {word!r}")

    def start(self) -> None:
        """Start the daemon and wait until it owns its name; it answers requests as soon as it is ready."""
        watch = ("sender=org.freedesktop.DBus,member=NameOwnerChanged", "arg0=org.fedoraproject.FirewallD1")
        monitor = self._start("dbus-monitor", "--system", ",".join(watch))
        self._await(monitor, b"NameAcquired")
        own = ("--nofork", "--nopid", "--system-config", "/run/firewalld", "--log-target", "file", "--log-file", "/run/firewalld/log")  # fmt: skip
        self.daemon = self._start("firewalld", *own)
        self._await(monitor, b"member=NameOwnerChanged")
        self.stop(monitor)
        assert self.run("--state") == "running"

    def stop(self, process: Any) -> None:
        process.terminate()
        process.communicate(timeout=60 * PATIENCE)

    def run(self, *words: str) -> str:
        return self.host.run("firewall-cmd", *words).stdout.strip()

    def sources(self, zone: str = "trusted") -> list[str]:
        return sorted(self.run(f"--zone={zone}", "--list-sources").split())
