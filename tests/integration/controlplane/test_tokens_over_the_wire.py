"""ServiceAccount tokens and certificates, as clients use them."""

from pathlib import Path

import orjson
import pytest

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import POD, SECRET, SERVICE_ACCOUNT
from podyard.client.http import HttpApiClient
from podyard.server.authz.reviews import (
    SELF_SUBJECT_ACCESS_REVIEW,
    SELF_SUBJECT_REVIEW,
    TOKEN_REVIEW,
)
from support.control_plane import Cluster, cluster, pod, until

pytestmark = pytest.mark.integration


async def _token(running: Cluster, **spec: object) -> str:
    request: Document = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": spec,
    }
    answer = await running.admin.create_subresource(
        SERVICE_ACCOUNT, "default", "token", request, "default"
    )
    return str(answer["status"]["token"])


def _review(kind: str, group: str, **spec: object) -> Document:
    return {"apiVersion": f"{group}.k8s.io/v1", "kind": kind, "spec": spec}


async def test_a_token_opens_discovery_and_self_reviews_and_nothing_else(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path) as running:
        await until(lambda: running.find(SERVICE_ACCOUNT, "default", "default"))
        token = await _token(running)

        async with running.client(token=token) as client:
            groups = orjson.loads(await client.get_raw("/apis"))
            me = await client.create(
                SELF_SUBJECT_REVIEW, _review("SelfSubjectReview", "authentication")
            )
            may = await client.create(
                SELF_SUBJECT_ACCESS_REVIEW,
                _review(
                    "SelfSubjectAccessReview",
                    "authorization",
                    resourceAttributes={"verb": "list", "resource": "pods"},
                ),
            )
            with pytest.raises(ApiError) as refusal:
                await client.list(POD, "default")

        assert groups["kind"] == "APIGroupList"
        name = "system:serviceaccount:default:default"
        assert me["status"]["userInfo"]["username"] == name
        assert may["status"] == {"allowed": False}
        assert (refusal.value.code, refusal.value.message) == (
            403,
            (
                f'pods is forbidden: User "{name}" cannot list resource "pods" in API group '
                '"" in the namespace "default"'
            ),
        )


async def test_tokens_are_reviewed_and_end_with_their_account(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await until(lambda: running.find(SERVICE_ACCOUNT, "default", "default"))
        token = await _token(running, audiences=["vault"])
        ask = _review(
            "TokenReview", "authentication", token=token, audiences=["vault", "x"]
        )

        review = await running.admin.create(TOKEN_REVIEW, ask)

        assert review["status"]["authenticated"] is True
        assert review["status"]["audiences"] == ["vault"]

        general = await _token(running)
        await running.admin.delete(SERVICE_ACCOUNT, "default", "default")
        async with running.client(token=general) as client:
            with pytest.raises(ApiError) as refusal:
                await client.get_raw("/apis")
        assert refusal.value.code == 401


async def test_nobody_sees_only_health_and_version(tmp_path: Path) -> None:
    async with cluster(tmp_path, houses=False) as running, running.client() as client:
        assert await client.get_raw("/livez") == b"ok"
        assert b"gitVersion" in await client.get_raw("/version")
        with pytest.raises(ApiError) as refusal:
            await client.get_raw("/api")
        assert (refusal.value.code, refusal.value.message) == (401, "Unauthorized")


async def test_anybody_may_learn_to_verify_tokens_with_a_token(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await until(lambda: running.find(SERVICE_ACCOUNT, "default", "default"))
        async with running.client(token=await _token(running)) as client:
            told = orjson.loads(
                await client.get_raw("/.well-known/openid-configuration")
            )
            keys = orjson.loads(await client.get_raw("/openid/v1/jwks"))

        assert told["issuer"] == "https://kubernetes.default.svc.cluster.local"
        assert keys["keys"][0]["crv"] == "P-256"


async def test_a_node_reads_what_its_pods_need(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await until(lambda: running.find(SERVICE_ACCOUNT, "default", "default"))
        for name in ("needed", "foreign"):
            await running.apply(
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": name, "namespace": "default"},
                    "stringData": {"a": "b"},
                }
            )
        made = await running.apply(
            pod("p", nodeName="n1", imagePullSecrets=[{"name": "needed"}])
        )
        identity = running.plane.connection(running.pki.node_client)
        async with HttpApiClient(identity) as node:
            secret = await node.get(SECRET, "needed", "default")
            with pytest.raises(ApiError) as refusal:
                await node.get(SECRET, "foreign", "default")
            bound = {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": "p",
                "uid": made["metadata"]["uid"],
            }
            answer = await node.create_subresource(
                SERVICE_ACCOUNT,
                "default",
                "token",
                {
                    "apiVersion": "authentication.k8s.io/v1",
                    "kind": "TokenRequest",
                    "spec": {"boundObjectRef": bound, "expirationSeconds": 3607},
                },
                "default",
            )

        assert secret["data"] == {"a": "Yg=="}
        assert refusal.value.code == 403
        assert "no relationship found between node 'n1'" in refusal.value.message
        assert answer["status"]["token"].count(".") == 2
