"""Which Events are written: counted, combined, held back."""

from dataclasses import replace

from podyard.client.event_correlation import (
    BURST,
    COMBINED_PREFIX,
    CountEvent,
    CreateEvent,
    DropEvent,
    EventCorrelator,
    EventDecision,
    EventSubject,
    NewEvent,
)

POD = EventSubject("v1", "Pod", "default", "web", uid="u1", resource_version="7")


def pulling(message: str = "Pulling image", subject: EventSubject = POD) -> NewEvent:
    return NewEvent(subject, "Normal", "Pulling", message)


def carry_out(correlator: EventCorrelator, decision: EventDecision) -> EventDecision:
    """Pretend that what was decided has been written."""
    if isinstance(decision, CreateEvent):
        correlator.written(decision.key, name=f"e{id(decision)}", count=1)
    elif isinstance(decision, CountEvent):
        correlator.written(decision.key, name=decision.name, count=decision.count)
    return decision


def test_the_same_event_again_is_counted_whatever_the_objects_version() -> None:
    correlator = EventCorrelator()
    first = carry_out(correlator, correlator.decide(pulling(), now_s=0))
    newer = replace(POD, resource_version="8")

    second = correlator.decide(pulling(subject=newer), now_s=1)

    assert isinstance(first, CreateEvent)
    assert isinstance(second, CountEvent)
    assert second.count == 2
    carry_out(correlator, second)
    third = correlator.decide(pulling(), now_s=2)
    assert isinstance(third, CountEvent)
    assert (third.count, third.name) == (3, second.name)


def test_events_that_differ_in_anything_are_different() -> None:
    correlator = EventCorrelator()
    others = [
        pulling(),
        pulling("Pulling another"),
        pulling(subject=replace(POD, uid="u2")),
        pulling(subject=replace(POD, field_path="spec.containers{web}")),
        replace(pulling(), reason="Pulled"),
        replace(pulling(), type="Warning"),
    ]

    decisions = [carry_out(correlator, correlator.decide(e, now_s=0)) for e in others]

    assert all(isinstance(decision, CreateEvent) for decision in decisions)


def test_an_event_that_was_never_written_is_not_counted() -> None:
    correlator = EventCorrelator()
    correlator.decide(pulling(), now_s=0)

    assert isinstance(correlator.decide(pulling(), now_s=1), CreateEvent)


def test_the_tenth_message_in_ten_minutes_and_later_ones_are_combined() -> None:
    correlator = EventCorrelator()
    decisions = [
        carry_out(correlator, correlator.decide(pulling(f"m{n}"), now_s=float(n)))
        for n in range(12)
    ]

    assert all(isinstance(d, CreateEvent) for d in decisions[:10])
    tenth, eleventh, twelfth = decisions[9:]
    assert isinstance(tenth, CreateEvent)
    assert tenth.event.message == f"{COMBINED_PREFIX}m9"
    assert isinstance(eleventh, CountEvent)
    assert isinstance(twelfth, CountEvent)
    assert (eleventh.count, twelfth.count) == (2, 3)
    assert twelfth.event.message == f"{COMBINED_PREFIX}m11"


def test_after_ten_quiet_minutes_messages_are_told_one_by_one_again() -> None:
    correlator = EventCorrelator()
    for n in range(12):
        carry_out(correlator, correlator.decide(pulling(f"m{n}"), now_s=0))

    later = correlator.decide(pulling("m99"), now_s=601)

    assert isinstance(later, CreateEvent)
    assert later.event.message == "m99"


def test_a_flood_from_one_object_is_held_back_and_refills_slowly() -> None:
    correlator = EventCorrelator()
    flood = [
        carry_out(correlator, correlator.decide(pulling(), now_s=0)) for _ in range(30)
    ]

    assert sum(not isinstance(d, DropEvent) for d in flood) == int(BURST)
    assert isinstance(correlator.decide(pulling(), now_s=299), DropEvent)
    assert isinstance(correlator.decide(pulling(), now_s=301), CountEvent)
    other = replace(POD, name="other", uid="u2")
    assert isinstance(correlator.decide(pulling(subject=other), now_s=0), CreateEvent)
