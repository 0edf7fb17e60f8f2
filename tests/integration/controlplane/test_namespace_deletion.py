"""A Namespace goes with everything in it."""

from pathlib import Path

import pytest

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import CONFIG_MAP, NAMESPACE, POD, SERVICE_ACCOUNT
from support.control_plane import cluster, config_map, pod, until

pytestmark = pytest.mark.integration

SPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web"}}


async def test_a_namespace_goes_when_its_contents_are_gone(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await running.apply(SPACE)
        kept = config_map("kept", "web", finalizers=["example.com/hold"])
        await running.apply(kept)
        for number in range(5):
            await running.apply(config_map(f"c{number}", "web"))
        await running.apply(pod("p", "web"))
        await until(lambda: running.find(SERVICE_ACCOUNT, "default", "web"))

        answer = await running.admin.delete(NAMESPACE, "web")

        assert answer["status"]["phase"] == "Terminating"

        async def told() -> dict[str, Document]:
            namespace = await running.admin.get(NAMESPACE, "web")
            conditions = {
                c["type"]: c for c in namespace["status"].get("conditions") or ()
            }
            remaining = conditions.get("NamespaceContentRemaining", {})
            is_told = remaining.get("message") == (
                "Some resources are remaining: configmaps. has 1 resource instances"
            )
            return conditions if is_told else {}

        conditions = await until(told)
        assert conditions["NamespaceFinalizersRemaining"]["message"] == (
            "Some content in the namespace has finalizers remaining: example.com/hold "
            "in 1 resource instances"
        )
        assert await running.is_gone(POD, "p", "web")

        with pytest.raises(ApiError) as refusal:
            await running.apply(config_map("late", "web"))
        assert refusal.value.message == (
            'configmaps "late" is forbidden: unable to create new content in namespace '
            "web because it is being terminated"
        )

        await running.admin.patch(
            CONFIG_MAP, "kept", {"metadata": {"finalizers": None}}, "web"
        )
        await until(lambda: running.is_gone(NAMESPACE, "web"), within_s=5)


async def test_an_empty_namespace_goes_at_once_and_may_come_again(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path) as running:
        for _ in range(3):
            await running.apply(SPACE)
            await running.admin.delete(NAMESPACE, "web")
            await until(lambda: running.is_gone(NAMESPACE, "web"), within_s=5)
