"""What the deployment of Ray Serve answers; `test_distributed_ray` runs a real one."""

from __future__ import annotations

import asyncio
import json
import sys
import types
from typing import Any

import pytest

import swann
from swann.distributed.serve import SearchService


class Response:
    def __init__(self, content: str, status_code: int = 200, media_type: str = "") -> None:
        self.content, self.status_code = content, status_code


class Request:
    method = "POST"
    url = types.SimpleNamespace(path="/search")

    def __init__(self, body: str) -> None:
        self._body = body

    async def json(self) -> Any:
        return json.loads(self._body)


class Searcher:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def search_batched(self, queries: Any, **_: Any) -> Any:
        raise self._error

    def close(self) -> None:
        pass


def asked(monkeypatch: pytest.MonkeyPatch, error: Exception, body: str) -> Response:
    answers: Any = types.ModuleType("starlette.responses")
    answers.Response = answers.PlainTextResponse = Response
    monkeypatch.setitem(sys.modules, "starlette", types.ModuleType("starlette"))
    monkeypatch.setitem(sys.modules, "starlette.responses", answers)
    service = SearchService.__new__(SearchService)
    service._searcher = Searcher(error)  # type: ignore[assignment]
    response: Response = asyncio.run(service(Request(body)))
    return response


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
