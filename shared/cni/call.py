"""Read a runtime's call: the CNI_* variables, and the configuration on stdin."""

from __future__ import annotations

from shared.cni.errors import DecodingFailure, IncompatibleVersion, InvalidConfig, InvalidEnvironment
from shared.cni.fastjson import dumps, loads
from shared.cni.names import is_link_name, is_name
from shared.cni.versions import SUPPORTED, at_least

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from shared.cni.config import Config

# The variables that each command requires, and the first version of the specification with the command.
NEEDS = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),
    "GC": ("CNI_PATH",),
    "STATUS": ("CNI_PATH",),
    "VERSION": (),
}
SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
TRUE_WORDS = ("1", "t", "T", "true", "TRUE", "True")
FALSE_WORDS = ("0", "f", "F", "false", "FALSE", "False")


class Call:
    """One execution of a plugin, validated; the specification's names in lower case."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Read the variables. Raise InvalidEnvironment if one is missing or unusable."""
        self.command = environment.get("CNI_COMMAND", "")
        if self.command not in NEEDS:
            if not self.command:
                raise InvalidEnvironment("CNI_COMMAND is missing")
            raise InvalidEnvironment(f"CNI_COMMAND {self.command!r} is unknown", f"known are {', '.join(NEEDS)}")
        missing = [name for name in NEEDS[self.command] if not environment.get(name)]
        if missing:
            raise InvalidEnvironment(f"{self.command} needs {', '.join(missing)}")
        self.container_id = environment.get("CNI_CONTAINERID", "")
        self.netns = environment.get("CNI_NETNS", "")
        self.ifname = environment.get("CNI_IFNAME", "")
        self.path = [entry for entry in environment.get("CNI_PATH", "").split(":") if entry.startswith("/")]
        self.args_text = environment.get("CNI_ARGS", "")
        if "CNI_CONTAINERID" in NEEDS[self.command]:
            if not is_name(self.container_id):
                raise InvalidEnvironment(
                    f"CNI_CONTAINERID {self.container_id!r} is invalid",
                    "it must begin with a letter or digit and go on with letters, digits, '_', '.' or '-'",
                )
            if not is_link_name(self.ifname):
                raise InvalidEnvironment(
                    f"CNI_IFNAME {self.ifname!r} is invalid",
                    "it must be 1 to 15 bytes without '/', ':', '%' or white space, and not '.' or '..'",
                )
        self.config: dict[str, Any] = {}
        self.stdin = b""
        self.version = SUPPORTED[-1]
        self.network = ""

    def read_config(self, data: bytes, supported: tuple[str, ...] = SUPPORTED) -> None:
        """Read the configuration. Raise DecodingFailure, IncompatibleVersion, InvalidConfig, in this precedence.

        `supported` are the versions that the plugin supports.
        """
        try:
            config = loads(data)
        except ValueError as error:
            raise DecodingFailure("the configuration on stdin is not valid JSON", str(error)) from None
        if not isinstance(config, dict):
            raise DecodingFailure("the configuration on stdin is not a JSON object")
        self.stdin = data
        self.config = config
        version = folded(config, "cniVersion")
        if version in (None, ""):
            version = "0.1.0"
        if not isinstance(version, str):
            raise DecodingFailure(f"cniVersion {dumps(version)[:80]} is not a string")
        if version not in supported:
            raise IncompatibleVersion(
                "incompatible CNI versions",
                f"config is {dumps(version)[:80]}, plugin supports {', '.join(supported)}",
            )
        self.version = version
        since = SINCE.get(self.command)
        if since and not at_least(version, since):
            raise IncompatibleVersion(f"config version does not allow {self.command}", f"{version} is before {since}")
        name = folded(config, "name")
        if not isinstance(name, str) or not is_name(name):
            raise InvalidConfig(
                f'invalid configuration: "name": {dumps(name)[:80]} must begin with a letter or digit'
                " and go on with letters, digits, '_', '.' or '-'"
            )
        self.network = name

    def of_network(self, network: str) -> Call:
        """Return a copy of the call for a network of another name."""
        other = Call.__new__(Call)
        other.__dict__.update(self.__dict__)
        other.config = {key: value for key, value in self.config.items() if key.lower() != "name"} | {"name": network}
        other.stdin = dumps(other.config).encode()
        other.network = network
        return other

    def args(self, accepted: type[Config]) -> Any:
        """Return CNI_ARGS, read as the declared, case-sensitive names.

        Raise InvalidEnvironment for other names, unless IgnoreUnknown is true.
        """
        pairs: dict[str, str] = {}
        for pair in self.args_text.split(";") if self.args_text else ():
            name, equals, value = pair.partition("=")
            if not equals or not name:
                raise InvalidEnvironment(f"CNI_ARGS: {pair!r} is not of the form name=value")
            pairs[name] = value
        ignore = pairs.pop("IgnoreUnknown", "0")
        if ignore not in TRUE_WORDS + FALSE_WORDS:
            raise InvalidEnvironment(f"CNI_ARGS: IgnoreUnknown={ignore} is neither true nor false")
        unknown = [name for name in pairs if name not in accepted.fields]
        if unknown and ignore in FALSE_WORDS:
            raise InvalidEnvironment(f"CNI_ARGS: unknown {', '.join(unknown)}", "IgnoreUnknown=1 lets them pass")
        try:
            return accepted.read({name: value for name, value in pairs.items() if name in accepted.fields and value})
        except InvalidConfig as error:
            raise InvalidEnvironment(f"CNI_ARGS: {error.msg}") from None


def folded(raw: dict[str, Any], name: str) -> Any:
    """Return a member by its name, exact or in another case; None if it is absent or null."""
    if raw.get(name) is not None:
        return raw[name]
    lowered = name.lower()
    return next((value for key, value in raw.items() if value is not None and key.lower() == lowered), None)
