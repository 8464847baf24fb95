"""What is compiled: one build for every machine of an architecture, and its own self-test."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

if "LD_PRELOAD" in os.environ:
    pytest.skip("about the plain build, not a sanitized one", allow_module_level=True)

ROOT = Path(__file__).parents[1]
X86 = platform.machine() in {"x86_64", "AMD64"}
LEVELS = {
    "avx2",
    "avx512bw",
    "avx512vnni",
    "amx",
    "neon",
    "neondot",
}  # may use more than the oldest machine
TABLES = LEVELS | {"scalar"}
EMULATED = {"amx_emulated"}  # of the self-test
x86_only = pytest.mark.skipif(not X86, reason="about x86 instructions")


def tool(name: str) -> str:
    beside_python = Path(sysconfig.get_path("scripts")) / name
    found = str(beside_python) if beside_python.exists() else shutil.which(name)
    if not found:
        pytest.skip(f"there is no {name}")
    return found


def run(*words: str | Path, **environment: str) -> str:
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    assert done.returncode == 0, f"{words} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build without Python."""
    cmake, ninja = tool("cmake"), tool("ninja")
    build = tmp_path_factory.mktemp("standalone")
    run(cmake, "-S", ROOT, "-B", build, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}",
        "-DSWANN_STANDALONE=ON", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON")  # fmt: skip
    run(cmake, "--build", build)
    return build


@pytest.fixture(scope="module")
def objects(standalone: Path) -> list[Path]:
    """The object files of the standalone build, and of the module's where that is kept."""
    module = Path(sys.prefix) / "build"  # where tools/bootstrap builds it
    return [*standalone.rglob("*.o"), *(module.rglob("*.o") if module.is_dir() else ())]


def stem(path: Path) -> str:
    return path.name.partition(".")[0]


def test_the_self_test_passes(standalone: Path) -> None:
    program = standalone / "swann_selftest"
    # Each is named by what it does not share with those before it.
    named = r"^ok +(\w+): (?:lut16_scan|i8_pack)"
    levels = dict.fromkeys(re.findall(named, run(program, SWANN_SIMD=""), re.MULTILINE))
    assert list(levels)[-2:] == ["scalar", "emulated"]
    for level in levels:  # the pipeline at each of them
        said = run(program, SWANN_SIMD=level)
        assert said.startswith(f"level: {level}\n")
        assert re.search(r"\n[1-9]\d* passed, 0 failed\n$", said)


