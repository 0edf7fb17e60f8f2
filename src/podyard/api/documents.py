"""Objects as they travel: JSON documents, plain dicts.

The one place where ``Any`` names what JSON may hold; everything that decides
reads frozen views (``core_v1``) instead.
"""

from typing import Any, TypeAlias

#: One Kubernetes object, as decoded JSON. Never mutate one you did not make.
Document: TypeAlias = dict[str, Any]
