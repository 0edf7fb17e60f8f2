"""Defaults of PriorityClasses.

Source: ``pkg/apis/scheduling/v1/defaults.go`` (v1.36).
"""

from podyard.api.defaults.pod_spec import fill
from podyard.api.documents import Document
from podyard.api.priority import PREEMPT


def default_priority_class(priority_class: Document) -> None:
    """Fill in that Pods of the class preempt others."""
    fill(priority_class, {"preemptionPolicy": PREEMPT})
