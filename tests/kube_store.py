"""The objects of the tests' Kubernetes API server, and the rules that a real one has for them.

Kinds, schemas and rights come from the manifests in shared/cluster/manifests, so a test shows that these are enough.
"""

from __future__ import annotations

import base64
import copy
import functools
import json
import re
import threading
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from shared.cluster import plain_yaml

MANIFESTS = Path(__file__).parents[1] / "shared" / "cluster" / "manifests"
GROUP = "pycni.internal"
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
AGENT = "system:serviceaccount:kube-system:pycni-agent"

Object = dict[str, Any]


def manifests(name: str) -> list[Object]:
    """Return the documents of a manifest."""
    return [plain_yaml.parse(text) for text in (MANIFESTS / f"{name}.yaml").read_text().split("\n---\n")]


class ApiError(Exception):
    """An answer that is an error: a Status object."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": details or {},
            "code": code,
        }


@dataclass(frozen=True)
class User:
    """A user: a name, the node in the token, and the rules of the roles."""

    name: str
    node: str = ""
    rules: tuple[Object, ...] = ()

    def may(self, verb: str, group: str, plural: str) -> bool:
        return any(
            group in rule["apiGroups"] and plural in rule["resources"] and verb in rule["verbs"] for rule in self.rules
        )


@dataclass(frozen=True, eq=False)
class Resource:
    """One kind of cluster-scoped objects."""

    group: str
    kind: str
    plural: str
    schema: Object = field(default_factory=dict)

    @property
    def api_version(self) -> str:
        return f"{self.group}/v1" if self.group else "v1"

    @property
    def title(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def details(self, name: str) -> Object:
        return {"name": name, **({"group": self.group} if self.group else {}), "kind": self.plural}


def resources() -> dict[tuple[str, str], Resource]:
    """Return the kinds by group and plural: those of the manifests, and Node."""
    found = {("", "nodes"): Resource("", "Node", "nodes")}
    for document in manifests("resources"):
        spec = document["spec"]
        schema = spec["versions"][0]["schema"]["openAPIV3Schema"]
        names = spec["names"]
        found[spec["group"], names["plural"]] = Resource(spec["group"], names["kind"], names["plural"], schema)
    return found


def is_admitted(user: User, resource: Resource, new: Object | None, old: Object | None) -> bool:
    """Return True if the policy in access.yaml lets the user write; tests/unit compares it with the policy's text."""
    if user.name != AGENT or resource.group != GROUP:
        return True
    if resource.plural == "peers":
        return bool(user.node) and (new is None or new["metadata"]["name"] == user.node)
    return bool(user.node) and all(one is None or one["spec"]["node"] == user.node for one in (new, old))


