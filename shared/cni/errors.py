"""The error codes of the CNI specification ("Error" in its section on the execution protocol), a class for each."""

from __future__ import annotations


class CniError(Exception):
    """What a plugin answers when it fails: `code`, `msg` and, where there is more to say, `details`."""

    code = 999

    def __init__(self, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.msg = msg
        self.details = details

    def __str__(self) -> str:
        return f"{self.msg}: {self.details}" if self.details else self.msg


class IncompatibleVersion(CniError):
    """The configuration's cniVersion is not one that the plugin speaks, or does not have the command."""

    code = 1


class UnsupportedField(CniError):
    """A key asks for what this plugin cannot do; the message names the key and its value."""

    code = 2


class UnknownContainer(CniError):
    """The container's network namespace does not exist; nothing was done and nothing needs to be cleaned up."""

    code = 3


class InvalidEnvironment(CniError):
    """A CNI_* variable is missing or unusable."""

    code = 4


class IOFailure(CniError):
    """Reading stdin or a file of the plugin's state failed."""

    code = 5


class DecodingFailure(CniError):
    """Configuration or result is not the JSON that it should be."""

    code = 6


class InvalidConfig(CniError):
    """A key of the configuration is missing or has a value that cannot be used; the message names both."""

    code = 7
    path = ""  # to the key, for who reports many errors; `reason` is the rest
    reason = ""


class InvalidNetns(CniError):
    """CNI_NETNS is not a network namespace, or is the host's own."""

    code = 8


class TryAgainLater(CniError):
    """A passing shortage: no address is free, or a lock was not to be had in time."""

    code = 11


class PluginNotAvailable(CniError):
    """STATUS: an ADD could not succeed now."""

    code = 50


class LimitedConnectivity(CniError):
    """STATUS: an ADD could not succeed now, and containers of the network may have lost connectivity."""

    code = 51


class InternalError(CniError):
    """What the kernel refused, or a defect of the plugin."""

    code = 999


class DelegateError(CniError):
    """The error of a plugin that this one executed, passed on with its code."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg, details)
        self.code = code
