"""What CI runs, session by session, in the environment that scripts/setup made."""

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "unit", "contract", "integration", "e2e"]

PYTEST = ("python", "-m", "pytest", "-q", "--durations=5")
#: Whole files side by side; each worker has a Podyard of its own.
SIDE_BY_SIDE = ("--dist", "loadfile", "-n")


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting, style, spelling, and the contracts between rooms."""
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports")
    session.run("codespell")


@nox.session
def types(session: nox.Session) -> None:
    """Both type checkers."""
    session.run("mypy")
    session.run("pyright")


@nox.session
def unit(session: nox.Session) -> None:
    """Pure functions and shells over fakes."""
    session.run(
        *PYTEST,
        *SIDE_BY_SIDE,
        "2",
        "tests/unit",
        "tests/architecture",
        *session.posargs,
    )


@nox.session
def contract(session: nox.Session) -> None:
    """One behaviour suite a seam, on the fake and on the real thing."""
    session.run(*PYTEST, "tests/contract", *session.posargs)


@nox.session
def integration(session: nox.Session) -> None:
    """Real SQLite, sockets, containerd, kubectl."""
    session.run(*PYTEST, *SIDE_BY_SIDE, "2", "tests/integration", *session.posargs)


@nox.session
def e2e(session: nox.Session) -> None:
    """Podyard from outside."""
    session.run(
        *PYTEST,
        *SIDE_BY_SIDE,
        "2",
        # The file with one long test shall not come last, when nothing runs beside it.
        "--no-loadscope-reorder",
        "tests/e2e",
        *session.posargs,
    )
