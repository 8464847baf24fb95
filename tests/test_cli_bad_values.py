"""Every option and argument of every command answers bad values with an exit code and a message."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from swann.cli import main

pytest.importorskip("typer")
pytest.importorskip("rich")

DB = np.random.default_rng(0).standard_normal((300, 8), dtype=np.float32)

GOOD = {
    "build": "{db} {new} --distance-measure dot_product --brute-force",
    "search": "{index} {db} -k 2",
    "eval": "{index} {db} {db} -k 2 --leaves-to-search 1,2 --max-queries 5",
    "info": "{index}",
    "plan": "-n 1e6 -d 100",
}
NO_NUMBER = ["x", "", "1,5", "0x10", "--"]
BAD = {
    "int": [*NO_NUMBER, "2.5", "nan", "1e3", "-1", "99999999999999999999", "10" * 5000],
    "float": [*NO_NUMBER, "nan", "inf", "-1"],
    "str": ["", " ", "nonsense", "-1", "nan", "1e400", "x" * 5000, "a:b:c", "[", "..", "\udcff"],
    "Path": ["", "/nowhere/at/all", "x" * 5000, "a/" * 3000, "\udcff"],
}
# A minute of measuring, and a cluster that is waited for.
EXEMPT = {("plan", "--calibrate"), ("build", "--ray-address")}


def options() -> list[tuple[str, str, str]]:
    """Commands, their options or the places of their arguments, and what kind these are of."""
    from swann.cli.app import app

    found = []
    for made in app.registered_commands:
        command = made.name or made.callback.__name__
        place = 0
        for name, hint in get_type_hints(made.callback, include_extras=True).items():
            if name == "return":
                continue
            told, how = get_args(hint)
            kind = next(k for k in (*get_args(told), told) if k is not type(None)).__name__
            if type(how).__name__ == "ArgumentInfo":
                found.append((command, str(place), kind))
                place += 1
            else:
                option = (how.param_decls or [f"--{name.replace('_', '-')}"])[0]
                if kind != "bool" and (command, option) not in EXEMPT:
                    found.append((command, option, kind))
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import swann

    folder = tmp_path_factory.mktemp("bad")
    np.save(folder / "db.npy", DB)
    swann.builder(DB, 5, "dot_product").tree(5, 3).score_brute_force().build().save(
        folder / "index"
    )
    return {"db": folder / "db.npy", "index": folder / "index", "new": folder / "new"}


def test_every_command_is_known() -> None:
    assert {command for command, _, _ in options()} == GOOD.keys()
    assert {kind for _, _, kind in options()} <= BAD.keys()
    assert len(options()) > 40


@pytest.mark.parametrize(("command", "option", "kind"), options())
def test_bad_values(
    command: str,
    option: str,
    kind: str,
    files: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    good = [word.format(**files) for word in GOOD[command].split()]
    for value in BAD[kind]:
        words: list[Any] = [*good]
        if option.isdigit():
            words[int(option)] = value
        else:
            words.append(f"{option}={value}" if option.startswith("--") else f"{option}{value}")
        with pytest.raises(SystemExit) as stop:
            main([command, *words])
        out, err = capsys.readouterr()
        code = stop.value.code
        told = f"{option} {value[:50]!r}: {code}, {out[:200]!r}, {err[:300]!r}"
        assert code in (0, 1, 2), told
        assert "Traceback" not in err, told
        assert (code == 0) or err.strip(), told
        if kind in ("int", "float") and value in NO_NUMBER[:4]:
            assert code == 2, told
