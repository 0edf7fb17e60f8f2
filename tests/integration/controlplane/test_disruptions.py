"""Budgets say how many Pods may go, and evictions ask them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import (
    POD,
    POD_DISRUPTION_BUDGET,
    PRIORITY_CLASS,
    REPLICA_SET,
    SERVICE_ACCOUNT,
)
from support.control_plane import Cluster, cluster, node, pod, until

pytestmark = pytest.mark.integration

READY = [{"type": "Ready", "status": "True"}]
NOT_READY = [{"type": "Ready", "status": "False"}]


async def settle(running: Cluster) -> None:
    await until(lambda: running.find(SERVICE_ACCOUNT, "default", "default"))


async def make_pod(
    running: Cluster, name: str, conditions: list[Document], **metadata: Any
) -> None:
    """Make a Pod that runs on no real node."""
    document = pod(name, nodeName="n1", terminationGracePeriodSeconds=3)
    document["metadata"] |= {"labels": {"app": "web"}, **metadata}
    await running.apply(document)
    status = {"status": {"phase": "Running", "conditions": conditions}}
    await running.admin.patch(POD, name, status, "default", subresource="status")


def budget(name: str = "b", **spec: Any) -> Document:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, **spec},
    }


async def status_of(running: Cluster, name: str = "b") -> Document:
    found = await running.admin.get(POD_DISRUPTION_BUDGET, name, "default")
    status: Document = found.get("status") or {}
    return status


async def counts(running: Cluster, *expected: int) -> None:
    """Wait until a budget allows, has, wants and expects so many."""

    async def same() -> bool:
        status = await status_of(running)
        fields = (
            "disruptionsAllowed",
            "currentHealthy",
            "desiredHealthy",
            "expectedPods",
        )
        return [status.get(field) for field in fields] == list(expected)

    await until(same, what=f"counts {expected}")


async def evict(running: Cluster, name: str, **options: Any) -> Document:
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": "default"},
    }
    if options:
        eviction["deleteOptions"] = options
    return await running.admin.create_subresource(
        POD, name, "eviction", eviction, "default"
    )


async def refusal(running: Cluster, name: str, **options: Any) -> Document:
    with pytest.raises(ApiError) as caught:
        await evict(running, name, **options)
    return caught.value.to_status()


async def test_a_budget_lets_one_of_two_go_and_then_none(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await settle(running)
        await running.apply(node("n1"))
        await make_pod(running, "a", READY)
        await make_pod(running, "b", READY)
        await running.apply(budget(minAvailable=1))
        await counts(running, 1, 2, 1, 2)
        (allowed,) = (await status_of(running))["conditions"]
        assert (allowed["type"], allowed["status"], allowed["reason"]) == (
            "DisruptionAllowed",
            "True",
            "SufficientPods",
        )

        await evict(running, "a", dryRun=["All"])
        assert (await status_of(running))["disruptionsAllowed"] == 1
        await evict(running, "a")
        refused = await refusal(running, "b")

        assert (refused["code"], refused["reason"]) == (429, "TooManyRequests")
        assert refused["message"] == (
            "Cannot evict pod as it would violate the pod's disruption budget."
        )
        (cause,) = refused["details"]["causes"]
        assert cause["reason"] == "DisruptionBudget"
        leaving = await running.admin.get(POD, "a", "default")
        assert leaving["metadata"]["deletionGracePeriodSeconds"] == 3
        mark = next(
            c
            for c in leaving["status"]["conditions"]
            if c["type"] == "DisruptionTarget"
        )
        assert (mark["reason"], mark["message"]) == (
            "EvictionByEvictionAPI",
            "Eviction API: evicting",
        )
        await counts(running, 0, 1, 1, 2)
        refused = await refusal(running, "b")
        assert refused["details"]["causes"][0]["message"] == (
            "The disruption budget b needs 1 healthy pods and has 1 currently"
        )


async def test_two_evictions_at_once_never_spend_the_same_allowance(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path) as running:
        await settle(running)
        for name in "abcd":
            await make_pod(running, name, READY)
        await running.apply(budget(minAvailable=2))
        await counts(running, 2, 4, 2, 4)
        results: list[int] = []

        async def attempt(name: str) -> None:
            try:
                await evict(running, name)
                results.append(201)
            except ApiError as error:
                results.append(error.code)

        async with asyncio.TaskGroup() as group:
            for name in "abcd":
                group.create_task(attempt(name))

        assert sorted(results) == [201, 201, 429, 429]


async def test_shares_are_of_what_the_controllers_want(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await settle(running)
        template = {
            "metadata": {"labels": {"app": "web"}},
            "spec": pod("x")["spec"],
        }
        owner = await running.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {"name": "rs", "namespace": "default"},
                "spec": {
                    "replicas": 2,
                    "selector": {"matchLabels": {"app": "web"}},
                    "template": template,
                },
            }
        )
        reference = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": "rs",
            "uid": owner["metadata"]["uid"],
            "controller": True,
        }
        for name in ("a", "b"):
            await make_pod(running, name, READY, ownerReferences=[reference])
        await running.apply(budget(maxUnavailable="50%"))

        await counts(running, 1, 2, 1, 2)
        await running.admin.patch(
            REPLICA_SET, "rs", {"metadata": {"labels": {"x": "y"}}}, "default"
        )


async def test_who_cannot_be_counted_may_not_go(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await settle(running)
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": "j",
            "uid": "u",
            "controller": True,
        }
        await make_pod(running, "a", READY, ownerReferences=[job])
        await running.apply(budget(maxUnavailable=1))

        async def failed() -> bool:
            conditions = (await status_of(running)).get("conditions") or [{}]
            return bool(conditions[0].get("reason") == "SyncFailed")

        await until(failed)
        status = await status_of(running)
        assert status["conditions"][0]["message"] == (
            "jobs.batch does not implement the scale subresource"
        )
        assert status["disruptionsAllowed"] == 0
        assert await until(
            lambda: running.events("CalculateExpectedPodCountFailed")
        ) == [
            (
                "Failed to calculate the number of expected pods: jobs.batch does not "
                "implement the scale subresource"
            )
        ]


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        pytest.param(None, 429, id="guarded-by-default"),
        pytest.param("IfHealthyBudget", 429, id="guarded"),
        pytest.param("AlwaysAllow", 0, id="always"),
    ],
)
async def test_who_is_not_ready_goes_as_the_policy_says(
    tmp_path: Path, policy: str | None, code: int
) -> None:
    async with cluster(tmp_path) as running:
        await settle(running)
        await make_pod(running, "a", READY)
        await make_pod(running, "b", NOT_READY)
        extra = {"unhealthyPodEvictionPolicy": policy} if policy else {}
        await running.apply(budget(minAvailable=2, **extra))
        await counts(running, 0, 1, 2, 2)

        if code:
            assert (await refusal(running, "b"))["code"] == code
        else:
            await evict(running, "b")


async def test_two_budgets_over_one_pod_are_refused(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await settle(running)
        await make_pod(running, "a", READY)
        await running.apply(budget("b", minAvailable=0))
        await running.apply(budget("c", minAvailable=0))

        refused = await refusal(running, "a")

        assert refused["code"] == 500
        assert refused["message"] == (
            "This pod has more than one PodDisruptionBudget, which the eviction "
            "subresource does not support."
        )


async def test_priorities_come_from_classes(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await settle(running)
        names = [
            item["metadata"]["name"]
            for item in (await running.admin.list(PRIORITY_CLASS))["items"]
        ]
        assert names == ["system-cluster-critical", "system-node-critical"]

        for name, extra in (("high", {}), ("usual", {"globalDefault": True})):
            await running.apply(
                {
                    "apiVersion": "scheduling.k8s.io/v1",
                    "kind": "PriorityClass",
                    "metadata": {"name": name},
                    "value": {"high": 1000, "usual": 10}[name],
                    "preemptionPolicy": "Never" if name == "high" else None,
                    **extra,
                }
            )
        high = await running.apply(pod("high", priorityClassName="high"))
        usual = await running.apply(pod("usual"))

        assert (high["spec"]["priority"], high["spec"]["preemptionPolicy"]) == (
            1000,
            "Never",
        )
        assert (usual["spec"]["priority"], usual["spec"]["priorityClassName"]) == (
            10,
            "usual",
        )
        with pytest.raises(ApiError, match="cannot be deleted"):
            await running.admin.delete(PRIORITY_CLASS, "system-node-critical")
        with pytest.raises(ApiError, match="Only one default can exist"):
            await running.apply(
                {
                    "apiVersion": "scheduling.k8s.io/v1",
                    "kind": "PriorityClass",
                    "metadata": {"name": "second"},
                    "value": 5,
                    "globalDefault": True,
                }
            )
