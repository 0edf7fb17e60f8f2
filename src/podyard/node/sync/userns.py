"""User namespaces of Pods: which range of host ids each one has.

Kept in the Pod's directory, so that a restart of the agent gives the same range.
"""

from pathlib import Path
from typing import Final

import orjson

from podyard.api.core_v1 import Pod
from podyard.api.runtime import IdMapping, UserNamespace

#: Ids of one Pod; the first range of the machine is left to the machine.
LENGTH: Final = 65536
MAX_PODS: Final = 1024
_FILE: Final = "userns"


class UserNamespaceError(Exception):
    """No range is left."""


class UserNamespaces:
    """Hands out ranges of ids. Blocking and short.

    Args:
        pods_dir: holds a directory for each Pod uid.
    """

    def __init__(self, pods_dir: Path) -> None:
        self._pods_dir = pods_dir
        self._taken: dict[str, int] = {}

    def ensure(self, pod: Pod) -> UserNamespace | None:
        """Return the Pod's namespace, ``None`` where it lives in the node's own.

        Raises:
            UserNamespaceError: every range is taken.
            OSError: the choice cannot be written down.
        """
        if pod.spec.host_users is not False:
            return None
        self._load()
        number = self._taken.get(pod.uid)
        if number is None:
            number = self._free()
            path = self._pods_dir / pod.uid / _FILE
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            path.write_bytes(orjson.dumps(_document(number)))
            self._taken[pod.uid] = number
        mapping = (IdMapping(number * LENGTH, 0, LENGTH),)
        return UserNamespace(mapping, mapping)

    def _load(self) -> None:
        present: dict[str, int] = {}
        for path in self._pods_dir.glob(f"*/{_FILE}"):
            try:
                document = orjson.loads(path.read_bytes())
                host = int(document["uidMappings"][0]["hostId"])
            except (OSError, ValueError, KeyError, IndexError, TypeError):
                continue
            present[path.parent.name] = host // LENGTH
        self._taken = present

    def _free(self) -> int:
        taken = set(self._taken.values())
        for number in range(1, MAX_PODS + 1):
            if number not in taken:
                return number
        raise UserNamespaceError(
            "could not find an empty slot to allocate a user namespace"
        )


def _document(number: int) -> dict[str, list[dict[str, int]]]:
    mapping = [{"hostId": number * LENGTH, "containerId": 0, "length": LENGTH}]
    return {"uidMappings": mapping, "gidMappings": mapping}
