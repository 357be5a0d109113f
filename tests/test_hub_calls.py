"""What is tried again, what is not, and how long a call waits; no Hub is asked."""

import json
import time

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import hf_raise_for_status, httpx

from teamsrl_hf.hub import calls as hub_calls
from teamsrl_hf.hub.calls import Calls, judge

API = HfApi(endpoint="http://hub", token="hf_planted9planted9")


def answered(status: int, headers: dict[str, str] | None = None) -> HfHubHTTPError:
    request = httpx.Request("GET", "http://hub/api/x", headers={"Authorization": f"Bearer {API.token}"})
    answer = httpx.Response(status, headers=headers, request=request, json={"error": f"no, {API.token}"})
    with pytest.raises(HfHubHTTPError) as raised:
        hf_raise_for_status(answer)
    return raised.value


def failing(*errors: BaseException):
    """A call that raises each of these, and then returns."""
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return call


@pytest.fixture
def naps(monkeypatch):
    found: list[float] = []
    monkeypatch.setattr(hub_calls.time, "sleep", found.append)
    monkeypatch.setattr(hub_calls.random, "random", lambda: 0.5)
    monkeypatch.setattr(hub_calls.random, "uniform", lambda low, high: high)
    return found


def persist(patience: float = 600.0) -> Calls:
    return Calls(API, "ada/rows", time.monotonic() + patience)


@pytest.mark.parametrize("status", [408, 409, 412, 429, 500, 502, 503])
def test_a_status_that_may_pass_is_tried_again(status, naps):
    assert persist()(failing(answered(status), answered(status))) == "done"
    assert naps == [1.0, 2.0]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_a_status_that_lasts_is_told_at_once_without_the_token(status, naps):
    with pytest.raises(RuntimeError) as error:
        persist()(failing(answered(status)))
    said = str(error.value)
    assert said.startswith(f"The Hub refused the push to ada/rows: {status} ")
    assert "no, ***" in said
    assert API.token not in said
    assert ("Log in with `hf auth login`, or set HF_TOKEN." in said) is (status == 401)
    assert naps == []


@pytest.mark.parametrize(
    "error",
    [
        *(httpx.ConnectError("x"), httpx.ReadError("x"), httpx.RemoteProtocolError("x"), httpx.ReadTimeout("x")),
        *(ConnectionResetError("x"), TimeoutError("x"), json.JSONDecodeError("x", "", 0)),
    ],
)
def test_what_the_network_does_is_tried_again(error, naps):
    assert persist()(failing(error)) == "done"


@pytest.mark.parametrize(
    "error", [httpx.LocalProtocolError("x"), httpx.UnsupportedProtocol("x"), OfflineModeIsEnabled("x")]
)
def test_what_no_next_try_could_mend_is_not_tried_again(error, naps):
    assert judge(error) == (None, False)
    with pytest.raises(type(error)):  # Raised here; where the client raises it, it becomes one line.
        persist()(failing(error))
    assert naps == []


@pytest.mark.parametrize(("offline", "name"), [(False, "UnsupportedProtocol"), (True, "OfflineModeIsEnabled")])
def test_where_there_can_be_no_hub_the_client_says_so_in_one_line(offline, name, monkeypatch, naps):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    api = HfApi(endpoint="localhost:1", token="x")
    with pytest.raises(RuntimeError, match=f"^The push to ada/rows failed at localhost:1: {name}: "):
        Calls(api, "ada/rows", time.monotonic() + 600)(api.whoami)
    assert naps == []


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), ValueError("x"), AttributeError("x"), OSError("x")])
def test_a_bug_of_ours_keeps_its_traceback(error):
    with pytest.raises(type(error)) as raised:
        persist()(failing(error))
    assert raised.value is error


def test_a_call_waits_as_long_as_the_hub_asks(naps):
    persist()(failing(answered(429, {"Retry-After": "7"}), answered(429, {"RateLimit": '"api";r=0;t=33'})))
    assert naps == [7.5, 33.5]


def test_no_wait_is_longer_than_a_minute_unless_asked_and_none_ends_after_the_patience(naps):
    assert persist()(failing(*[answered(503)] * 8)) == "done"
    assert naps == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    with pytest.raises(RuntimeError, match=r"did not take .* ada/rows: 503 Service Unavailable\. Call again"):
        persist(0.5)(failing(answered(503)))
    assert len(naps) == 8