def test_the_self_test_refuses_an_unknown_level(standalone: Path) -> None:
    done = subprocess.run(
        [standalone / "swann_selftest"],
        env={**os.environ, "SWANN_SIMD": "mmx"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert 'SWANN_SIMD is "mmx"' in done.stderr


# ---- Instructions

# x86-64-v1 ends with SSE2. tzcnt is left out: compilers write bsf with a prefix that older machines
# ignore, where both give the same; it reads as tzcnt.
ABOVE = re.compile(
    r"""
    # AVX, AVX-512
    v(?!er[rw]).* | k(add|and|mov|not|or|ortest|shift|test|unpck|xn|xor).*
    # SSE3, SSSE3
    | addsubp[sd] | h(add|sub)p[sd] | lddqu | mov(d|sh|sl)dup | fisttp.* | m(onitor|wait)x?
    | pabs[bwd] | palignr | ph(add|sub)(w|d|sw) | pmaddubsw | pmulhrsw | pshufb | psign[bwd]
    # SSE4.1
    | p?blend.* | dpp[sd] | extractps | insertps | movntdqa | mpsadbw | packusdw | pcmpeqq
    | p(extr|insr)[bdq] | phminposuw | p(max|min)(s[bd]|u[wd]) | pmov[sz]x.* | pmuldq | pmulld
    | ptest | round[ps][sd]
    # SSE4.2, SSE4a
    | crc32.* | pcmp[ei]str[im].* | pcmpgtq | extrq | insertq | movnts[sd]
    # bits and bytes
    | popcnt.* | lzcnt.* | andn[lq]? | bextr.* | bls(i|msk|r).* | bzhi.* | mulx.* | p(dep|ext)[lq]?
    | rorx.* | sarx.* | sh[lr]x.* | adcx.* | adox.* | movbe.* | cmpxchg16b | [ls]ahf
    # the rest
    | pclmul.* | aes.* | sha(1|256).* | gf2p8.* | rdrand.* | rdseed.* | xsave.* | xrstor.*
    | prefetchw.* | clflushopt | clwb""",
    re.VERBOSE,
)
PREFIXES = {"rep", "repz", "repnz", "lock", "data16", "cs", "ds", "es", "fs", "gs", "ss", "notrack",
            "bnd", "xacquire", "xrelease", "addr32"}  # fmt: skip


def instructions(path: Path) -> Iterator[tuple[str, str]]:
    """Mnemonic and operands of every instruction of an object file."""
    for line in run(tool("objdump"), "-d", "--no-show-raw-insn", path).splitlines():
        address, tab, text = line.partition("\t")
        if not tab or not address.strip().endswith(":"):
            continue
        words = text.split()
        while words and (words[0] in PREFIXES or words[0].startswith("rex")):
            words.pop(0)
        if words:
            yield words[0], " ".join(words[1:])


def is_above_baseline(mnemonic: str, operands: str) -> bool:
    if mnemonic == "pextrw":  # into memory it is of SSE4.1, into a register of SSE2
        return operands.endswith(")")
    return bool(ABOVE.fullmatch(mnemonic)) or bool(re.search(r"%([yz]mm|k[0-7])", operands))


def above_baseline(path: Path) -> Counter[str]:
    return Counter(name for name, rest in instructions(path) if is_above_baseline(name, rest))


ABOVE_BASELINE = """
haddps %xmm0,%xmm1; addsubpd %xmm0,%xmm1; movddup %xmm0,%xmm1; lddqu (%rdi),%xmm0; fisttpll (%rdi)
pshufb %xmm0,%xmm1; pabsd %xmm0,%xmm1; palignr $8,%xmm0,%xmm1; pmaddubsw %xmm0,%xmm1
phaddw %xmm0,%xmm1; pmulhrsw %xmm0,%xmm1; psignb %xmm0,%xmm1
blendvps %xmm0,%xmm1,%xmm2; pblendw $1,%xmm0,%xmm1; dpps $1,%xmm0,%xmm1; insertps $1,%xmm0,%xmm1
extractps $1,%xmm0,%eax; pextrd $1,%xmm0,%eax; pextrw $1,%xmm0,(%rdi); pinsrb $1,%eax,%xmm0
pmaxsd %xmm0,%xmm1; pminuw %xmm0,%xmm1; pmovzxbw %xmm0,%xmm1; pmulld %xmm0,%xmm1; ptest %xmm0,%xmm1
packusdw %xmm0,%xmm1; roundss $1,%xmm0,%xmm1; pcmpeqq %xmm0,%xmm1; movntdqa (%rdi),%xmm0
crc32b %al,%ecx; pcmpestri $1,%xmm0,%xmm1; pcmpgtq %xmm0,%xmm1
popcnt %eax,%ecx; lzcnt %eax,%ecx; andn %eax,%ecx,%edx; bextr %eax,%ecx,%edx; blsr %eax,%ecx
bzhi %eax,%ecx,%edx; mulx %eax,%ecx,%edx; pdep %eax,%ecx,%edx; pext %eax,%ecx,%edx
rorx $1,%eax,%ecx; sarx %eax,%ecx,%edx; shlx %eax,%ecx,%edx; shrx %eax,%ecx,%edx; adcx %eax,%ecx
movbe (%rdi),%eax; cmpxchg16b (%rdi); pclmulqdq $1,%xmm0,%xmm1; aesenc %xmm0,%xmm1
vaddps %xmm0,%xmm1,%xmm2; vpaddb %ymm0,%ymm1,%ymm2; vfmadd231ps %zmm0,%zmm1,%zmm2
vcvtph2ps %xmm0,%ymm1; kmovq %k1,%rax; kortestw %k1,%k2; vzeroupper; rdrand %eax
"""
BASELINE = """
pextrw $1,%xmm0,%eax; pinsrw $1,%eax,%xmm0; rep bsf %eax,%ecx; bsr %eax,%ecx; paddb %xmm0,%xmm1
pmaxub %xmm0,%xmm1; pminsw %xmm0,%xmm1; packuswb %xmm0,%xmm1; pmuludq %xmm0,%xmm1; verr %ax
cvttps2dq %xmm0,%xmm1; prefetcht0 (%rdi); lock cmpxchg %eax,(%rdi); rep movsb; cpuid; pause; lfence
shl $1,%eax; sar $1,%eax; shld $1,%eax,%ecx; and %eax,%ecx; pcmpgtd %xmm0,%xmm1; movnti %eax,(%rdi)
"""


def assemble(text: str, folder: Path) -> tuple[list[str], Path]:
    lines = [part.strip() for part in text.replace("\n", ";").split(";") if part.strip()]
    source = folder / "code.s"
    source.write_text("\n".join(lines) + "\n")
    run(tool("as"), "--64", source, "-o", folder / "code.o")
    return lines, folder / "code.o"


@x86_only
def test_the_list_of_instructions_is_right(tmp_path: Path) -> None:
    for text, above in ((ABOVE_BASELINE, True), (BASELINE, False)):
        lines, path = assemble(text, tmp_path)
        found = list(instructions(path))
        assert len(found) == len(lines)
        said = [is_above_baseline(*instruction) for instruction in found]
        wrong = [line for line, is_above in zip(lines, said, strict=True) if is_above != above]
        assert not wrong


@x86_only
def test_only_the_level_files_go_above_the_baseline(objects: list[Path]) -> None:
    names = {stem(path) for path in objects}
    assert {"cpu", "scalar", "threads", "tables", "search", "encode", "codebook"} <= names
    for path in objects:
        found = above_baseline(path)
        if stem(path) in LEVELS | EMULATED:
            assert sum(found.values()) > 100, f"the search finds too little in {path}: {found}"
        else:
            assert not found, f"{path} has instructions that not every x86-64 has: {found}"


def test_level_files_share_nothing_with_others(objects: list[Path]) -> None:
    checked = [path for path in objects if stem(path) in TABLES]
    assert checked
    for path in checked:
        exported = []
        for line in run(tool("nm"), path).splitlines():
            kind, symbol = line.split()[-2:]
            assert kind not in "VvWwu", f"{path} has the weak symbol {symbol}"
            if kind.isupper() and kind != "U":
                exported.append(symbol)
        put = f"put_{stem(path)}"
        assert exported == [f"_ZN5swann{len(put)}{put}ERNS_11KernelTableE"]


def test_nothing_is_compiled_for_this_machine_only(standalone: Path) -> None:
    commands = json.loads((standalone / "compile_commands.json").read_text())
    assert {"cpu", "search", "scalar"} <= {Path(entry["file"]).stem for entry in commands}
    for entry in commands:
        flags = entry["command"].split()
        assert not [flag for flag in flags if re.match("-m(arch|tune|cpu)=", flag)]
        if Path(entry["file"]).stem not in LEVELS | EMULATED:
            assert not [flag for flag in flags if flag.startswith("-m")], entry["file"]
    for path in (ROOT / "CMakeLists.txt", ROOT / "Makefile", ROOT / "pyproject.toml"):
        assert "march=native" not in path.read_text().replace(" ", "")


# ---- What is installed


def test_the_wheel_is_small() -> None:
    try:
        distribution = importlib.metadata.distribution("swann")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("swann is not installed")
    wheel = io.BytesIO()  # of the same files: what is installed, but for compiled Python
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in distribution.files or ():
            if file.suffix != ".pyc" and ".." not in file.parts:
                archive.writestr(str(file), Path(str(distribution.locate_file(file))).read_bytes())
    assert any("_native" in name for name in archive.namelist())
    assert len(wheel.getvalue()) < 3_000_000


def import_seconds() -> tuple[float, float]:
    """Time of the processor that ``import numpy`` takes, and ``import swann`` after it.

    Of the thread alone: OpenBLAS's own spin for a while and would count.
    """
    code = "from time import thread_time as now; a = now(); import numpy; b = now(); "
    code += "import swann; print(b - a, now() - b)"
    numpy, swann = map(float, run(sys.executable, "-c", code).split())
    return numpy, swann


def test_import_takes_150_ms() -> None:
    # Both in the same process: a slow machine, or a slow moment, takes longer for numpy, too.
    trials = [import_seconds() for _ in range(7)]
    assert any(numpy + swann < 0.15 or swann < numpy for numpy, swann in trials), trials
