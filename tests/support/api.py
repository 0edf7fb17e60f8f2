"""The API as a user's program sees it: HTTPS, JSON and nothing else."""

import base64
import http.client
import json
import ssl
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import yaml

from podyard.api.documents import Document
from podyard.api.scheme import find_kind_by_name

T = TypeVar("T")

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
YAML = "application/yaml"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def document(self) -> Document:
        return json.loads(self.content)


class RefusedError(AssertionError):
    """An answer that is no success, where one was expected."""

    def __init__(self, what: str, answer: Answer) -> None:
        super().__init__(f"{what}: {answer.status} {answer.content[:2000]!r}")
        self.answer = answer


class Api:
    """A client with an admin's kubeconfig, or with a token instead."""

    def __init__(self, kubeconfig: Path, *, token: str = "", admin: bool = True):
        config = yaml.safe_load(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        user = config["users"][0]["user"]
        self.server = cluster["server"]
        self._tls = ssl.create_default_context(
            cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
        )
        if admin and not token:
            with tempfile.NamedTemporaryFile(suffix=".pem") as file:
                for part in ("client-certificate-data", "client-key-data"):
                    file.write(base64.b64decode(user[part]))
                file.flush()
                self._tls.load_cert_chain(file.name)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._connection: http.client.HTTPSConnection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- any request

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        timeout_s: float = 60,
        **headers: str,
    ) -> Answer:
        """Send a request; documents become JSON, bytes go as they are."""
        content = body
        if body is not None and not isinstance(body, bytes):
            content = json.dumps(body).encode()
        sent = {**self._headers, "Accept": "application/json", **headers}
        if content is not None:
            sent["Content-Type"] = content_type
        # A kept connection may have ended meanwhile; what was not sent is sent again.
        for last in (False, True):
            if self._connection is None:
                url = urlsplit(self.server)
                self._connection = http.client.HTTPSConnection(
                    url.hostname or "", url.port, context=self._tls, timeout=timeout_s
                )
            try:
                self._connection.request(method, path, content, sent)
                reply = self._connection.getresponse()
                answer = Answer(reply.status, dict(reply.getheaders()), reply.read())
            except (ConnectionError, http.client.HTTPException, OSError):
                self.close()
                if last:
                    raise
            else:
                return answer
        raise AssertionError("unreachable")

    def must(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """Send a request that has to succeed, and return its document."""
        answer = self.ask(method, path, body, **options)
        if answer.status >= 300:
            raise RefusedError(f"{method} {path}", answer)
        return answer.document

    # --- objects

    def create(self, *documents: Document, namespace: str = "default") -> Document:
        """Create objects; return the last one."""
        created: Document = {}
        for document in documents:
            own = document["metadata"].get("namespace", namespace)
            created = self.must("POST", path_of(document, own), document)
        return created

    def pod(self, name: str, namespace: str = "default") -> Document:
        return self.must("GET", pod_path(name, namespace))

    def patch(self, path: str, patch: Any, *, kind: str = MERGE) -> Document:
        return self.must("PATCH", path, patch, content_type=kind)

    def delete(self, path: str, **query: Any) -> None:
        """Delete an object that may be gone already."""
        answer = self.ask("DELETE", f"{path}?{urlencode(query)}" if query else path)
        if answer.status not in {200, 202, 404}:
            raise RefusedError(f"DELETE {path}", answer)

    def is_gone(self, path: str) -> bool:
        return self.ask("GET", path).status == 404

    def log(self, name: str, namespace: str = "default", **query: Any) -> str:
        """Return a log, or an empty text where there is none yet."""
        path = f"{pod_path(name, namespace)}/log?{urlencode(query)}"
        answer = self.ask("GET", path)
        return answer.content.decode() if answer.status == 200 else ""

    def events(self, name: str, namespace: str = "default") -> list[str]:
        """Return ``Type Reason message`` of an object's events, oldest first."""
        selector = quote(f"involvedObject.name={name}")
        path = f"/api/v1/namespaces/{namespace}/events?fieldSelector={selector}"
        return [
            f"{item['type']} {item['reason']} {item['message']}"
            for item in self.must("GET", path)["items"]
        ]

    # --- waiting

    def until_pod(
        self,
        name: str,
        is_so: Callable[[Document], Any],
        *,
        namespace: str = "default",
        within_s: float = 60,
    ) -> Document:
        """Wait until something is so of a Pod; say what it is instead if it is not."""
        seen: Document = {}

        def look() -> Document | None:
            nonlocal seen
            answer = self.ask("GET", pod_path(name, namespace))
            if answer.status == 404:
                return None  # a mirror Pod is replaced by way of nothing
            seen = answer.document
            return seen if is_so(seen) else None

        try:
            return until(look, within_s=within_s)
        except TimeoutError:
            said = self.explain(seen) if seen else f"there is no Pod {name}"
            raise AssertionError(said) from None

    def until_log(
        self, name: str, text: str, *, namespace: str = "default", **query: Any
    ) -> str:
        """Wait until a log contains a text."""

        def look() -> str | None:
            log = self.log(name, namespace, **query)
            return log if text in log else None

        return self.until_pod_and(name, look, namespace)

    def until_pod_and(
        self,
        name: str,
        ask: Callable[[], T | None],
        namespace: str = "default",
        within_s: float = 60,
    ) -> T:
        """Wait for an answer that has to do with a Pod."""
        try:
            return until(ask, within_s=within_s)
        except TimeoutError:
            raise AssertionError(self.explain(self.pod(name, namespace))) from None

    def until_event(
        self, name: str, text: str, *, namespace: str = "default", within_s: float = 60
    ) -> str:
        """Wait for an event whose ``Type Reason message`` begins with a text."""

        def look() -> str | None:
            events = self.events(name, namespace)
            return next((event for event in events if event.startswith(text)), None)

        try:
            return until(look, within_s=within_s)
        except TimeoutError:
            events = "\n  ".join(self.events(name, namespace))
            raise AssertionError(f"no event {text!r} of {name}:\n  {events}") from None

    def explain(self, pod: Document) -> str:
        """Say all there is to say about a Pod."""
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        events = "\n  ".join(self.events(name, namespace))
        logs = "\n  ".join(
            f"[{container['name']}] {self.log(name, namespace, container=container['name'])[-1000:]}"
            for container in (
                pod["spec"].get("initContainers", []) + pod["spec"]["containers"]
            )
        )
        status = json.dumps(pod.get("status"), indent=1)
        return f"{namespace}/{name}: {status}\nevents:\n  {events}\nlogs:\n  {logs}"


def until(ask: Callable[[], T | None], *, within_s: float = 60) -> T:
    """Wait until an answer is true, and return it.

    Raises:
        TimeoutError: it did not become so.
    """
    until_s = time.monotonic() + within_s
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > until_s:
            raise TimeoutError(f"not within {within_s:g} s; last answer: {answer!r}")
        time.sleep(0.05)


def path_of(document: Document, namespace: str = "default", name: str = "") -> str:
    """Return the path of an object's collection, or of the object itself."""
    kind = find_kind_by_name(document["apiVersion"], document["kind"])
    assert kind is not None, document["kind"]
    return kind.path(namespace if kind.namespaced else "", name)


def pod_path(name: str, namespace: str = "default") -> str:
    return f"/api/v1/namespaces/{namespace}/pods/{name}"


# --- what a Pod's status says, for conditions


def statuses(pod: Document) -> dict[str, Document]:
    """Return every container's status by its name."""
    status = pod.get("status", {})
    return {
        entry["name"]: entry
        for part in (
            "initContainerStatuses",
            "containerStatuses",
            "ephemeralContainerStatuses",
        )
        for entry in status.get(part) or []
    }


def state_of(pod: Document, container: str = "main", *, last: bool = False) -> str:
    """Return ``running``, ``waiting REASON`` or ``terminated REASON CODE``."""
    entry = statuses(pod).get(container, {}).get("lastState" if last else "state") or {}
    for kind, detail in entry.items():
        words = [kind, detail.get("reason", "")]
        if kind == "terminated":
            words.append(str(detail["exitCode"]))
        return " ".join(word for word in words if word)
    return ""


def condition(pod: Document, kind: str) -> str:
    """Return ``True``, or ``False REASON``."""
    for entry in pod.get("status", {}).get("conditions") or []:
        if entry["type"] == kind:
            return f"{entry['status']} {entry.get('reason', '')}".strip()
    return ""


def phase(pod: Document) -> str:
    return pod.get("status", {}).get("phase", "")


def is_ready(pod: Document) -> bool:
    return condition(pod, "Ready") == "True"


def has_ended(pod: Document) -> bool:
    return phase(pod) in {"Succeeded", "Failed"}
