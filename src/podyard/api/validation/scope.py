"""What the rules of a Pod spec depend on besides the spec."""

from podyard.api.feature_gates import DEFAULT_GATES, FeatureGates
from podyard.lib.values import dataclass


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a Pod spec stands.

    Attributes:
        gates: the features that are on.
        is_pod: a Pod itself, not a template.
        pod_name: its name, where it has one already.
        is_mirror: it mirrors a static Pod.
    """

    gates: FeatureGates = DEFAULT_GATES
    is_pod: bool = False
    pod_name: str = ""
    is_mirror: bool = False
