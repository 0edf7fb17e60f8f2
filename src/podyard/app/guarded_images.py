"""An image service whose pulls send credentials only where they belong.

A runtime sends what it is given to whatever token realm the registry names, and to
mirrors. So before a pull with credentials the registry is asked without any; a realm
that is neither its own nor allowed ends the pull. The credential is bound to the
registry's address, which keeps it from mirrors.
"""

import asyncio
from dataclasses import replace

import structlog

from podyard.api.image_ref import ImageRef, ImageRefError, parse_image_ref
from podyard.api.observed import FilesystemUsage, Image
from podyard.api.runtime import ImageAuth, SandboxConfig
from podyard.app.config import Config
from podyard.app.registries import RegistriesError, registries_of, registry_client
from podyard.cri.services import CRIError, ImageService
from podyard.registry.errors import ForeignRealmError, RegistryError
from podyard.registry.hosts import own_server
from podyard.registry.transport import Timeouts

log = structlog.get_logger()

#: The check must not make a pull from a slow registry much slower.
_PATIENCE = Timeouts(connect_s=5.0, header_s=10.0, body_s=10.0)


class GuardedImages:
    """``ImageService`` over another one."""

    def __init__(self, images: ImageService, config: Config) -> None:
        """Guard ``images``; ``config`` says what is known of registries."""
        self._images = images
        self._config = config

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
        if auth is not None:
            auth = await self._guard(image, auth)
        return await self._images.pull_image(
            image, auth=auth, sandbox=sandbox, handler=handler
        )

    async def remove_image(self, image: str) -> None:
        """Remove an image; a missing one is removed already."""
        await self._images.remove_image(image)

    async def image_fs_info(self) -> tuple[FilesystemUsage, ...]:
        """Return the usage of the image filesystems."""
        return await self._images.image_fs_info()

    async def _guard(self, image: str, auth: ImageAuth) -> ImageAuth:
        try:
            ref = parse_image_ref(image)
        except ImageRefError:
            return auth  # nothing will be pulled by that name
        await self._check_realm(ref)
        if auth.server_address:
            return auth
        registries = await asyncio.to_thread(registries_of, self._config)
        return replace(auth, server_address=own_server(ref.domain, registries))

    async def _check_realm(self, ref: ImageRef) -> None:
        try:
            client = await registry_client(self._config, timeouts=_PATIENCE)
            async with client:
                await client.check_realm(ref)
        except ForeignRealmError as error:
            raise CRIError("PullImage", "UNKNOWN", str(error)) from error
        except (RegistryError, RegistriesError) as error:
            # The runtime meets it too, and has its own words for it.
            log.debug("realm_not_checked", image=str(ref), error=str(error))
