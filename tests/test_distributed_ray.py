"""Workers that are actors of Ray; run where Ray is installed (`make test-ray`)."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from sharded import (
    CONFIGS,
    check_changes,
    check_equality,
    every_config,
    same,
    save,
    vectors,
    wait_until,
)

import swann
from swann.distributed import (
    DistributedSearcher,
    Executor,
    LocalExecutor,
    RayExecutor,
    build,
    ray_pool,
    wire,
)
from swann.distributed.ray_pool import RayPool
from swann.distributed.workers.pools import CONCURRENCY

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, swann.Searcher]:
    folder = tmp_path_factory.mktemp("index")
    return folder, save(folder, 4, CONFIGS["soar"](vectors(3000)).build())


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("how", ["sockets", "calls", "sockets that are refused"])
def test_actors_answer_as_one_machine(
    how: str, index: tuple[Path, swann.Searcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "sockets that are refused":
        refused = socket.create_connection

        def nobody(address: tuple[str, int], timeout: float) -> socket.socket:
            return refused((address[0], 9), timeout)

        monkeypatch.setattr(socket, "create_connection", nobody)
    folder, built = index
    queries = vectors(1000, seed=1)
    pool = RayPool(num_cpus=0, sockets=how != "calls")
    with DistributedSearcher.open(folder, 2, workers=3, pool=pool, deadline=20) as searcher:
        assert same(searcher.search_batched(queries), built.search_batched(queries))
        for query in queries[:10]:
            assert same(searcher.search(query), built.search(query))
        kinds = {type(member.handle).__name__ for member in searcher._fleet.members()}
        assert kinds == {"_DirectHandle" if how == "sockets" else "_RayHandle"}


@pytest.mark.usefixtures("cluster")
def test_an_actor_listens_to_who_started_it() -> None:
    actor = RayPool(num_cpus=0)._actors.remote(None)
    address = ray.get(actor.listen.remote(b"t" * 32))
    with socket.create_connection(address, 10) as stranger:
        stranger.sendall(b"u" * 32)
        assert stranger.recv(1) == b""
    with socket.create_connection(address, 10) as ours:
        ours.sendall(b"t" * 32)
        ours.settimeout(20)
        fields = {"id": 7, "method": "health", "fields": {}}
        wire.send(ours, wire.Message(fields, []))
        answer = wire.receive(ours)
        assert answer is not None
        assert answer.fields["id"] == 7
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(address, 10)
    ray.kill(actor)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("sockets", [True, False])
def test_a_busy_actor_tells_its_health(sockets: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy(ray_pool._Actor):
        def __init__(self, _: Any) -> None:
            self._worker: Any = self

        def handle(self, method: str, message: Any) -> Any:
            if method != "health":
                time.sleep(3)
            reply = wire.Message({"method": method}, [])
            return wire.pack_whole(reply) if isinstance(message, bytes) else reply

    monkeypatch.setattr(ray_pool, "_Actor", Busy)
    handle: Any = RayPool(num_cpus=0, sockets=sockets).start()
    answers: SimpleQueue[Any] = SimpleQueue()
    for _ in range(2 * CONCURRENCY):
        handle.call("open", wire.Message({}, []), answers.put)
    handle.call("health", wire.Message({}, []), answers.put)
    heard = [answers.get(timeout=30).fields["method"] for _ in range(1 + 2 * CONCURRENCY)]
    assert heard.index("health") < CONCURRENCY
    handle.stop()


@pytest.mark.usefixtures("cluster")
def test_actors_answer_as_one_machine_whatever_the_index(tmp_path: Path) -> None:
    check_equality(tmp_path, RayPool(num_cpus=0), list(every_config()))


@pytest.mark.usefixtures("cluster")
def test_changed_actors_answer_as_one_machine(tmp_path: Path) -> None:
    check_changes(tmp_path, RayPool(num_cpus=0), list(every_config())[::13])


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("sockets", [True, False])
def test_killed_actors_are_replaced(index: tuple[Path, swann.Searcher], sockets: bool) -> None:
    folder, built = index
    queries = vectors(200, seed=2)
    wanted = built.search_batched(queries)
    pool = RayPool(num_cpus=0, sockets=sockets)
    with DistributedSearcher.open(folder, 2, workers=2, pool=pool, deadline=20) as searcher:
        for i, query in enumerate(queries):
            if i == 50:
                victim: Any = searcher._fleet.members()[0].handle
                os.kill(victim.pid, signal.SIGKILL)
            found = searcher.search(query)
            assert found.coverage == 1
            assert found.indices.tolist() == wanted.indices[i].tolist()
        assert wait_until(lambda: searcher.health()["ready_replicas"] == [2] * 4, 60)
        assert searcher.metrics().lost_workers == 1


@pytest.mark.usefixtures("cluster")
def test_changes_reach_actors(tmp_path: Path) -> None:
    save(tmp_path, 3, CONFIGS["dot"](vectors(800)).build())
    row = 20 * vectors(1, seed=3)[0]
    pool = RayPool(num_cpus=0)
    with DistributedSearcher.open(
        tmp_path, 1, workers=2, pool=pool, mode="rw", deadline=20
    ) as searcher:
        assert searcher.upsert(None, row).tolist() == [800]
        assert searcher.search(row, 1).indices.tolist() == [800]
        searcher.checkpoint()
        assert searcher.search(row, 1).indices.tolist() == [800]
    assert swann.load(tmp_path).search(row, 1).indices.tolist() == [800]


@pytest.mark.usefixtures("cluster")
def test_tasks_of_ray_build_the_same_files(tmp_path: Path) -> None:
    db = vectors(4000)
    np.save(tmp_path / "a.npy", db[:1500])
    np.save(tmp_path / "b.npy", db[1500:])
    config = CONFIGS["soar"](db).create_config()
    told: list[str] = []

    def files(executor: Executor, name: str) -> dict[str, bytes]:
        out = build(
            str(tmp_path / "?.npy"),
            config,
            tmp_path / name,
            num_shards=2,
            memory_budget=400_000,
            sample_rows=2000,
            executor=executor,
            progress=lambda stage, done, total: told.append(f"{stage} {done} of {total}"),
        )
        return {path.name: path.read_bytes() for path in out.iterdir()}

    made = files(RayExecutor(), "ray")
    assert "split 3 of 3" in told
    assert sum(one.startswith("map") for one in told) > 5
    assert made == files(LocalExecutor(1), "local")


@pytest.mark.usefixtures("cluster")
def test_errors_of_tasks_of_ray_are_those_of_the_build(tmp_path: Path) -> None:
    db = vectors(4000)
    db[3210, 1] = np.nan
    np.save(tmp_path / "a.npy", db)
    config = CONFIGS["dot"](db).create_config()
    with pytest.raises(swann.NonFiniteError, match=r"a\.npy\[3210, 1\] is nan"):
        build(tmp_path / "a.npy", config, tmp_path / "index", executor=RayExecutor())


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_of_ray_costs_its_task(tmp_path: Path) -> None:
    def dies_once(path: str) -> str:
        try:
            Path(path).touch(exist_ok=False)
        except FileExistsError:
            return "done"
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    paths = [str(tmp_path / str(i)) for i in range(4)]
    assert RayExecutor().run(dies_once, paths) == ["done"] * 4


@pytest.mark.usefixtures("cluster")
def test_serving(index: tuple[Path, swann.Searcher]) -> None:
    serve = pytest.importorskip("ray.serve")
    from swann.distributed.serve import application

    folder, built = index
    queries = vectors(3, seed=4)
    serve.start(http_options={"port": 8123})
    serve.run(application(folder, workers=2, pool="process", deadline=20), route_prefix="/")
    try:

        def ask(path: str, body: Any = None) -> Any:
            data = None if body is None else json.dumps(body).encode()
            with urllib.request.urlopen(f"http://127.0.0.1:8123/{path}", data, 30) as reply:
                return reply.read().decode()

        found = json.loads(ask("search", {"queries": queries.tolist(), "final_num_neighbors": 3}))
        assert found["indices"] == built.search_batched(queries, 3).indices.tolist()
        assert found["coverage"] == [1.0] * 3
        assert json.loads(ask("health"))["complete"]
        assert "swann_queries_total 3" in ask("metrics")
        with pytest.raises(urllib.error.HTTPError, match="400"):
            ask("search", {"queries": [[1.0]]})
    finally:
        serve.shutdown()
