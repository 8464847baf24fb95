"""Write ScaNN's own configuration texts beside this file. Run with a Python that has scann 1.4.2.

For each of `cases.json`: ``NAME.txt`` is what ``searcher.config()`` printed, ``NAME.builder.txt``
what ``builder.create_config()`` gave to ``create_searcher``.
"""

import json
import pathlib

import numpy as np
import scann
from scann.scann_ops.py import scann_builder

HERE = pathlib.Path(__file__).parent
ENUMS = {"mode": scann_builder.IncrementalMode}


def main() -> None:
    """Build every case and write what ScaNN says of it."""
    rng = np.random.default_rng(0)
    for name, case in json.loads((HERE / "cases.json").read_text()).items():
        shape = case.get("rows", 2000), case.get("dimension", 32)
        db = rng.standard_normal(shape, dtype=np.float32)
        builder = scann.scann_ops_pybind.builder(db, 10, case["measure"])
        for method, arguments in case["calls"]:
            values = {
                key: ENUMS.get(key, scann.ReorderType)[value]
                if isinstance(value, str) and key != "hash_type"
                else value
                for key, value in arguments.items()
            }
            getattr(builder, method)(**values)
        (HERE / f"{name}.builder.txt").write_text(builder.create_config())
        (HERE / f"{name}.txt").write_text(builder.build().config())


if __name__ == "__main__":
    main()
