"""Feature gates as Kubernetes v1.36 sets them.

Source: ``pkg/features/kube_features.go`` and the KEPs of each gate.
"""

from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Final

from podyard.lib.values import dataclass

#: The gates we know with their defaults.
DEFAULTS: Final[Mapping[str, bool]] = MappingProxyType(
    {
        # The container environment.
        "RelaxedEnvironmentVariableValidation": True,
        "EnvFiles": True,
        "HostnameOverride": True,
        "RelaxedDNSSearchValidation": True,
        "RelaxedServiceNameValidation": True,
        # Hooks, restarts and probes.
        "PodLifecycleSleepAction": True,
        "PodLifecycleSleepActionAllowZero": True,
        "ContainerStopSignals": False,
        "ContainerRestartRules": True,
        "RestartAllContainersOnContainerExits": True,
        "ReduceDefaultCrashLoopBackOffDecay": False,
        "KubeletCrashLoopBackOffMax": True,
        "SidecarContainers": True,
        "ChangeContainerStatusOnKubeletRestart": False,
        # Status.
        "PodObservedGenerationTracking": True,
        "PodReadyToStartContainersCondition": True,
        # Isolation and resources.
        "UserNamespacesSupport": True,
        "UserNamespacesHostNetworkSupport": False,
        "ProcMountType": True,
        "RecursiveReadOnlyMounts": True,
        "SupplementalGroupsPolicy": True,
        "InPlacePodVerticalScaling": True,
        "PodLevelResources": True,
        "TaintTolerationComparisonOperators": False,
        # Images.
        "ImageVolume": True,
        "ImageVolumeWithDigest": False,
        "ImageMaximumGCAge": True,
        "KubeletEnsureSecretPulledImages": True,
        "KubeletServiceAccountTokenForCredentialProviders": True,
        "ServiceAccountNodeAudienceRestriction": True,
        "RuntimeClassInImageCriAPI": False,
        "KubeletSeparateDiskGC": True,
        # The rest.
        "EventedPLEG": False,
    }
)
#: Gates that are generally available and cannot be switched any more.
LOCKED: Final = frozenset(
    {
        "ImageMaximumGCAge",
        "PodLifecycleSleepAction",
        "PodLifecycleSleepActionAllowZero",
        "RelaxedDNSSearchValidation",
        "RelaxedEnvironmentVariableValidation",
        "UserNamespacesSupport",
    }
)


class FeatureGateError(ValueError):
    """A gate that does not exist, or that may not be switched."""


@dataclass(frozen=True, slots=True)
class FeatureGates:
    """Which features are on.

    Attributes:
        overrides: what differs from the defaults.

    Raises:
        FeatureGateError: an override names no gate, or a locked one.
    """

    overrides: Mapping[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.overrides.items():
            if self._default(name) != value and name in LOCKED:
                wanted = "true" if value else "false"
                locked = "false" if value else "true"
                raise FeatureGateError(
                    f"cannot set feature gate {name} to {wanted}, feature is locked to "
                    f"{locked}"
                )

    def enabled(self, name: str) -> bool:
        """Say whether a feature is on.

        Raises:
            FeatureGateError: there is no such gate.
        """
        default = self._default(name)
        return self.overrides.get(name, default)

    @staticmethod
    def _default(name: str) -> bool:
        if name not in DEFAULTS:
            raise FeatureGateError(f"unrecognized feature gate: {name}")
        return DEFAULTS[name]


DEFAULT_GATES: Final = FeatureGates()
