"""The artefacts by name. Each is a function of the context that returns its files in the output directory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from artifacts import bundle, chart, image, packages
from artifacts.context import Context

TARGETS: dict[str, Callable[[Context], list[Path]]] = {
    "bundle": bundle.make,
    "image": image.make,
    "deb": partial(packages.make, kind="deb"),
    "rpm": partial(packages.make, kind="rpm"),
    "apk": partial(packages.make, kind="apk"),
    "chart": chart.make,
}
