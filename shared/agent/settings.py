"""The agent's configuration file and its declared keys."""

from __future__ import annotations

import posix

from shared.cni.config import Config, Kind, boolean, field, integer
from shared.cni.errors import CniError, InvalidConfig
from shared.cni.fastjson import loads
from shared.cni.ip import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATH = "/etc/cni/pycni-agent.json"
LIMIT_BYTES = 1 << 16
UNIX = "unix"  # the value of `metrics` for METRICS_SOCKET
METRICS_SOCKET = "/run/pycni/metrics.sock"
MOST_WORKERS = 64
LARGEST_PORT = 0xFFFF


def _metrics(value: Any) -> str:
    if value in ("", UNIX):
        return str(value)
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    try:
        Address.parse(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        colon = ""
    if not (colon and port.isascii() and port.isdecimal() and 0 < int(port) <= LARGEST_PORT):
        raise ValueError(f'must be "{UNIX}", an address and port such as 127.0.0.1:9477, or "" for no metrics')
    return str(value)


class Settings(Config):
    """The keys of the file."""

    workers: int = field(integer(1, MOST_WORKERS), 4, "idle workers, each for one call")
    heal: bool = field(boolean, True, "repair the rules and links of running pods")
    collect: bool = field(boolean, True, "free what dead attachments left behind")
    dhcp: bool = field(boolean, False, "run the daemon of the dhcp plugin")
    cluster: bool = field(boolean, False, "share networks with other nodes, by the settings in pycni-cluster.json")
    metrics: str = field(
        Kind(_metrics, {"type": "string"}), UNIX,
        f'where metrics are served: "{UNIX}" is {METRICS_SOCKET}, "127.0.0.1:9477" a TCP port, "" nowhere',
    )  # fmt: skip
    graceSeconds: int = field(  # noqa: N815  (the key's name)
        integer(60, 86_400), 300, "age in seconds below which `collect` leaves an attachment alone"
    )

    @property
    def has_duties(self) -> bool:
        """Return True if the duties process has something to do."""
        return bool(self.heal or self.collect or self.dhcp or self.cluster or self.metrics)


def parse(raw: object) -> Settings:
    """Return the settings in an object. Raise InvalidConfig that names the key."""
    if not isinstance(raw, dict):
        raise InvalidConfig("invalid configuration: it must be an object")
    unknown = [name for name in raw if name not in Settings.fields]
    if unknown:
        raise InvalidConfig(
            f'invalid configuration: "{unknown[0]}" is not a key', f"the keys are {', '.join(Settings.fields)}"
        )
    settings: Settings = Settings.read(raw)
    return settings


def read(path: str = PATH) -> Settings:
    """Return the settings of the file, and the defaults if it does not exist. Raise ValueError that names the file."""
    try:
        file = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    except FileNotFoundError:
        return parse({})
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    try:
        return parse(loads(posix.read(file, LIMIT_BYTES)))
    except (OSError, ValueError, CniError) as error:
        raise ValueError(f"{path}: {error}") from None
    finally:
        posix.close(file)
