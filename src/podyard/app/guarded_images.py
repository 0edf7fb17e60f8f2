"""An image service whose pulls send credentials only where they belong.

A runtime sends what it is given to whatever token realm the registry names, and to
mirrors. So before a pull with credentials the registry is asked without any; a realm
that is neither its own nor allowed ends the pull. A registry that does not say where
credentials would go, because it is busy or fails, gets none: the runtime pulls without,
which has it meet the same failure. The credential is bound to the registry's address,
which keeps it from mirrors.

Where a pull fails because an index has nothing for this machine, the error also says
what the machine is and what is on offer.
"""

import asyncio
import platform
from dataclasses import replace
from typing import Final

import structlog

from podyard.api.image_ref import ImageRef, ImageRefError, parse_image_ref
from podyard.api.observed import FilesystemUsage, Image
from podyard.api.runtime import ImageAuth, SandboxConfig
from podyard.app.config import Config
from podyard.app.registries import RegistriesError, registries_of, registry_client
from podyard.cri.services import CRIError, ImageService
from podyard.lib.clock import Clock, SystemClock
from podyard.registry.decide import choose_platform
from podyard.registry.errors import (
    DnsError,
    ForeignRealmError,
    RegistryError,
    TlsError,
    UnreachableError,
)
from podyard.registry.hosts import own_server
from podyard.registry.manifests import Content, ImageIndex, platform_of_machine
from podyard.registry.transport import Timeouts

log = structlog.get_logger()

#: The check must not make a pull from a slow registry much slower.
_PATIENCE = Timeouts(connect_s=5.0, header_s=10.0, body_s=10.0, busy_s=0.0)
#: After a pull that failed its error is not held back for longer, seconds.
_DIGEST_WITHIN_S: Final = 2.0
#: How long a realm that was found good counts, seconds: a warm pull costs nothing.
_REALM_GOOD_S: Final = 60.0
_MOST_REALMS: Final = 1024
#: How containerd says that an index has nothing for this machine.
_NO_PLATFORM: Final = "no match for platform in manifest"


class GuardedImages:
    """``ImageService`` over another one."""

    def __init__(
        self, images: ImageService, config: Config, *, clock: Clock | None = None
    ) -> None:
        """Guard ``images``; ``config`` says what is known of registries."""
        self._images = images
        self._config = config
        self._clock = clock or SystemClock()
        #: Repository and until when its realm counts as good.
        self._good_until_s: dict[str, float] = {}

    async def list_images(self) -> tuple[Image, ...]:
        """List the images on the node."""
        return await self._images.list_images()

    async def image_status(self, image: str) -> Image | None:
        """Return the image, or ``None`` where it is absent."""
        return await self._images.image_status(image)

    async def pull_image(
        self,
        image: str,
        *,
        auth: ImageAuth | None,
        sandbox: SandboxConfig | None = None,
        handler: str = "",
    ) -> str:
        """Pull; return the image ref. Cancelling the call cancels the pull.

        Raises:
            CRIError: the credentials must not be used, or the runtime's own error.
        """
        ref = _parse(image)
        if auth is not None and ref is not None:
            if not await self._check_realm(ref):
                try:
                    return await self._images.pull_image(
                        image, auth=None, sandbox=sandbox, handler=handler
                    )
                except CRIError:
                    if not await self._check_realm(ref):
                        raise
            auth = await self._bind(ref, auth)
        try:
            return await self._images.pull_image(
                image, auth=auth, sandbox=sandbox, handler=handler
            )
        except CRIError as error:
            if ref is None or _NO_PLATFORM not in error.message:
                raise
            told = await self._tell_platforms(ref, auth)
            if not told:
                raise
            message = f"{error.message}: {told}"
            raise type(error)(error.call, error.code, message) from error

    async def remote_digest(self, image: str, auth: ImageAuth | None) -> str:
        """Return the digest a registry has an image under; empty where it tells none.

        Never waits long, never raises.
        """
        ref = _parse(image)
        if ref is None:
            return ""
        try:
            async with asyncio.timeout(_DIGEST_WITHIN_S):
                client = await registry_client(self._config, timeouts=_PATIENCE)
                async with client:
                    return (await client.head_manifest(ref, auth)).digest
        except (RegistryError, RegistriesError, TimeoutError) as error:
            log.debug("remote_digest_not_told", image=image, error=str(error))
            return ""

    async def remove_image(self, image: str) -> None:
        """Remove an image; a missing one is removed already."""
        await self._images.remove_image(image)

    async def image_fs_info(self) -> tuple[FilesystemUsage, ...]:
        """Return the usage of the image filesystems."""
        return await self._images.image_fs_info()

    async def _bind(self, ref: ImageRef, auth: ImageAuth) -> ImageAuth:
        """Return the credential for the registry's own address and no other."""
        if auth.server_address:
            return auth
        registries = await asyncio.to_thread(registries_of, self._config)
        return replace(auth, server_address=own_server(ref.domain, registries))

    async def _tell_platforms(self, ref: ImageRef, auth: ImageAuth | None) -> str:
        """Return which platforms an index has; empty where that cannot be told."""
        try:
            client = await registry_client(self._config, timeouts=_PATIENCE)
            async with client:
                content = (await client.get_manifest(ref, auth)).content
        except (RegistryError, RegistriesError) as error:
            log.debug("platforms_not_asked", image=str(ref), error=str(error))
            return ""
        if not isinstance(content, ImageIndex):
            return ""
        chosen = choose_platform(content, platform_of_machine(platform.machine()))
        return "" if isinstance(chosen, Content) else chosen.message

    async def _check_realm(self, ref: ImageRef) -> bool:
        """Say whether a pull may take credentials along, as far as can be told.

        Raises:
            CRIError: they would go where they must not.
        """
        now_s = self._clock.monotonic_s()
        if self._good_until_s.get(ref.repository, now_s) > now_s:
            return True
        try:
            client = await registry_client(self._config, timeouts=_PATIENCE)
            async with client:
                is_good = await client.check_realm(ref)
        except ForeignRealmError as error:
            raise CRIError("PullImage", "UNKNOWN", str(error)) from error
        except (DnsError, TlsError, UnreachableError, RegistriesError) as error:
            # The runtime may have a road there that we do not know.
            log.debug("realm_not_checked", image=str(ref), error=str(error))
            return True
        except RegistryError as error:
            log.debug("realm_not_told", image=str(ref), error=str(error))
            # A runtime of somebody else's may have another road, too.
            return bool(self._config.runtime_endpoint)
        if is_good:
            if len(self._good_until_s) >= _MOST_REALMS:
                self._good_until_s.clear()
            self._good_until_s[ref.repository] = now_s + _REALM_GOOD_S
        return is_good


def _parse(image: str) -> ImageRef | None:
    """Return what an image's name says; ``None`` where nothing can have that name."""
    try:
        return parse_image_ref(image)
    except ImageRefError:
        return None