class Store:
    """All objects, and the history that watches and pages are answered from."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.revision = 100
        self.objects: dict[Resource, dict[str, Object]] = {}
        self.history: list[tuple[int, Resource, str, Object]] = []
        self.compacted = self.revision  # older ones are 410 Gone

    def create(self, user: User, resource: Resource, body: Object) -> Object:
        metadata = _metadata(resource, body)
        name = metadata.get("name")
        if not isinstance(name, str) or not name:
            raise _invalid(resource, "", "metadata.name: Required value: name or generateName is required")
        if not SUBDOMAIN.fullmatch(name) or len(name) > 253:
            raise _invalid(resource, name, f"metadata.name: Invalid value: {name!r}: a lowercase RFC 1123 subdomain")
        if metadata.get("resourceVersion"):
            raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
        new = _pruned(resource, body)
        with self.changed:
            self._admit(user, resource, new, None)
            _validate(resource, new, None)
            if name in self.objects.get(resource, {}):
                message = f'{resource.title} "{name}" already exists'
                raise ApiError(409, "AlreadyExists", message, resource.details(name))
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            new["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": now, "generation": 1}
            return self._write(resource, "ADDED", new)

    def get(self, resource: Resource, name: str) -> Object:
        with self.changed:
            found = self.objects.get(resource, {}).get(name)
        if found is None:
            raise ApiError(404, "NotFound", f'{resource.title} "{name}" not found', resource.details(name))
        return found

    def replace(self, user: User, resource: Resource, name: str, body: Object) -> Object:
        metadata = _metadata(resource, body)
        if metadata.get("name") != name:
            message = f"the name of the object ({metadata.get('name')}) does not match the name on the URL ({name})"
            raise ApiError(400, "BadRequest", message)
        new = _pruned(resource, body)
        with self.changed:
            old = self.get(resource, name)
            if not metadata.get("resourceVersion"):
                message = "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"
                raise _invalid(resource, name, message)
            _compare(resource, old, metadata)
            for key in ("uid", "creationTimestamp", "generation"):
                new["metadata"][key] = old["metadata"][key]
            self._admit(user, resource, new, old)
            _validate(resource, new, old)
            new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            if new == old:
                return old  # a write that changes nothing makes no revision
            if new.get("spec") != old.get("spec"):
                new["metadata"]["generation"] += 1
            return self._write(resource, "MODIFIED", new)

    def delete(self, user: User, resource: Resource, name: str, options: Object) -> Object:
        if options and options.get("kind", "DeleteOptions") != "DeleteOptions":
            raise ApiError(400, "BadRequest", f"a DeleteOptions is expected, not {options['kind']}")
        with self.changed:
            old = self.get(resource, name)
            _compare(resource, old, options.get("preconditions") or {})
            self._admit(user, resource, None, old)
            self._write(resource, "DELETED", old)
        details = resource.details(name) | {"uid": old["metadata"]["uid"]}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def page(self, resource: Resource, limit: int, token: str, name: str) -> Object:
        """Return a list, or a page of one; all pages are of one revision."""
        with self.changed:
            revision, start = self.revision, ""
            if token:
                revision, start = json.loads(base64.urlsafe_b64decode(token))
                if revision < self.compacted:
                    message = "The provided continue parameter is too old to display a consistent list result."
                    raise ApiError(410, "Expired", message)
            state: dict[str, Object] = {}
            for at, of, kind, one in self.history:
                if of == resource and at <= revision:
                    state[one["metadata"]["name"]] = one
                    if kind == "DELETED":
                        del state[one["metadata"]["name"]]
        names = [one for one in sorted(state) if one > start and name in ("", one)]
        metadata: Object = {"resourceVersion": str(revision)}
        if limit and len(names) > limit:
            text = json.dumps([revision, names[limit - 1]])
            metadata |= {"continue": base64.urlsafe_b64encode(text.encode()).decode()}
            metadata |= {"remainingItemCount": len(names) - limit}
            names = names[:limit]
        items = [state[one] for one in names]
        if not resource.group:  # lists of built-in kinds do not repeat it
            items = [{key: value for key, value in one.items() if key not in ("kind", "apiVersion")} for one in items]
        return {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": metadata,
            "items": items,
        }

    def after(self, resource: Resource, revision: int, name: str) -> list[Object]:
        """Return the watch events after a revision. Raise 410 if it is compacted away."""
        with self.changed:
            if revision < self.compacted:
                raise ApiError(410, "Expired", f"too old resource version: {revision} ({self.compacted})")
            return [
                {"type": kind, "object": one}
                for at, of, kind, one in self.history
                if of == resource and at > revision and name in ("", one["metadata"]["name"])
            ]

    def compact(self) -> None:
        """Forget all history before now, as etcd does every five minutes."""
        with self.changed:
            self.compacted = self.revision

    def restore(self, revision: int) -> None:
        """Go back to the state of a revision, as a backup does."""
        with self.changed:
            self.history = [entry for entry in self.history if entry[0] <= revision]
            self.objects = {}
            for _, resource, kind, one in self.history:
                self.objects.setdefault(resource, {})[one["metadata"]["name"]] = one
                if kind == "DELETED":
                    del self.objects[resource][one["metadata"]["name"]]
            self.revision = revision
            self.changed.notify_all()

    def _admit(self, user: User, resource: Resource, new: Object | None, old: Object | None) -> None:
        if not is_admitted(user, resource, new, old):
            name = (new or old or {})["metadata"]["name"]
            message = (
                f"{resource.title} \"{name}\" is forbidden: ValidatingAdmissionPolicy 'pycni-agent' denied request"
            )
            raise ApiError(403, "Forbidden", message, resource.details(name))

    def _write(self, resource: Resource, kind: str, new: Object) -> Object:
        self.revision += 1
        new = copy.deepcopy(new)
        new["metadata"]["resourceVersion"] = str(self.revision)
        of_kind = self.objects.setdefault(resource, {})
        of_kind[new["metadata"]["name"]] = new
        if kind == "DELETED":
            del of_kind[new["metadata"]["name"]]
        self.history.append((self.revision, resource, kind, new))
        self.changed.notify_all()
        return new


def _metadata(resource: Resource, body: Object) -> Object:
    if (body.get("apiVersion"), body.get("kind")) != (
        resource.api_version,
        resource.kind,
    ):
        raise ApiError(400, "BadRequest", f"the object provided is no {resource.kind} of {resource.api_version}")
    metadata = body.get("metadata", {})
    if not isinstance(metadata, dict):
        raise ApiError(400, "BadRequest", "metadata must be an object")
    return metadata


def _compare(resource: Resource, old: Object, wanted: Object) -> None:
    """Raise Conflict if uid or resourceVersion are given and are not the object's."""
    name = old["metadata"]["name"]
    for key in ("uid", "resourceVersion"):
        if wanted.get(key) and wanted[key] != old["metadata"][key]:
            message = f'Operation cannot be fulfilled on {resource.title} "{name}": {key} is not {wanted[key]}'
            raise ApiError(409, "Conflict", message, resource.details(name))


