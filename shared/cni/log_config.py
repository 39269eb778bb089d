"""The declared keys of the log; shared/cni/log.py reads ordinary settings without them."""

from __future__ import annotations

from shared.cni import config
from shared.cni.config import absolute_path, field, integer, section
from shared.cni.suite import LARGEST_LOG_BYTES, LEAST_LOG_BYTES, LOG_BYTES, LOGS_KEPT


class Log(config.Config):
    """The keys below `pycni`, and of the node's file."""

    log: str = field(absolute_path, "", "file that each call adds a line of JSON to; without it there is no log")
    size: int = field(
        integer(LEAST_LOG_BYTES, LARGEST_LOG_BYTES), LOG_BYTES,
        f"bytes of the log before a new file is begun; the last {LOGS_KEPT} are kept, as .1 and .{LOGS_KEPT}",
    )  # fmt: skip


class Config(config.Config):
    """The suite's own key in the configuration of any plugin."""

    pycni: Log | None = field(section(Log), None, "see pycni")
