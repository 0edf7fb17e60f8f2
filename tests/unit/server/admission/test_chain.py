"""The order of plugins, and which run."""

import pytest

import podyard.server.admission.plugins
from podyard.lib.parts import load_parts
from podyard.server.admission.chain import AdmissionChain, UnknownPluginError
from podyard.server.admission.decide import PluginOrderError
from podyard.server.admission.parts import (
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionStep,
    Lookup,
)
from support.admission import request
from support.stored_objects import StoredObjects

PARTS = load_parts(podyard.server.admission.plugins, AdmissionPlugin)


def test_plugins_run_in_kubernetes_order() -> None:
    everything = [part.name for part in PARTS]

    assert AdmissionChain(PARTS, everything, StoredObjects()).names == (
        "NamespaceLifecycle",
        "ServiceAccount",
        "NodeRestriction",
        "TaintNodesByCondition",
        "AlwaysPullImages",
        "Priority",
        "DefaultTolerationSeconds",
        "DefaultStorageClass",
        "StorageObjectInUseProtection",
        "PersistentVolumeClaimResize",
        "RuntimeClass",
    )


def test_always_pull_images_is_off_by_default() -> None:
    names = AdmissionChain(PARTS, None, StoredObjects()).names

    assert "AlwaysPullImages" not in names
    assert len(names) == len(PARTS) - 1


def test_an_unknown_plugin_is_an_error() -> None:
    with pytest.raises(
        UnknownPluginError, match="there is no admission plugin named X"
    ):
        AdmissionChain(PARTS, ["X"], StoredObjects())


def test_a_circle_is_an_error() -> None:
    parts = [AdmissionPlugin("A", after=("B",)), AdmissionPlugin("B", after=("A",))]

    with pytest.raises(PluginOrderError, match="A, B"):
        AdmissionChain(parts, None, StoredObjects())


async def test_both_halves_run_in_order() -> None:
    told: list[str] = []

    def step(word: str) -> AdmissionStep:
        async def run(asked: AdmissionRequest, lookup: Lookup) -> None:
            told.append(word)

        return run

    parts = [
        AdmissionPlugin("B", mutate=step("mutate B"), validate=step("validate B")),
        AdmissionPlugin("A", ("B",), step("mutate A"), step("validate A")),
    ]
    chain = AdmissionChain(parts, None, StoredObjects())

    await chain.mutate(request({}))
    await chain.validate(request({}))

    assert told == ["mutate B", "mutate A", "validate B", "validate A"]
