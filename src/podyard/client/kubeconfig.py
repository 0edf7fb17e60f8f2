"""Kubeconfig files: read as kubectl does, written whole, merged with care.

Source: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
and the types of client-go's ``tools/clientcmd/api/v1`` (v0.36).
"""

import base64
import binascii
import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from podyard.api.documents import Document
from podyard.client.connection import ApiConnection
from podyard.lib.yaml_json import YamlError, load_yaml

#: The lists of a kubeconfig, and what an entry's body is called.
_LISTS: Final = {"clusters": "cluster", "users": "user", "contexts": "context"}


class KubeconfigError(ValueError):
    """A kubeconfig cannot be used; the message names the file and the field."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"kubeconfig {path}: {problem}")
        self.path = path
        self.problem = problem


def load_kubeconfig(path: Path, *, context: str = "") -> ApiConnection:
    """Read how to reach a server.

    Args:
        path: the file; relative paths in it count from its folder.
        context: which context; empty is the file's ``current-context``.

    Raises:
        KubeconfigError: the file is missing, broken, or asks for what we cannot do.
    """
    document = _read(path)
    name = context or str(document.get("current-context") or "")
    if not name:
        raise KubeconfigError(path, "no current-context, and none was asked for")
    chosen = _entry(path, document, "contexts", name)
    cluster = _entry(path, document, "clusters", str(chosen.get("cluster") or ""))
    user_name = str(chosen.get("user") or "")
    user = _entry(path, document, "users", user_name) if user_name else {}
    server = cluster.get("server")
    if not isinstance(server, str) or "://" not in server:
        raise KubeconfigError(path, f"the cluster of context {name!r} has no server")
    _refuse_unsupported(path, user_name, user)
    cert = _pem(path, user, "client-certificate")
    key = _pem(path, user, "client-key")
    if bool(cert) != bool(key):
        raise KubeconfigError(
            path, f"user {user_name!r} needs both a client certificate and its key"
        )
    token_file = user.get("tokenFile")
    return ApiConnection(
        server=server,
        ca_pem=_pem(path, cluster, "certificate-authority"),
        client_cert_pem=cert,
        client_key_pem=key,
        token=str(user.get("token") or ""),
        token_file=_resolve(path, token_file) if token_file else None,
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        tls_server_name=str(cluster.get("tls-server-name") or ""),
        proxy_url=str(cluster.get("proxy-url") or ""),
        namespace=str(chosen.get("namespace") or ""),
    )


def build_kubeconfig(
    connection: ApiConnection, *, name: str, user: str = "", namespace: str = ""
) -> Document:
    """Return a kubeconfig with one cluster, user and context, all embedded.

    Args:
        connection: where, and as whom.
        name: the name of the cluster and of the context.
        user: the name of the user, ``name`` where empty.
        namespace: the context's namespace, none where empty.
    """
    cluster: Document = {"server": connection.server}
    if connection.ca_pem:
        cluster["certificate-authority-data"] = _encode(connection.ca_pem)
    if connection.insecure:
        cluster["insecure-skip-tls-verify"] = True
    if connection.tls_server_name:
        cluster["tls-server-name"] = connection.tls_server_name
    if connection.proxy_url:
        cluster["proxy-url"] = connection.proxy_url
    who: Document = {}
    if connection.client_cert_pem:
        who["client-certificate-data"] = _encode(connection.client_cert_pem)
        who["client-key-data"] = _encode(connection.client_key_pem)
    if connection.token:
        who["token"] = connection.token
    if connection.token_file is not None:
        who["tokenFile"] = str(connection.token_file)
    context: Document = {"cluster": name, "user": user or name}
    if namespace:
        context["namespace"] = namespace
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": user or name, "user": who}],
        "contexts": [{"name": name, "context": context}],
        "current-context": name,
    }


def write_kubeconfig(path: Path, document: Document) -> None:
    """Write a kubeconfig of our own, whole or not at all, for its owner's eyes only.

    Raises:
        KubeconfigError: it cannot be written.
    """
    _replace_file(path, _dump(document), mode=0o600)


def merge_kubeconfig(source: Path, target: Path, *, make_current: bool = True) -> None:
    """Add the entries of one kubeconfig to a user's file, or replace them there.

    Everything else stays: other entries, unknown fields, order, the file's mode and
    owner, and as far as its form allows, comments. A reader never sees half a file,
    and a file that cannot be understood is left alone. As kubectl does, it holds
    ``<target>.lock`` meanwhile.

    Args:
        source: a kubeconfig as ``build_kubeconfig`` makes it, all embedded.
        target: the user's file; made where it is missing; a link is followed.
        make_current: whether the source's ``current-context`` becomes the target's.

    Raises:
        KubeconfigError: a file is broken or locked, or cannot be read or written.
    """
    document = _read(source)
    file = target.resolve()
    with _locked(file):
        if not file.exists():
            write_kubeconfig(file, document)
            return
        text = _read_text(file)
        merged = _merge(_parse(file, text), document, make_current=make_current)
        spliced = _splice(text, document, make_current=make_current)
        if spliced is None or not _says(file, spliced, merged):
            spliced = _dump(merged)
        _replace_file(file, spliced, mode=stat.S_IMODE(file.stat().st_mode))


# ── reading ─────────────────────────────────────────────────────────────────────


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        raise KubeconfigError(path, "the file does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise KubeconfigError(path, f"cannot be read: {error}") from error


def _read(path: Path) -> Document:
    return _parse(path, _read_text(path))


def _parse(path: Path, text: str) -> Document:
    try:
        document, _ = load_yaml(text)
    except YamlError as error:
        raise KubeconfigError(path, str(error)) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise KubeconfigError(path, "it is no mapping")
    for kind, body in _LISTS.items():
        _check_list(path, document, kind, body)
    return document


def _says(path: Path, text: str, document: Document) -> bool:
    try:
        return _parse(path, text) == document
    except KubeconfigError:
        return False


def _check_list(path: Path, document: Document, kind: str, body: str) -> None:
    entries = document.get(kind)
    if entries is None:
        return
    if not isinstance(entries, list):
        raise KubeconfigError(path, f"{kind} is no list")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise KubeconfigError(path, f"{kind}[{number}] has no name")
        if not isinstance(entry.get(body) or {}, dict):
            raise KubeconfigError(path, f"{kind}[{number}].{body} is no mapping")


def _entry(path: Path, document: Document, kind: str, name: str) -> Mapping[str, Any]:
    body = _LISTS[kind]
    for entry in document.get(kind) or ():
        if entry["name"] == name:
            found: Mapping[str, Any] = entry.get(body) or {}
            return found
    raise KubeconfigError(path, f"there is no {body} named {name!r}")


def _refuse_unsupported(path: Path, name: str, user: Mapping[str, Any]) -> None:
    for field in ("exec", "auth-provider"):
        if user.get(field):
            raise KubeconfigError(
                path,
                f"user {name!r} gets its credentials from {field!r}, which is not "
                "supported; use a client certificate, token or tokenFile",
            )
    if user.get("username") or user.get("password"):
        raise KubeconfigError(
            path, f"user {name!r} has a password, which Kubernetes no longer accepts"
        )


def _pem(path: Path, where: Mapping[str, Any], field: str) -> str:
    """Return ``<field>-data`` decoded, or what the file named by ``<field>`` holds."""
    data = where.get(f"{field}-data")
    if data:
        try:
            return base64.b64decode(str(data), validate=False).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise KubeconfigError(path, f"{field}-data is not base64 of PEM") from error
    if not where.get(field):
        return ""
    file = _resolve(path, where[field])
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise KubeconfigError(path, f"{field} {file} cannot be read: {error}") from None


def _resolve(path: Path, name: object) -> Path:
    return path.parent / Path(str(name)).expanduser()


def _encode(pem: str) -> str:
    return base64.b64encode(pem.encode()).decode()


# ── writing ─────────────────────────────────────────────────────────────────────


def _dump(document: Document) -> str:
    text: str = yaml.safe_dump(document, sort_keys=False, default_flow_style=False)
    return text


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = path.with_name(f"{path.name}.lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise KubeconfigError(
            path, f"is being changed by another program; if not, remove {lock}"
        ) from None
    except OSError as error:
        raise KubeconfigError(path, f"cannot be locked: {error.strerror}") from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _replace_file(path: Path, text: str, *, mode: int) -> None:
    """Put a new file in the place of the old one in one step."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            _keep_owner(fd, path)
            os.fchmod(fd, mode)
            os.fsync(fd)
        new.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise KubeconfigError(path, f"cannot be written: {error.strerror}") from error