def _pruned(resource: Resource, body: Object) -> Object:
    """Drop fields that the schema does not have, and metadata that the server alone sets."""
    new = {key: value for key, value in body.items() if not resource.schema or key in ("spec", "apiVersion", "kind")}
    if resource.schema and "spec" in new:
        new["spec"] = _prune(resource.schema["properties"]["spec"], new["spec"])
    kept = ("name", "labels", "annotations")
    new["metadata"] = {key: value for key, value in body.get("metadata", {}).items() if key in kept}
    return copy.deepcopy(new)


def _prune(schema: Object, value: Any) -> Any:
    if isinstance(value, list):
        return [_prune(schema.get("items", {}), one) for one in value]
    if not isinstance(value, dict) or "additionalProperties" in schema:
        return value
    known = schema.get("properties", {})
    return {key: _prune(known[key], one) for key, one in value.items() if key in known}


@functools.cache
def _validator(resource: Resource) -> Any:
    # The environments of other Pythons, which import this module, lack it.
    import jsonschema

    formats = jsonschema.FormatChecker(["ipv4", "ipv6"])
    # Go's ParseCIDR admits bits of the host, too.
    formats.checks("cidr", ValueError)(lambda text: bool(ip_network(text, strict=False)) and "/" in text)
    return jsonschema.Draft202012Validator(resource.schema, format_checker=formats)


def _validate(resource: Resource, new: Object, old: Object | None) -> None:
    errors = [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in _validator(resource).iter_errors(new)
    ]
    if not errors and old and resource.plural == "blocks":  # the rule of blocks in resources.yaml
        owner = ("node", "nodeUID", "since")
        if any(new["spec"][key] != old["spec"][key] for key in owner):
            errors.append("spec: Invalid value: a block never changes its owner; delete it and claim it anew")
    if errors:
        raise _invalid(resource, new["metadata"]["name"], "; ".join(errors))


def _invalid(resource: Resource, name: str, message: str) -> ApiError:
    title = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    return ApiError(422, "Invalid", f'{title} "{name}" is invalid: {message}', resource.details(name))
