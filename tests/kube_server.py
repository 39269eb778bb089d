"""A small Kubernetes API server for tests: it keeps the rules that the engine's correctness rests on.

Creating an existing object and a stale PUT answer 409, DELETE has preconditions, lists come in pages of one revision,
watches have bookmarks, and a compacted revision answers 410. It demands TLS, and a token or a client certificate,
and gives the rights of the manifests. It can be made to freeze, to lose answers and to refuse.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.kube_store import AGENT, ApiError, Object, Resource, Store, User, manifests, resources

if TYPE_CHECKING:
    from typing import Self

ADMIN = "admin"
WORDS = ("get", "list", "watch", "create", "update", "delete")


def role(name: str) -> tuple[Object, ...]:
    """Return the rules of a ClusterRole in access.yaml."""
    found = [one for one in manifests("access") if one["kind"] == "ClusterRole" and one["metadata"]["name"] == name]
    return tuple(found[0]["rules"])


def agent(node: str) -> User:
    """Return the agents' ServiceAccount as the token of a pod on this node proves it."""
    return User(AGENT, node, role("pycni-agent"))


class KubeServer:
    """The server, its store, and the faults that a test orders. A context manager."""

    def __init__(self, certificate: object = None, key: object = None, ca: object = None) -> None:
        self.store = Store()
        self.resources = resources()
        self.tokens: dict[str, User] = {}
        everything = {"apiGroups": ["pycni.internal", ""], "verbs": WORDS}
        everything["resources"] = sorted({plural for _, plural in self.resources})
        self.admin = User(ADMIN, rules=(everything,))
        self.users: dict[str, User] = {ADMIN: self.admin}  # by a client certificate's name
        self.bookmark_seconds = 0.2
        self.has_bookmarks = True
        self.seen: list[str] = []  # method and path of each request
        self.faults: list[tuple[str, Any]] = []  # what becomes of the next requests that begin so: see `order`
        self.is_frozen = threading.Event()
        self.waiting: set[str] = set()  # requests that came while it is frozen
        self.watched: list[str] = []  # the kinds of open watches
        self.lines: list[tuple[str, str]] = []  # to be said on them
        self._files = (certificate, key, ca)
        self._port = 0
        self._http: _Http | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"{'https' if self._files[0] else 'http'}://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, on the port of before if there was one."""
        context = None
        certificate, key, ca = map(str, self._files)
        if self._files[0]:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            if self._files[2]:
                context.load_verify_locations(ca)
                context.verify_mode = ssl.CERT_OPTIONAL
        self._http = _Http(self, self._port, context)
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """End the server and all connections; the objects stay."""
        http, self._http = self._http, None
        if http:
            self.is_frozen.clear()
            http.end()

    def order(self, beginning: str, fault: Any, *, times: int = 1) -> None:
        """Let the next requests that begin so ("POST", "GET /apis") meet a fault.

        "lose" does the work and closes the connection, "drop" closes it at once, an ApiError is the answer, and a pair
        of an ApiError and seconds has Retry-After, too.
        """
        self.faults += [(beginning, fault)] * times

    def add(self, plural: str, body: Object) -> Object:
        """Create an object, with all rights."""
        return self.store.create(self.admin, self.resource(plural), body)

    def say(self, plural: str, line: str) -> None:
        """Send a line on each watch of a kind, as it is."""
        with self.store.changed:
            self.lines += [(plural, line)] * sum(one == plural for one in self.watched)
            self.store.changed.notify_all()

    def lists(self, plural: str) -> list[str]:
        """Return the requests that began a list of a kind, not those that only look at its revision."""
        begun = [one.partition("&")[0] for one in self.seen if f"/{plural}?limit=" in one and "&continue=" not in one]
        return [one for one in begun if not one.endswith("limit=1")]

    def resource(self, plural: str) -> Resource:
        return next(one for one in self.resources.values() if one.plural == plural)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Answer nothing, and send nothing on watches, as a host that lost its network; connections stay."""
        self.is_frozen.set()
        try:
            yield
        finally:
            self.is_frozen.clear()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, kube: KubeServer, port: int, context: ssl.SSLContext | None) -> None:
        self.kube = kube
        self.context = context
        self.is_ended = False
        self.sockets: set[Any] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the connection's own thread: a client that never begins TLS holds nobody up.
        with suppress(OSError):
            if self.context:
                request = self.context.wrap_socket(request, server_side=True)
            self.sockets.add(request)
            try:
                super().finish_request(request, client_address)
            finally:
                self.sockets.discard(request)
                request.close()

    def end(self) -> None:
        self.is_ended = True
        self.shutdown()
        self.server_close()
        for one in list(self.sockets):
            with suppress(OSError):
                one.shutdown(2)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def setup(self) -> None:
        super().setup()
        self.kube = self.server.kube
        self.store = self.kube.store

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Write nothing."""

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET  # noqa: N815 - the names that the base class looks for

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.kube.is_frozen.is_set():
            self.kube.waiting.add(self.path)
        self._thaw()
        self.kube.seen.append(f"{self.command} {self.path}")
        fault = self._fault()
        retry_seconds = fault[1] if isinstance(fault, tuple) else None
        try:
            self._obey(fault)
            answer = self._answer(body)
            if answer is not None and fault != "lose":
                self._send(201 if self.command == "POST" else 200, answer)
        except ApiError as error:
            self._send(error.code, error.status, retry_seconds)
        except OSError:
            fault = "lose"
        self.close_connection = self.close_connection or fault in ("lose", "drop")
        self._thaw()

    def _obey(self, fault: Any) -> None:
        if fault == "drop":
            raise ConnectionAbortedError
        error = fault[0] if isinstance(fault, tuple) else fault
        if isinstance(error, ApiError):
            raise error

    def _thaw(self) -> None:
        while self.kube.is_frozen.is_set() and not self.server.is_ended:
            time.sleep(0.01)

    def _fault(self) -> Any:
        for entry in self.kube.faults:
            if f"{self.command} {self.path}".startswith(entry[0]):
                self.kube.faults.remove(entry)
                return entry[1]
        return None

    def _send(self, code: int, document: Object, retry_seconds: object = None) -> None:
        data = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if retry_seconds is not None:
            self.send_header("Retry-After", str(retry_seconds))
        self.end_headers()
        self.wfile.write(data)

    def _answer(self, body: bytes) -> Object | None:
        """Return the answer; None if it was a watch."""
        user = self._user()
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        resource, name = self._place(url.path)
        is_watch = self.command == "GET" and not name and query.get("watch") in ("1", "true")
        verbs = {
            "POST": "create",
            "PUT": "update",
            "DELETE": "delete",
            "PATCH": "patch",
            "GET": "get" if name else "list",
        }
        verb = "watch" if is_watch else verbs[self.command]
        if not user.may(verb, resource.group, resource.plural):
            message = (
                f'{resource.title}{f" {chr(34)}{name}{chr(34)}" if name else ""} is forbidden: User "{user.name}" cannot {verb}'
                f' resource "{resource.plural}" in API group "{resource.group}" at the cluster scope'
            )
            raise ApiError(403, "Forbidden", message, resource.details(name))
        if self.command == "GET":
            if is_watch:
                self._watch(resource, query)
                return None
            return self.store.get(resource, name) if name else self._list(resource, query)
        return self._write(user, resource, name, self._document(body))

    def _user(self) -> User:
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        found = self.kube.tokens.get(token) if kind == "Bearer" else None
        certificate = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        if found is None and certificate and not kind:
            names: Any = certificate.get("subject", ())
            found = self.kube.users.get(next((value for ((key, value),) in names if key == "commonName"), ""))
        if found is None:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return found

    def _place(self, path: str) -> tuple[Resource, str]:
        parts = path.strip("/").split("/")
        group, rest = ("", parts[2:]) if parts[:2] == ["api", "v1"] else (parts[1] if len(parts) > 1 else "", parts[3:])
        is_known = parts[:2] == ["api", "v1"] or (parts[0] == "apis" and parts[2:3] == ["v1"])
        resource = self.kube.resources.get((group, rest[0])) if rest and len(rest) <= 2 and is_known else None
        if resource is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        name = rest[1] if len(rest) == 2 else ""
        if bool(name) == (self.command == "POST") and self.command != "GET":
            raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        return resource, name

    def _document(self, body: bytes) -> Object:
        if body and self.headers.get("Content-Type", "").partition(";")[0] != "application/json":
            raise ApiError(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
        try:
            document = json.loads(body or b"{}")
        except ValueError as error:
            raise ApiError(400, "BadRequest", f"the object provided is unrecognized: {error}") from None
        return dict(document)

    def _write(self, user: User, resource: Resource, name: str, document: Object) -> Object:
        if self.command == "POST":
            return self.store.create(user, resource, document)
        if self.command == "PUT":
            return self.store.replace(user, resource, name, document)
        if self.command == "DELETE":
            return self.store.delete(user, resource, name, document)
        raise ApiError(415, "UnsupportedMediaType", "PATCH is not part of this server")

    def _list(self, resource: Resource, query: dict[str, str]) -> Object:
        if query.get("continue") and query.get("resourceVersion"):
            message = "specifying resource version is not allowed when using continue"
            raise ApiError(400, "BadRequest", message)
        if int(query.get("resourceVersion") or 0) > self.store.revision:
            raise ApiError(504, "Timeout", "Too large resource version")
        return self.store.page(resource, int(query.get("limit") or 0), query.get("continue", ""), _selected(query))

    def _watch(self, resource: Resource, query: dict[str, str]) -> None:
        name, revision = _selected(query), int(query.get("resourceVersion") or 0)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.kube.watched.append(resource.plural)
        try:
            self._tell(resource, query, name, revision)
        finally:
            self.kube.watched.remove(resource.plural)

    def _tell(self, resource: Resource, query: dict[str, str], name: str, revision: int) -> None:
        end = time.monotonic() + float(query.get("timeoutSeconds") or 1800)
        if not revision:
            page = self.store.page(resource, 0, "", name)
            self._events([{"type": "ADDED", "object": one} for one in page["items"]])
            revision = int(page["metadata"]["resourceVersion"])
        sign = time.monotonic() + self.kube.bookmark_seconds
        wants_bookmarks = query.get("allowWatchBookmarks") in ("1", "true")
        while not self.server.is_ended and (now := time.monotonic()) < end:
            try:
                found = self.store.after(resource, revision, name)
            except ApiError as error:
                found = [{"type": "ERROR", "object": error.status}]
                end = now
            # As a real one: a watch from a revision that is not there yet says nothing, and has no bookmarks.
            if now >= sign and self.kube.has_bookmarks and wants_bookmarks and self.store.revision >= revision:
                sign = now + self.kube.bookmark_seconds
                if not found:
                    metadata = {"resourceVersion": str(self.store.revision), "creationTimestamp": None}
                    found = [
                        {
                            "type": "BOOKMARK",
                            "object": {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata},
                        }
                    ]
            if found:
                self._events(found)
                revision = int(found[-1]["object"]["metadata"].get("resourceVersion") or revision)
            with self.store.changed:
                for said in [one for one in self.kube.lines if one[0] == resource.plural][:1]:
                    self.kube.lines.remove(said)
                    self._line(said[1].encode())
                if self.store.revision <= revision and now < end:
                    self.store.changed.wait(min(0.05, self.kube.bookmark_seconds, end - now))
        self.wfile.write(b"0\r\n\r\n")

    def _events(self, events: list[Object]) -> None:
        self._thaw()
        for event in events:
            self._line(json.dumps(event).encode())

    def _line(self, line: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\n\r\n" % (len(line) + 1, line))


def _selected(query: dict[str, str]) -> str:
    """Return the name that a field selector asks for."""
    selector = query.get("fieldSelector", "")
    key, _, name = selector.partition("=")
    if selector and key != "metadata.name":
        raise ApiError(400, "BadRequest", f"field label not supported: {key}")
    return name
