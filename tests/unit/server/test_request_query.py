import pytest

from podyard.api.errors import ApiError
from podyard.server.build import parse_query


def test_a_query_of_too_many_parameters_is_a_bad_request():
    with pytest.raises(ApiError) as caught:
        parse_query("&".join(f"a{i}=1" for i in range(1001)))

    assert caught.value.code == 400


def test_a_parameter_may_be_given_twice_or_empty():
    assert parse_query("command=a&command=&tty=1") == {
        "command": ("a", ""),
        "tty": ("1",),
    }
