"""How the node hears that the machine goes down."""

import os
from pathlib import Path

from podyard.app.config import Config, shutdown_periods
from podyard.lib.clock import Clock
from podyard.lib.logind import DROP_INS, SYSTEM_BUS, Logind
from podyard.node.shutdown.manager import NodeEvents, ShutdownManager


def delay_file(name: str) -> Path:
    """Return the file that has logind wait longer for an instance."""
    return DROP_INS / f"99-podyard-{name}.conf"


def make_shutdown(
    config: Config, *, events: NodeEvents, clock: Clock
) -> ShutdownManager | None:
    """Return what ends Pods before the machine goes down.

    ``None`` where no grace period is set for that: then the machine takes them along,
    and they come back with the next start.
    """
    periods = shutdown_periods(config)
    if not periods:
        return None
    address = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or SYSTEM_BUS
    machine = Logind(address, delay_file(config.name))
    return ShutdownManager(machine, periods, events=events, clock=clock)
