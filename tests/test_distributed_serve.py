"""What the deployment of Ray Serve answers; `test_distributed_ray` runs a real one."""

from __future__ import annotations

import asyncio
import json
import sys
import types
from typing import Any

import numpy as np
import pytest

import swann
from swann.distributed.metrics import Metrics
from swann.distributed.results import DistributedResult
from swann.distributed.serve import SearchService


class Response:
    def __init__(self, content: str, status_code: int = 200, media_type: str = "") -> None:
        self.content, self.status_code = content, status_code


class Request:
    def __init__(self, body: str, path: str = "/search", method: str = "POST") -> None:
        self._body, self.method = body, method
        self.url = types.SimpleNamespace(path=path)

    async def json(self) -> Any:
        return json.loads(self._body)


class Searcher:
    def __init__(self, error: Exception | None = None, complete: bool = True) -> None:
        self._error, self._complete = error, complete
        self.limits: dict[str, int] = {}

    def search_batched(self, queries: Any, **limits: int) -> Any:
        self.limits = limits
        if self._error is not None:
            raise self._error
        one = np.array([0.5, np.nan], np.float32)  # one is all that was found
        return DistributedResult(np.array([[3, -1]]), one[None], np.array([0.25]))

    def health(self) -> dict[str, Any]:
        return {"complete": self._complete}

    def metrics(self) -> Metrics:
        return Metrics()

    def close(self) -> None:
        pass


def told(monkeypatch: pytest.MonkeyPatch, searcher: Searcher, request: Request) -> Response:
    answers: Any = types.ModuleType("starlette.responses")
    answers.Response = answers.PlainTextResponse = Response
    monkeypatch.setitem(sys.modules, "starlette", types.ModuleType("starlette"))
    monkeypatch.setitem(sys.modules, "starlette.responses", answers)
    service = SearchService.__new__(SearchService)
    service._searcher = searcher  # type: ignore[assignment]
    response: Response = asyncio.run(service(request))
    return response


def asked(monkeypatch: pytest.MonkeyPatch, error: Exception, body: str) -> Response:
    return told(monkeypatch, Searcher(error), Request(body))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, swann.ShapeError("x")),
        (400, swann.ConfigError("x")),
        (400, TypeError("x")),
        (503, swann.WorkerError("x")),
        (503, swann.StorageError("x")),
        (503, swann.ReadOnlyError("x")),
        (503, MemoryError("x")),
        (503, swann.CorruptIndexError("x")),
        (504, swann.IncompleteError("x", 0.5)),
    ],
)
def test_whose_fault_it_is(status: int, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    response = asked(monkeypatch, error, '{"queries": [[1.0]]}')
    assert response.status_code == status
    assert "x" in json.loads(response.content)["error"]


@pytest.mark.parametrize(
    "body",
    [
        *("{", "{}", "3", "[" * 200_000),
        '{"queries": [[1.0]], "final_num_neighbor": 3}',
    ],
)
def test_requests_that_are_none(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, AssertionError(), body).status_code == 400


def test_an_answer_is_json_where_fewer_were_found(monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = Searcher()
    body = '{"queries": [[1.0]], "final_num_neighbors": 2, "leaves_to_search": 9}'
    response = told(monkeypatch, searcher, Request(body))
    assert response.status_code == 200
    assert json.loads(response.content, parse_constant=pytest.fail) == {
        "indices": [[3, -1]],
        "distances": [[0.5, None]],
        "coverage": [0.25],
    }
    assert searcher.limits == {"final_num_neighbors": 2, "leaves_to_search": 9}


@pytest.mark.parametrize(("complete", "status"), [(True, 200), (False, 503)])
def test_health_is_a_status(complete: bool, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = Searcher(complete=complete)
    response = told(monkeypatch, searcher, Request("", "/swann/health/", "GET"))
    assert response.status_code == status
    assert json.loads(response.content) == {"complete": complete}


def test_other_paths_and_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    for path, method in (("/search", "GET"), ("/", "POST")):
        response = told(monkeypatch, Searcher(), Request("", path, method))
        assert response.status_code == 404
    response = told(monkeypatch, Searcher(), Request("", "/metrics", "GET"))
    assert response.status_code == 200
    assert response.content == Metrics().prometheus()


def test_latencies_are_counted_up_to_each_bound() -> None:
    metrics = Metrics()
    for milliseconds in (0.5, 1.5, 2.0, 300.0, 9000.0):
        metrics.answered(2, milliseconds / 1e3, 1.5, 1)
    lines = metrics.prometheus().splitlines()
    counts = {line.split('"')[1]: int(line.split()[1]) for line in lines if "_bucket" in line}
    assert counts == {
        **{"0.001": 1, "0.002": 3, "0.005": 3, "0.01": 3, "0.02": 3, "0.05": 3, "0.1": 3},
        **{"0.2": 3, "0.5": 4, "1": 4, "2": 4, "5": 4, "+Inf": 5},
    }
    assert "swann_latency_seconds_count 5" in lines
    assert "swann_queries_total 10" in lines
    assert "swann_incomplete_total 5" in lines
    assert "swann_mean_coverage 0.750000" in lines
    assert "swann_latency_seconds_sum 9.304000" in lines
