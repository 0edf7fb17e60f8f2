"""The ServiceAccount of a Pod and its token volume."""

import asyncio
from typing import Any

import pytest

from podyard.server.admission.plugins.service_account import MOUNT_PATH, PART
from support.admission import admit, pod, request
from support.stored_objects import StoredObjects, make

MIRROR = {"kubernetes.io/config.mirror": "hash"}
MOUNT = {"name": "kube-api-access-abcde", "readOnly": True, "mountPath": MOUNT_PATH}


def _objects(**account: Any) -> StoredObjects:
    return StoredObjects(
        make("ServiceAccount", "default", "web", **account),
        make("ServiceAccount", "app", "web", imagePullSecrets=[{"name": "reg"}]),
    )


async def test_a_pod_without_account_gets_the_default_one_and_its_token() -> None:
    document = pod(
        initContainers=[{"name": "i"}],
        containers=[{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
    )

    assert await admit(PART, request(document), _objects()) == ""

    spec = document["spec"]
    assert spec["serviceAccountName"] == spec["serviceAccount"] == "default"
    assert spec["volumes"] == [
        {
            "name": "kube-api-access-abcde",
            "projected": {
                "defaultMode": 420,
                "sources": [
                    {
                        "serviceAccountToken": {
                            "expirationSeconds": 3607,
                            "path": "token",
                        }
                    },
                    {
                        "configMap": {
                            "name": "kube-root-ca.crt",
                            "items": [{"key": "ca.crt", "path": "ca.crt"}],
                        }
                    },
                    {
                        "downwardAPI": {
                            "items": [
                                {
                                    "path": "namespace",
                                    "fieldRef": {
                                        "apiVersion": "v1",
                                        "fieldPath": "metadata.namespace",
                                    },
                                }
                            ]
                        }
                    },
                ],
            },
        }
    ]
    assert spec["initContainers"][0]["volumeMounts"] == [MOUNT]
    assert spec["containers"][0]["volumeMounts"] == [
        {"name": "v", "mountPath": "/v"},
        MOUNT,
    ]


@pytest.mark.parametrize(
    ("account", "spec", "mounted"),
    [
        pytest.param({}, {}, True, id="nothing-said"),
        pytest.param(
            {"automountServiceAccountToken": False}, {}, False, id="account-says-no"
        ),
        pytest.param(
            {"automountServiceAccountToken": False},
            {"automountServiceAccountToken": True},
            True,
            id="pod-wins",
        ),
        pytest.param(
            {}, {"automountServiceAccountToken": False}, False, id="pod-says-no"
        ),
    ],
)
async def test_the_token_is_mounted_as_wished(
    account: Any, spec: Any, mounted: bool
) -> None:
    document = pod(**spec)

    await admit(PART, request(document), _objects(**account))

    assert bool(document["spec"].get("volumes")) is mounted


async def test_a_container_with_something_in_that_place_keeps_it() -> None:
    own = {"name": "mine", "mountPath": MOUNT_PATH}
    document = pod(containers=[{"name": "c", "volumeMounts": [own]}])

    await admit(PART, request(document), _objects())

    assert document["spec"]["containers"][0]["volumeMounts"] == [own]
    assert "volumes" not in document["spec"]


async def test_a_token_volume_that_is_there_is_used() -> None:
    volume = {"name": "kube-api-access-given", "projected": {"sources": []}}
    document = pod(volumes=[volume])

    await admit(PART, request(document), _objects())

    assert document["spec"]["volumes"] == [volume]
    mounts = document["spec"]["containers"][0]["volumeMounts"]
    assert mounts[0]["name"] == "kube-api-access-given"


async def test_pull_secrets_are_taken_over_unless_the_pod_has_its_own() -> None:
    plain, own = pod(serviceAccountName="app"), pod(serviceAccountName="app")
    own["spec"]["imagePullSecrets"] = [{"name": "mine"}]

    await admit(PART, request(plain), _objects())
    await admit(PART, request(own), _objects())

    assert plain["spec"]["imagePullSecrets"] == [{"name": "reg"}]
    assert own["spec"]["imagePullSecrets"] == [{"name": "mine"}]


@pytest.mark.parametrize("name", ["nobody", "default"])
async def test_a_missing_account_is_refused(name: str) -> None:
    refusal = await admit(PART, request(pod(serviceAccountName=name)), StoredObjects())

    assert refusal == (
        f'pods "p" is forbidden: error looking up service account web/{name}: '
        f'serviceaccount "{name}" not found'
    )


async def test_the_default_account_may_come_a_moment_later() -> None:
    objects = StoredObjects()
    document = pod()

    async def create() -> None:
        await asyncio.sleep(0.35)
        objects.put(make("ServiceAccount", "default", "web"))

    async with asyncio.TaskGroup() as group:
        group.create_task(create())
        admitted = group.create_task(admit(PART, request(document), objects))

    assert admitted.result() == ""
    assert document["spec"]["serviceAccountName"] == "default"


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        pytest.param({}, "", id="nothing"),
        pytest.param(
            {"serviceAccountName": "app"},
            "a mirror pod may not reference service accounts",
            id="account",
        ),
        pytest.param(
            {"volumes": [{"name": "v", "secret": {"secretName": "s"}}]},
            "a mirror pod may not reference secrets",
            id="secret",
        ),
        pytest.param(
            {
                "containers": [
                    {
                        "name": "c",
                        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {}}}],
                    }
                ]
            },
            "a mirror pod may not reference secrets",
            id="secret-in-env",
        ),
        pytest.param(
            {
                "volumes": [
                    {
                        "name": "v",
                        "projected": {
                            "sources": [{"serviceAccountToken": {"path": "t"}}]
                        },
                    }
                ]
            },
            "a mirror pod may not use ServiceAccountToken volume projections",
            id="token",
        ),
    ],
)
async def test_mirror_pods_stand_alone_and_are_left_as_they_are(
    spec: Any, why: str
) -> None:
    document = pod(annotations=MIRROR, **spec)
    before = dict(document["spec"])

    refusal = await admit(PART, request(document), _objects())

    assert refusal == (f'pods "p" is forbidden: {why}' if why else "")
    assert document["spec"] == before


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        pytest.param(
            {"volumes": [{"name": "v", "secret": {"secretName": "ok"}}]},
            "",
            id="listed",
        ),
        pytest.param(
            {"volumes": [{"name": "v", "secret": {"secretName": "no"}}]},
            'volume with secret.secretName="no" is not allowed because service account '
            "default does not reference that secret",
            id="volume",
        ),
        pytest.param(
            {
                "containers": [
                    {
                        "name": "c",
                        "env": [
                            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "no"}}}
                        ],
                    }
                ]
            },
            'container c with envVar A referencing secret.secretName="no" is not allowed '
            "because service account default does not reference that secret",
            id="env",
        ),
        pytest.param(
            {"imagePullSecrets": [{"name": "no"}]},
            'imagePullSecrets[0].name="no" is not allowed because service account '
            "default does not reference that imagePullSecret",
            id="pull-secret",
        ),
    ],
)
async def test_an_account_may_allow_only_its_own_secrets(spec: Any, why: str) -> None:
    objects = _objects(
        metadata={"annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}},
        secrets=[{"name": "ok"}],
    )

    refusal = await admit(PART, request(pod(**spec)), objects)

    assert refusal == (f'pods "p" is forbidden: {why}' if why else "")
