"""Store, API server, controllers and scheduler, made and joined."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import structlog

import podyard
from podyard.api.feature_gates import DEFAULT_GATES, FeatureGates
from podyard.api.openapi import OpenApiDocuments
from podyard.api.schema import Schemas
from podyard.app.bootstrap import (
    ApiServerAddress,
    DnsAddress,
    bootstrap,
    bootstrap_dns,
)
from podyard.app.pki import Identity, Pki, client_tls, server_tls
from podyard.app.schema_data import load_schema_data
from podyard.client.connection import ApiConnection
from podyard.client.events import EventRecorder
from podyard.client.http import HttpApiClient
from podyard.controllers import reconcilers
from podyard.controllers.parts import Controller
from podyard.controllers.runner import ControllerRunner
from podyard.lib.aio import supervise
from podyard.lib.clock import Clock
from podyard.lib.parts import load_parts
from podyard.lib.values import dataclass
from podyard.scheduler import plugins as scheduler_plugins
from podyard.scheduler.loop import SCHEDULER_NAME, Scheduler
from podyard.scheduler.parts import SchedulerPlugin
from podyard.server.admission import plugins as admission_plugins
from podyard.server.admission.chain import AdmissionChain
from podyard.server.admission.parts import AdmissionPlugin
from podyard.server.app import ApiServer, Gates, Listener, ServerConfig
from podyard.server.authn import sources as authn_sources
from podyard.server.authn.chain import AuthenticationChain
from podyard.server.authn.parts import AuthenticationContext, Authenticator
from podyard.server.authn.tokens import ServiceAccountTokens, TokenKeys
from podyard.server.authz import modes as authz_modes
from podyard.server.authz.chain import AuthorizationChain
from podyard.server.authz.parts import AuthorizationContext, Authorizer
from podyard.server.authz.reviews import Reviews
from podyard.store.sqlite import SqliteStore, open_store

log = structlog.get_logger()

#: Requests that a house in this process has under way at once. More would only make
#: more connections, each with its TLS handshake, to a server on the same core.
LOCAL_IN_FLIGHT: Final = 4
#: A part of the control plane that crashed starts again after so many seconds.
RESTART_AFTER_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class ControlPlaneConfig:
    """What the control plane needs to know.

    Attributes:
        store_path: the database file.
        addresses: where to listen; the first is the one local clients use.
        node_ip: the address Pods reach the API server at; never loopback.
        port: the port.
        service_cidrs: the ranges of ClusterIPs, one or one a family.
        node_ports: the first and last node port.
        kubernetes_service_ip: the ClusterIP of the API server's own Service.
        cluster_domain: the DNS domain, part of the token issuer.
        enable_admission_plugins: switched on besides those on by default.
        dns: where the built-in DNS is; ``None`` when it is switched off.
        gates: the features that are on.
        node_token_audiences: for whom nodes may have ServiceAccount tokens beyond
            what volumes of their Pods ask for.
    """

    store_path: Path
    addresses: tuple[str, ...]
    node_ip: str
    port: int
    service_cidrs: tuple[str, ...]
    node_ports: tuple[int, int]
    kubernetes_service_ip: str
    cluster_domain: str
    enable_admission_plugins: tuple[str, ...] = ()
    dns: DnsAddress | None = None
    gates: FeatureGates = DEFAULT_GATES
    node_token_audiences: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """A control plane that answers.

    Attributes:
        port: where it listens.
        server: the API server.
        schemas: the definitions of all kinds.
        pki: our own identities.
        address: where local clients reach it.
    """

    port: int
    server: ApiServer
    schemas: Schemas
    pki: Pki
    address: str

    def connection(self, identity: Identity) -> ApiConnection:
        """Return how one of our own components reaches it."""
        return ApiConnection(
            server=f"https://{self.address}:{self.port}",
            ca_pem=self.pki.ca_pem.decode("ascii"),
            client_cert_pem=identity.certificate_pem.decode("ascii"),
            client_key_pem=identity.key_pem.decode("ascii"),
        )


@asynccontextmanager
async def control_plane(
    config: ControlPlaneConfig, pki: Pki, *, clock: Clock, group: asyncio.TaskGroup
) -> AsyncGenerator[ControlPlane, None]:
    """Open the store and answer; stop answering and close it at the end.

    Controllers and scheduler are started by :func:`run_houses` once
    :func:`bootstrap_cluster` is through.

    Raises:
        StoreError: the database cannot be used.
        OSError: an address or port cannot be had.
    """
    async with open_store(config.store_path, clock=clock) as store:
        compaction = group.create_task(_supervised("store", store))
        definitions = load_schema_data()["definitions"]
        schemas = Schemas(definitions)
        openapi = OpenApiDocuments(definitions, podyard.KUBERNETES_VERSION)
        server = _make_server(config, pki, store, clock, schemas, openapi)
        await server.start([Listener(host, config.port) for host in config.addresses])
        try:
            yield ControlPlane(config.port, server, schemas, pki, config.addresses[0])
        finally:
            await server.stop()
            compaction.cancel()


async def _supervised(name: str, store: SqliteStore) -> None:
    await supervise(
        store.run,
        restart_after_s=RESTART_AFTER_S,
        on_crash=partial(_log_crash, name),
    )


def _log_crash(name: str, crash: Exception) -> None:
    log.error("house_crashed", house=name, exc_info=crash)


def _make_server(
    config: ControlPlaneConfig,
    pki: Pki,
    store: SqliteStore,
    clock: Clock,
    schemas: Schemas,
    openapi: OpenApiDocuments,
) -> ApiServer:
    server = ApiServer(
        ServerConfig(
            service_cidrs=config.service_cidrs,
            node_ports=config.node_ports,
            tls=server_tls(pki.api_server, pki.ca_path),
            node_tls=client_tls(pki.ca_pem, pki.api_server_client),
            gates=config.gates,
        ),
        store=store,
        schemas=schemas,
        openapi=openapi,
        clock=clock,
    )
    issuer = f"https://kubernetes.default.svc.{config.cluster_domain}"
    keys = TokenKeys(
        private_pem=pki.service_accounts.private_pem,
        public_pem=pki.service_accounts.public_pem,
        key_id=pki.service_accounts.key_id,
        issuer=issuer,
        audiences=(issuer,),
    )
    tokens = ServiceAccountTokens(keys, server.registry, clock)
    authorization = AuthorizationChain(
        load_parts(authz_modes, Authorizer), AuthorizationContext(server.registry)
    )
    plugins = load_parts(admission_plugins, AdmissionPlugin)
    enabled = {plugin.name for plugin in plugins if plugin.default}
    server.use(
        Gates(
            authentication=AuthenticationChain(
                load_parts(authn_sources, Authenticator), AuthenticationContext(tokens)
            ),
            authorization=authorization,
            admission=AdmissionChain(
                plugins,
                enabled | set(config.enable_admission_plugins),
                server.registry,
                node_token_audiences=config.node_token_audiences,
            ),
            reviews=Reviews(authorization, tokens, keys.audiences, clock).handlers(),
            issue_token=tokens.issue,
            openid_configuration=lambda: tokens.openid_configuration(
                f"https://{config.node_ip}:{config.port}"
            ),
            key_set=tokens.key_set,
        )
    )
    return server


async def bootstrap_cluster(plane: ControlPlane, config: ControlPlaneConfig) -> None:
    """Make namespaces and the ``kubernetes`` Service."""
    async with HttpApiClient(plane.connection(plane.pki.admin)) as client:
        await bootstrap(
            client,
            ApiServerAddress(config.kubernetes_service_ip, config.node_ip, plane.port),
        )
        await bootstrap_dns(client, config.dns)


async def run_houses(plane: ControlPlane, *, clock: Clock) -> None:
    """Run controllers and scheduler for ever, each as its own API user."""
    manager = plane.connection(plane.pki.controller_manager)
    scheduling = plane.connection(plane.pki.scheduler)
    async with (
        HttpApiClient(
            manager, user_agent="podyard-controllers", in_flight=LOCAL_IN_FLIGHT
        ) as manager_client,
        HttpApiClient(
            scheduling, user_agent="podyard-scheduler", in_flight=LOCAL_IN_FLIGHT
        ) as scheduler_client,
        asyncio.TaskGroup() as group,
    ):
        controllers = ControllerRunner(
            manager_client,
            load_parts(reconcilers, Controller),
            clock,
            ca_pem=plane.pki.ca_pem.decode("ascii"),
        )
        recorder = EventRecorder(
            scheduler_client, component=SCHEDULER_NAME, host="", clock=clock
        )
        scheduler = Scheduler(
            scheduler_client,
            load_parts(scheduler_plugins, SchedulerPlugin),
            recorder,
            clock,
        )
        for name, run in (
            ("controllers", controllers.run),
            ("scheduler", scheduler.run),
            ("scheduler-events", recorder.run),
        ):
            group.create_task(
                supervise(
                    run,
                    restart_after_s=RESTART_AFTER_S,
                    on_crash=partial(_log_crash, name),
                ),
                name=name,
            )
