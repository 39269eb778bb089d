"""The list of components of a bundle, in CycloneDX's form: all of it follows from the bundle's content."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.component_evidence import ComponentEvidence, Occurrence
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from artifacts.context import Context
from artifacts.debian import RELEASE, Package
from artifacts.wheels import Library

SUITE = "pycni"


def component(url: PackageURL, licence: str, digest: str | None, kind: ComponentType) -> Component:
    """Return a component with this address, SPDX expression and SHA-256."""
    return Component(
        type=kind,
        name=url.name,
        version=url.version,
        purl=url,
        bom_ref=url.to_string(),
        licenses=[LicenseFactory().make_from_string(licence)] if licence else [],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else [],
    )


def debian_url(name: str, version: str, architecture: str, source: str = "") -> PackageURL:
    """Return the address of a package of Debian's; scanners find its known flaws by the source package's name."""
    qualifiers = {"arch": architecture, "distro": f"debian-{RELEASE}"} | ({"upstream": source} if source else {})
    return PackageURL("deb", "debian", name, version, qualifiers)


def of_package(package: Package) -> Component:
    """Return the component of a package of Debian's."""
    source = package.source if package.source != package.name else ""
    url = debian_url(package.name, package.version, package.architecture, source)
    return component(url, package.licence, package.sha256, ComponentType.LIBRARY)


def of_library(library: Library) -> Component:
    """Return the component of one of the tools' libraries."""
    url = PackageURL("pypi", None, library.name.lower().replace("_", "-"), library.version)
    return component(url, library.licence, library.sha256, ComponentType.LIBRARY)


def with_files(one: Component, files: list[str]) -> Component:
    """Return the component with its files in the bundle."""
    one.evidence = ComponentEvidence(occurrences=[Occurrence(bom_ref=name, location=name) for name in files])
    return one


def build(context: Context, packages: dict[str, Package], libraries: list[Library], origins: dict[str, str]) -> str:
    """Return the JSON text. `origins` names the component of each file in the bundle."""
    files: dict[str, list[str]] = {}
    for name, origin in sorted(origins.items()):
        files.setdefault(origin, []).append(name)
    suite = component(
        PackageURL("generic", None, SUITE, context.version), "Apache-2.0", None, ComponentType.APPLICATION
    )
    bom = Bom()
    bom.metadata.component = suite
    bom.metadata.timestamp = datetime.fromtimestamp(context.epoch, UTC)
    found = [with_files(of_package(one), files.pop(name)) for name, one in packages.items()]
    found += [with_files(of_library(one), files.pop(one.file.name)) for one in libraries]
    with_files(suite, files.pop(SUITE))
    if files:
        raise ValueError(f"files of no component: {files}")
    bom.components.update(found)
    bom.register_dependency(suite, found)
    for package, one in zip(packages.values(), found, strict=False):
        linked = [
            component(debian_url(*pair, "source"), "", None, ComponentType.LIBRARY) for pair in package.built_using
        ]
        bom.components.update(linked)
        bom.register_dependency(one, linked)
    bom.serial_number = uuid5(NAMESPACE_URL, "")  # of nothing, so that the true one follows from all else
    bom.serial_number = uuid5(NAMESPACE_URL, text_of(bom))
    return text_of(bom)


def text_of(bom: Bom) -> str:
    """Return the JSON text."""
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1) + "\n"
