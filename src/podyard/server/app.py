"""The API server as a whole: made of what it is handed, started, stopped.

::

    server = ApiServer(
        ServerConfig(service_cidrs=("10.96.0.0/16",), tls=context),
        store=store,
        schemas=Schemas(data["definitions"]),
        openapi=OpenApiDocuments(data["definitions"], KUBERNETES_VERSION),
        clock=SystemClock(),
    )
    # Authentication, authorization and admission look objects up:
    server.registry.get(kind, namespace, name), server.registry.list(kind, namespace)
    server.use(Gates(authentication=…, authorization=…, admission=…))
    bound = await server.start([Listener("127.0.0.1", 6443)])
    …
    await server.stop()
"""

import random
import secrets
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field

from podyard.api.documents import Document
from podyard.api.feature_gates import DEFAULT_GATES, FeatureGates
from podyard.api.openapi import OpenApiDocuments
from podyard.api.schema import Schemas
from podyard.api.scheme import CUSTOM_RESOURCE_DEFINITION, SERVICE, Kind
from podyard.lib.clock import Clock
from podyard.lib.parts import load_parts
from podyard.lib.values import dataclass
from podyard.server import resources as resource_parts
from podyard.server.allocation import ServiceAddresses
from podyard.server.context import (
    Admission,
    IssueToken,
    NoAdmission,
    ReviewHandler,
    ServerContext,
)
from podyard.server.discovery import Discovery, served_kinds
from podyard.server.http import Door, Listener
from podyard.server.measures import Measures, store_metrics
from podyard.server.nodes import NodeDialer
from podyard.server.pipeline import Authentication, Authorization, Pipeline
from podyard.server.registry import Registry
from podyard.server.resource import Resource
from podyard.server.site import Check, Site
from podyard.server.table import PLAIN_COLUMNS, plain_cells
from podyard.server.verbs.watch import Watches
from podyard.store.backend import Backend

__all__ = ["ApiServer", "Gates", "Listener", "ServerConfig", "load_resources"]


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What an operator may choose.

    Attributes:
        service_cidrs: the ranges of ClusterIPs, one or one a family; the first is
            the one Services get that do not say.
        node_ports: the first and last node port.
        tls: the server's certificate, and how client certificates are verified
            (``CERT_OPTIONAL``); ``None`` where no listener speaks TLS.
        node_tls: how nodes are trusted and what is shown to them; ``None`` speaks
            plain HTTP to them.
        request_timeout_s: how long an answer may take to begin, seconds.
        gates: the features that are on.
    """

    service_cidrs: tuple[str, ...] = ("10.96.0.0/16",)
    node_ports: tuple[int, int] = (30000, 32767)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    node_tls: ssl.SSLContext | None = field(default=None, repr=False)
    request_timeout_s: float = 60.0
    gates: FeatureGates = DEFAULT_GATES


@dataclass(frozen=True, slots=True)
class Gates:
    """Who may pass, and what they may bring; they look objects up in the registry.

    Attributes:
        authentication: tells who asks.
        authorization: tells whether they may.
        admission: may change or refuse a write.
        reviews: answers the kinds that are never stored.
        issue_token: issues ServiceAccount tokens.
        openid_configuration: the token issuer's document.
        key_set: the token issuer's keys.
    """

    authentication: Authentication
    authorization: Authorization
    admission: Admission = field(default_factory=NoAdmission)
    reviews: Mapping[Kind, ReviewHandler] = field(default_factory=dict)
    issue_token: IssueToken | None = None
    openid_configuration: Callable[[], Document] | None = None
    key_set: Callable[[], Document] | None = None


def load_resources() -> tuple[Resource, ...]:
    """Return every kind that is stored and served."""
    return load_parts(resource_parts, Resource)


class ApiServer:
    """One API server over one store.

    Args:
        config: what an operator may choose.
        store: where the objects are.
        schemas: the definitions of all kinds.
        openapi: the OpenAPI documents; without them clients cannot validate.
        clock: tells the time.
        checks: more named conditions of ``/readyz``: empty text is fine.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        store: Backend,
        schemas: Schemas,
        openapi: OpenApiDocuments | None,
        clock: Clock,
        checks: Mapping[str, Check] | None = None,
    ) -> None:
        self._config = config
        self._schemas = schemas
        self._openapi = openapi
        self._clock = clock
        self._store = store
        self._more_checks = dict(checks or {})
        self.registry = Registry(store, load_resources())
        self.addresses = ServiceAddresses(
            config.service_cidrs, config.node_ports, random.SystemRandom()
        )
        self.measures = Measures(self.registry)
        for metric in store_metrics(store.statistics):
            self.measures.add(metric)
        self._nodes = NodeDialer(config.node_tls)
        self._door: Door | None = None
        self._watches: Watches | None = None
        self._is_stopping = False

    def use(self, gates: Gates) -> None:
        """Set who may pass; once, before ``start``."""
        reviews = tuple(gates.reviews)
        registry = self.registry
        registry.add_unstored(
            (
                *(_unstored(kind, "create") for kind in reviews),
                # Not in discovery: the list is always empty.
                _unstored(CUSTOM_RESOURCE_DEFINITION, "list", "watch"),
            )
        )
        context = ServerContext(
            registry=registry,
            schemas=self._schemas,
            admission=gates.admission,
            addresses=self.addresses,
            clock=self._clock,
            random_bytes=secrets.token_bytes,
            reviews=gates.reviews,
            issue_token=gates.issue_token,
            gates=self._config.gates,
            check_access=gates.authorization.check,
        )
        self._watches = Watches(context)
        pipeline = Pipeline(
            context,
            self._watches,
            Discovery(served_kinds(registry.resources, reviews)),
            self._site(gates),
            gates.authentication,
            gates.authorization,
        )
        self._door = Door(
            pipeline,
            self._nodes,
            self.measures,
            request_timeout_s=self._config.request_timeout_s,
        )

    def _site(self, gates: Gates) -> Site:
        checks = {
            "ping": lambda: "",
            "store": self._check_store,
            "shutdown": lambda: "the server is stopping" if self._is_stopping else "",
            **self._more_checks,
        }
        return Site(
            openapi=self._openapi,
            checks=checks,
            read_metrics=self.measures.to_text,
            ready_only=frozenset({"shutdown", *self._more_checks}),
            openid_configuration=gates.openid_configuration,
            key_set=gates.key_set,
            started_at=self._clock.now(),
        )

    def _check_store(self) -> str:
        return "no space is left" if self._store.statistics().full else ""

    async def start(self, listeners: Sequence[Listener]) -> list[Listener]:
        """Read which addresses are taken, then listen.

        Returns:
            The listeners with the ports they got.

        Raises:
            OSError: an address cannot be had.
            RuntimeError: ``use`` was not called.
        """
        if self._door is None:
            raise RuntimeError("say who may pass first: ApiServer.use(Gates(...))")
        self.addresses.load(await self.registry.list(SERVICE, ""))
        await self._nodes.start()
        try:
            return await self._door.start(list(listeners), self._config.tls)
        except BaseException:
            await self._nodes.close()
            raise

    async def stop(self) -> None:
        """Stop listening; watches and logs end cleanly, tunnels at once."""
        self._is_stopping = True
        if self._watches is not None:
            self._watches.close()
        self._nodes.close_streams()
        if self._door is not None:
            await self._door.stop()
        await self._nodes.close()


def _unstored(kind: Kind, *verbs: str) -> Resource:
    return Resource(kind, columns=PLAIN_COLUMNS, cells=plain_cells, verbs=verbs)
