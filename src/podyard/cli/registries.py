"""What ``podyard registry`` does."""

import argparse
import asyncio
import getpass
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from podyard.app.registries import (
    CredentialFile,
    RegistriesError,
    log_in,
    log_out,
    read_credential_files,
    registry_of,
)
from podyard.app.rehearsal import Candidate, Rehearsal, Who, rehearse
from podyard.cli.build import build_json, build_size, build_table
from podyard.cli.parts import CommandError, UsageError
from podyard.cli.settings import errand_config_of
from podyard.registry.errors import RegistryError


def run(args: argparse.Namespace) -> int:
    """Do an action; turn its failures into a sentence."""
    try:
        return _ACTIONS[args.action](args)
    except (RegistriesError, RegistryError) as error:
        raise CommandError(str(error)) from error
    except PermissionError as error:
        raise CommandError(
            f"{error.filename}: {error.strerror}; run as root, or give --root-dir"
        ) from error


def _login(args: argparse.Namespace) -> int:
    username, password = _ask(args)
    done = asyncio.run(
        log_in(errand_config_of(args), args.registry, username, password)
    )
    print(f"logged in to {done.host} as {username}; kept in {done.file}")
    if not done.asked:
        print(
            f"note: {done.host} asked for no password, so it could not be checked",
            file=sys.stderr,
        )
    return 0


def _ask(args: argparse.Namespace) -> tuple[str, str]:
    """Return user and password; a password is never an argument."""
    username = args.username
    if args.password_stdin:
        if not username:
            raise UsageError("--password-stdin needs --username")
        password = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    else:
        if not sys.stdin.isatty():
            raise UsageError(
                "login: there is no terminal to ask for the password; use "
                "--username and --password-stdin"
            )
        username = username or input("Username: ").strip()
        password = getpass.getpass("Password: ")
    if not username or not password:
        raise UsageError("login: user name and password must not be empty")
    if ":" in username:
        raise UsageError('login: a user name cannot have ":" in it')
    return username, password


def _logout(args: argparse.Namespace) -> int:
    file = asyncio.run(log_out(errand_config_of(args), args.registry))
    host = registry_of(args.registry)
    if file is None:
        raise CommandError(f"there are no credentials for {host} in the node's file")
    print(f"forgot the credentials for {host} in {file}")
    return 0


def _ls(args: argparse.Namespace) -> int:
    files = read_credential_files(errand_config_of(args))
    if args.output == "json":
        print(build_json([_file(file) for file in files]))
        return 0
    rows = [
        (entry.key, entry.username or "-", entry.kind, str(file.path), _note(file))
        for file in files
        for entry in file.entries
    ]
    if rows:
        print(build_table(("REGISTRY", "USER", "KIND", "FILE", "STATE"), rows))
    else:
        print("no credentials; 'podyard registry login REGISTRY' adds some")
    for file in files:
        for line in _remarks(file):
            print(f"note: {line}", file=sys.stderr)
    return 0


def _note(file: CredentialFile) -> str:
    return "used" if file.state == "used" else "not used: an earlier file counts"


def _remarks(file: CredentialFile) -> Iterator[str]:
    if file.state == "invalid":
        yield f"{file.path} is left out: {file.problem}"
    if file.helpers:
        helpers = ", ".join(file.helpers)
        yield f"{file.path} names credential helpers, which are asked: {helpers}"


def _file(file: CredentialFile) -> dict[str, object]:
    return {
        "file": str(file.path),
        "state": file.state,
        "problem": file.problem,
        "helpers": list(file.helpers),
        "entries": [
            {"registry": entry.key, "username": entry.username, "kind": entry.kind}
            for entry in file.entries
        ],
    }


def _test(args: argparse.Namespace) -> int:
    namespace = args.namespace or ("default" if args.service_account else "")
    who = Who(namespace, args.service_account or "default")
    found = asyncio.run(rehearse(errand_config_of(args), args.image, who))
    if args.output == "json":
        print(build_json(_rehearsal(found)))
    else:
        print("\n".join(rehearsal_lines(found, who_namespace=namespace)))
    return 0 if found.works else 1


def rehearsal_lines(found: Rehearsal, *, who_namespace: str) -> Iterator[str]:
    """Yield a rehearsal as lines for people."""
    yield f"image       {found.image}"
    yield f"repository  {found.repository}"
    whose = f"Pods in namespace {who_namespace}" if who_namespace else "the node alone"
    yield f"for         {whose}"
    yield ""
    for candidate in found.candidates:
        yield from _candidate_lines(candidate)
    for problem in found.problems:
        yield f"! {problem}"
    if found.unrelated:
        one = found.unrelated == 1
        what = "credential is" if one else "credentials are"
        yield f"  {found.unrelated} more {what} for other registries"
    yield ""
    if found.works:
        yield f"a pull works: {found.digest} from {found.server}"
        yield f"              {build_size(found.size_bytes)} for {found.node_platform}"
        if found.platforms:
            yield f"              on offer: {', '.join(found.platforms)}"
    else:
        yield f"a pull fails: {found.message}"


def _candidate_lines(candidate: Candidate) -> Iterator[str]:
    mark = "-" if candidate.order is None else str(candidate.order)
    what = candidate.source
    if candidate.key:
        user = f", user {candidate.username}" if candidate.username else ""
        what += f', key "{candidate.key}"{user}'
    yield f"{mark:>2} {what}"
    fits = "fits" if candidate.match.verdict == "match" else "does not fit"
    if candidate.key:
        yield f"     {fits}: {candidate.match.why}"
    for exchange in candidate.exchanges:
        status = exchange.status or "no answer"
        note = f" ({exchange.note})" if exchange.note else ""
        sent = f", sent {exchange.sent}" if exchange.sent != "nothing" else ""
        yield f"     {exchange.method} {exchange.url}{sent} → {status}{note}"
    if candidate.outcome:
        why = f": {candidate.message}" if candidate.message else ""
        yield f"     {candidate.outcome}{why}"


def _rehearsal(found: Rehearsal) -> dict[str, object]:
    return {
        "image": found.image,
        "repository": found.repository,
        "works": found.works,
        "message": found.message,
        "digest": found.digest,
        "server": found.server,
        "sizeBytes": found.size_bytes,
        "nodePlatform": found.node_platform,
        "platforms": list(found.platforms),
        "problems": list(found.problems),
        "unrelatedCredentials": found.unrelated,
        "candidates": [
            {
                "source": candidate.source,
                "key": candidate.key,
                "username": candidate.username,
                "match": candidate.match.verdict,
                "why": candidate.match.why,
                "order": candidate.order,
                "outcome": candidate.outcome,
                "message": candidate.message,
                "exchanges": [
                    {
                        "method": exchange.method,
                        "url": exchange.url,
                        "sent": exchange.sent,
                        "status": exchange.status,
                        "note": exchange.note,
                    }
                    for exchange in candidate.exchanges
                ],
            }
            for candidate in found.candidates
        ],
    }


_ACTIONS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "login": _login,
    "logout": _logout,
    "ls": _ls,
    "test": _test,
}
