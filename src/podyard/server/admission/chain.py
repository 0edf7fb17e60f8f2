"""The chain of admission plugins a write goes through."""

from collections.abc import Collection, Iterable

from podyard.server.admission.decide import order_plugins
from podyard.server.admission.parts import AdmissionPlugin, AdmissionRequest, Lookup


class UnknownPluginError(Exception):
    """The configuration names an admission plugin that does not exist."""


class AdmissionChain:
    """The enabled plugins in their order.

    Args:
        plugins: every plugin there is.
        enabled: the names of those that run; ``None`` means those on by default.
        lookup: what the plugins see of the store.
        node_token_audiences: told to the plugins with every request.

    Raises:
        UnknownPluginError: ``enabled`` names a plugin there is not.
        PluginOrderError: the plugins' ``after`` names contradict each other.
    """

    def __init__(
        self,
        plugins: Iterable[AdmissionPlugin],
        enabled: Collection[str] | None,
        lookup: Lookup,
        *,
        node_token_audiences: frozenset[str] = frozenset(),
    ) -> None:
        self._node_token_audiences = node_token_audiences
        everything = {plugin.name: plugin for plugin in plugins}
        if enabled is None:
            enabled = [name for name, part in everything.items() if part.default]
        unknown = sorted(set(enabled) - set(everything))
        if unknown:
            raise UnknownPluginError(
                f"there is no admission plugin named {', '.join(unknown)}"
            )
        self._plugins = order_plugins(
            (everything[name] for name in enabled),
            name=lambda plugin: plugin.name,
            after=lambda plugin: plugin.after,
        )
        self._lookup = lookup

    @property
    def names(self) -> tuple[str, ...]:
        """The enabled plugins in the order they run."""
        return tuple(plugin.name for plugin in self._plugins)

    async def mutate(self, request: AdmissionRequest) -> None:
        """Let every plugin change ``request.object``.

        Raises:
            ApiError: a plugin refuses the request.
        """
        for plugin in self._plugins:
            if plugin.mutate is not None:
                await plugin.mutate(request, self._lookup)

    async def validate(self, request: AdmissionRequest) -> None:
        """Let every plugin refuse the request.

        Raises:
            ApiError: a plugin refuses the request.
        """
        request.node_token_audiences = self._node_token_audiences
        for plugin in self._plugins:
            if plugin.validate is not None:
                await plugin.validate(request, self._lookup)
