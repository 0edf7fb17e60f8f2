"""The list of controllers, and what a terminating Namespace says."""

from collections import Counter

from podyard.api.scheme import EVENT, EVENT_V1, NODE
from podyard.controllers import reconcilers
from podyard.controllers.parts import Controller
from podyard.controllers.reconcilers.namespace import CONTENTS, build_conditions
from podyard.lib.parts import load_parts


def test_the_controllers_are_these() -> None:
    assert [part.name for part in load_parts(reconcilers, Controller)] == [
        "disruption",
        "endpoint-slice",
        "endpoint-slice-mirroring",
        "endpoints",
        "garbage-collector",
        "namespace",
        "node-lifecycle",
        "persistent-volume",
        "pod-gc",
        "service-account",
    ]


def test_two_views_of_one_store_are_emptied_once() -> None:
    assert EVENT in CONTENTS
    assert EVENT_V1 not in CONTENTS
    assert NODE not in CONTENTS


def test_a_namespace_says_what_it_waits_for() -> None:
    conditions = {
        c["type"]: (c["status"], c["reason"], c["message"])
        for c in build_conditions(
            Counter({"pods.": 2, "configmaps.": 1}),
            Counter({"a/b": 1}),
            ["secrets: no"],
        )
    }

    assert conditions == {
        "NamespaceDeletionDiscoveryFailure": (
            "False",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        "NamespaceDeletionGroupVersionParsingFailure": (
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        "NamespaceDeletionContentFailure": (
            "True",
            "ContentDeletionFailed",
            "Failed to delete all resource types, 1 remaining: secrets: no",
        ),
        "NamespaceContentRemaining": (
            "True",
            "SomeResourcesRemain",
            (
                "Some resources are remaining: configmaps. has 1 resource instances, "
                "pods. has 2 resource instances"
            ),
        ),
        "NamespaceFinalizersRemaining": (
            "True",
            "SomeFinalizersRemain",
            (
                "Some content in the namespace has finalizers remaining: a/b in 1 "
                "resource instances"
            ),
        ),
    }
