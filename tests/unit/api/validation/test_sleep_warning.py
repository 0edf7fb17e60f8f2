"""A sleep hook that leaves nothing of the grace period is warned of."""

import pytest

from podyard.api.scheme import DEPLOYMENT, POD
from podyard.api.validation import object_warnings


def spec(sleep_s, grace_s):
    container = {
        "name": "c",
        "image": "i",
        "lifecycle": {"preStop": {"sleep": {"seconds": sleep_s}}},
    }
    return {"containers": [container], "terminationGracePeriodSeconds": grace_s}


@pytest.mark.parametrize(
    ("sleep_s", "grace_s", "warned"),
    [
        pytest.param(29, 30, False, id="one-second-is-left"),
        pytest.param(30, 30, True, id="as-long"),
        pytest.param(0, 0, False, id="no-sleep"),
        pytest.param(5, 0, False, id="no-grace-no-hook"),
    ],
)
def test_a_sleep_as_long_as_the_grace_period_is_warned_of(sleep_s, grace_s, warned):
    pod = {"metadata": {"name": "p"}, "spec": spec(sleep_s, grace_s)}

    texts = object_warnings(POD, pod)

    assert len(texts) == warned
    if warned:
        assert texts[0].startswith(
            "spec.containers[0].lifecycle.preStop.sleep.seconds: the hook sleeps as "
            "long as spec.terminationGracePeriodSeconds (30)"
        )


def test_a_template_is_warned_of_too():
    template = {"spec": {"template": {"spec": spec(30, 30)}}}

    texts = object_warnings(DEPLOYMENT, template)

    assert texts[0].startswith("spec.template.spec.containers[0].lifecycle.preStop")
