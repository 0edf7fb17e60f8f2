"""DNS messages: what is understood, what is refused, what is sent."""

import random

import dns.flags
import dns.message
import dns.rcode
import pytest

from podyard.network.dns.decide import Answer, DnsSettings, Record
from podyard.network.dns.messages import (
    Query,
    build_answer,
    read_query,
    to_bytes,
)

SETTINGS = DnsSettings("cluster.local", "10.96.0.10")


def wire(name="web.default.svc.cluster.local", type_="A", **options):
    return dns.message.make_query(name, type_, **options).to_wire()


def changed(data, at, value):
    return data[:at] + bytes([value]) + data[at + 1 :]


def test_a_question_is_read():
    query = read_query(wire("WEB.Default.svc.cluster.local", "SRV"))

    assert isinstance(query, Query)
    assert (query.name, query.type) == ("web.default.svc.cluster.local", "SRV")
    assert query.size == 512


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        pytest.param(1232, 1232, id="edns"),
        pytest.param(100, 512, id="never-below-512"),
    ],
)
def test_the_size_a_client_takes_is_read(payload, expected):
    query = read_query(wire(use_edns=0, payload=payload))

    assert isinstance(query, Query)
    assert query.size == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(changed(wire(), 2, 0x20), "NOTIMP", id="notify"),
        pytest.param(wire(rdclass="CH"), "REFUSED", id="class"),
        pytest.param(changed(wire(), 5, 0), "FORMERR", id="no-question"),
        pytest.param(wire()[:20], "FORMERR", id="cut-short"),
        pytest.param(wire(use_edns=1), "BADVERS", id="edns-version"),
    ],
)
def test_what_is_no_question_is_refused(data, expected):
    answer = read_query(data)

    assert isinstance(answer, bytes)
    message = dns.message.from_wire(answer)
    assert dns.rcode.to_text(message.rcode()) == expected
    assert answer[:2] == data[:2]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"x" * 11, id="too-short"),
        pytest.param(changed(wire(), 2, 0x80), id="an-answer"),
    ],
)
def test_what_must_not_be_answered_is_not(data):
    assert read_query(data) is None


def reply(answer, name="web.default.svc.cluster.local", type_="A"):
    query = read_query(wire(name, type_))
    assert isinstance(query, Query)
    response = build_answer(query, answer, SETTINGS, serial=7, chance=random.Random(1))
    return dns.message.from_wire(to_bytes(response, query.size))


def test_an_answer_tells_the_name_as_it_was_asked():
    record = Record("web.default.svc.cluster.local", "A", "10.96.0.5")

    message = reply(Answer((record,)), "WEB.default.SVC.cluster.local")

    assert (
        message.answer[0].to_text() == "WEB.default.SVC.cluster.local. 5 IN A 10.96.0.5"
    )
    assert message.flags & dns.flags.AA
    assert message.flags & dns.flags.RA


@pytest.mark.parametrize(
    ("exists", "rcode"),
    [
        pytest.param(True, "NOERROR", id="no-data"),
        pytest.param(False, "NXDOMAIN", id="no-name"),
    ],
)
def test_a_denial_carries_the_soa(exists, rcode):
    message = reply(Answer(exists=exists, zone="cluster.local"))

    assert dns.rcode.to_text(message.rcode()) == rcode
    assert message.authority[0].to_text() == (
        "cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. "
        "7 7200 1800 86400 5"
    )


def test_the_soa_is_told_when_asked_for():
    message = reply(Answer(zone="cluster.local"), "cluster.local", "SOA")

    assert len(message.answer) == 1
    assert not message.authority


def test_an_answer_too_long_for_udp_says_so():
    name = "web.default.svc.cluster.local"
    records = tuple(Record(name, "A", f"10.88.1.{n}") for n in range(100))

    message = reply(Answer(records))

    assert message.flags & dns.flags.TC
