"""Feature gates."""

from typing import Any

import pytest

from podyard.api.feature_gates import DEFAULT_GATES, FeatureGateError, FeatureGates


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ContainerStopSignals", False),
        ("EnvFiles", True),
        ("ImageVolume", True),
        ("RuntimeClassInImageCriAPI", False),
        ("RestartAllContainersOnContainerExits", True),
    ],
)
def test_gates_stand_as_in_the_mirrored_version(name: Any, expected: Any) -> None:
    assert DEFAULT_GATES.enabled(name) is expected


def test_an_override_wins() -> None:
    assert FeatureGates({"ContainerStopSignals": True}).enabled("ContainerStopSignals")


def test_an_unknown_gate_is_refused() -> None:
    with pytest.raises(FeatureGateError, match="unrecognized feature gate: Nope"):
        FeatureGates({"Nope": True})
    with pytest.raises(FeatureGateError, match="unrecognized feature gate: Nope"):
        DEFAULT_GATES.enabled("Nope")


def test_a_locked_gate_cannot_be_switched() -> None:
    with pytest.raises(FeatureGateError) as caught:
        FeatureGates({"UserNamespacesSupport": False})

    assert str(caught.value) == (
        "cannot set feature gate UserNamespacesSupport to false, feature is locked to true"
    )
