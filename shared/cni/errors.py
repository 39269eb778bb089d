"""The errors of the CNI specification, one class per code ("Error" in the section on the execution protocol)."""

from __future__ import annotations


class CniError(Exception):
    """The error that a failing plugin prints: `code`, `msg` and optional `details`."""

    code = 999

    def __init__(self, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.msg = msg
        self.details = details

    def __str__(self) -> str:
        return f"{self.msg}: {self.details}" if self.details else self.msg


class IncompatibleVersion(CniError):
    """The plugin does not support the configuration's cniVersion, or that version lacks the command."""

    code = 1


class UnsupportedField(CniError):
    """A key requests a feature that the plugin, the kernel or the host lacks."""

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
    """The configuration or a result is not valid JSON, or has the wrong structure."""

    code = 6


class InvalidConfig(CniError):
    """A key of the configuration is missing or has an unusable value; the message names both."""

    code = 7
    path = ""  # to the key, for callers that report many errors; `reason` is the rest of the message
    reason = ""


class InvalidNetns(CniError):
    """CNI_NETNS is not a network namespace, or is the host's own."""

    code = 8


class TryAgainLater(CniError):
    """A temporary shortage: no address is free, or a lock is held by another process."""

    code = 11


class PluginNotAvailable(CniError):
    """STATUS: an ADD could not succeed now."""

    code = 50


class LimitedConnectivity(CniError):
    """STATUS: an ADD could not succeed now, and containers of the network may have lost connectivity."""

    code = 51


class InternalError(CniError):
    """The kernel refused a request, or the plugin has a defect."""

    code = 999


class DelegateError(CniError):
    """The error of a plugin that this one executed, with its code."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg, details)
        self.code = code