def _keep_owner(fd: int, path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError):
        old = path.stat()
        os.fchown(fd, old.st_uid, old.st_gid)


# ── merging ─────────────────────────────────────────────────────────────────────


def _merge(old: Document, new: Document, *, make_current: bool) -> Document:
    merged = dict(old)
    for kind in _LISTS:
        entries = list(old.get(kind) or ())
        for entry in new.get(kind) or ():
            place = [i for i, e in enumerate(entries) if e["name"] == entry["name"]]
            if place:
                entries[place[0]] = entry
            else:
                entries.append(entry)
        merged[kind] = entries
    merged.setdefault("apiVersion", "v1")
    merged.setdefault("kind", "Config")
    if make_current or not merged.get("current-context"):
        merged["current-context"] = new.get("current-context", "")
    return merged


def _splice(text: str, new: Document, *, make_current: bool) -> str | None:
    """Change only the lines that must change; ``None`` where the form forbids it."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        return None
    values = {key.value: value for key, value in root.value}
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    edits: list[tuple[int, int, str]] = []
    for kind in _LISTS:
        for entry in new.get(kind) or ():
            edit = _edit_entry(lines, values.get(kind), kind, entry)
            if edit is None:
                return None
            edits.append(edit)
    if make_current or not getattr(values.get("current-context"), "value", ""):
        edits.append(_edit_current(lines, root, new.get("current-context", "")))
    # From the bottom up, so that line numbers above stay true.
    for start, end, replacement in sorted(edits, key=lambda edit: -edit[0]):
        lines[start:end] = [replacement]
    return "".join(lines)


def _edit_entry(
    lines: list[str], found: yaml.Node | None, kind: str, entry: Document
) -> tuple[int, int, str] | None:
    """Return which lines an entry replaces, and with what."""
    end_of_text = len(lines)
    if found is None:
        return end_of_text, end_of_text, _dump({kind: [entry]})
    if not isinstance(found, yaml.SequenceNode) or found.flow_style or not found.value:
        return None
    indent = " " * (found.value[0].start_mark.column - 2)
    body = "".join(indent + line for line in _dump_entry(entry))
    for node in found.value:
        if _name_of(node) == entry["name"]:
            return node.start_mark.line, _last_line(lines, node), body
    end = _last_line(lines, found.value[-1])
    return end, end, body


def _dump_entry(entry: Document) -> list[str]:
    return _dump_list([entry]).splitlines(keepends=True)


def _dump_list(entries: list[Document]) -> str:
    text: str = yaml.safe_dump(entries, sort_keys=False, default_flow_style=False)
    return text


def _name_of(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == "name":
                return str(value.value)
    return ""


def _last_line(lines: list[str], node: yaml.Node) -> int:
    """Return the line after a block node, without the comments that follow it."""
    end: int = node.end_mark.line
    if node.end_mark.column > 0:
        end += 1
    while end > node.start_mark.line + 1 and _is_filler(lines[end - 1]):
        end -= 1
    return end


def _is_filler(line: str) -> bool:
    stripped = line.strip()
    return not stripped or stripped.startswith("#")


def _edit_current(
    lines: list[str], root: yaml.MappingNode, name: str
) -> tuple[int, int, str]:
    text = _dump({"current-context": name})
    for key, value in root.value:
        if key.value == "current-context":
            start = key.start_mark.line
            return start, _last_line(lines, value), text
    return len(lines), len(lines), text
