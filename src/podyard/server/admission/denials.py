"""How a plugin says no."""

from podyard.api.errors import ApiError, forbidden
from podyard.server.admission.parts import AdmissionRequest


def deny(request: AdmissionRequest, why: str) -> ApiError:
    """Return the 403 for a request, naming its object as far as it has a name."""
    metadata = (request.object or {}).get("metadata") or {}
    name = request.name or metadata.get("name") or metadata.get("generateName") or ""
    return forbidden(request.kind.group, request.kind.resource, str(name), why)
