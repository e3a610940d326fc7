"""Looks for a message, a row or a letter that breaks a property, without end: ``make fuzz``.

Comes in: how long to look, and at what. Goes out: exit code 0 and perhaps new files in ``corpus``, which
cover code that the ones before did not; or exit code 1, the input that broke a property shortened and kept
in ``corpus``, so that ``make test`` fails until it is mended. Coverage-guided by atheris, one process a
target; its mutations are those of the grammar as often as libFuzzer's own.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from random import Random

CORPUS = Path(__file__).parent / "corpus"
TARGETS = ("messages", "rows", "letters")
LONGEST = 4_096
"""Of what is kept, in bytes: long inputs are slow, and nobody reads them."""
SHORTEN_SECONDS = 20
ROUND_SECONDS = 60
"""Of one process: the fuzzer keeps some memory of every input it ever tried."""
FIRST = 300
"""Inputs of the grammar to begin with, beside the corpus."""


def fuzz_one(target: str, arguments: Sequence[str]) -> None:
    """Be the process that libFuzzer runs in; it never returns."""
    import atheris  # noqa: PLC0415 - before whatever it is to look at

    with atheris.instrument_imports(include=["consumers", "producers", "stream"]):
        from tests.fuzz import grammar  # noqa: PLC0415
        from tests.fuzz.properties import CHECKS  # noqa: PLC0415

    make = _grammar(target)

    def mutate(raw: bytes, longest: int, seed: int) -> bytes:
        chance = Random(seed)
        if chance.random() < 0.5:
            made: bytes = atheris.Mutate(raw, longest)
        else:
            made = make(chance) if chance.random() < 0.1 else grammar.damaged(raw, chance)
        return made[:longest]

    # libFuzzer hands the first one to a shell where it needs processes of its own.
    itself = shlex.join([sys.executable, "-m", "tests.fuzz", "--one", target])
    atheris.Setup(
        [itself, *arguments], CHECKS[target], custom_mutator=mutate, internal_libfuzzer=True
    )
    atheris.Fuzz()


def _grammar(target: str) -> Callable[[Random], bytes]:
    """What makes inputs of a target."""
    from tests.fuzz import grammar  # noqa: PLC0415 - see `fuzz_one`

    makers = {"messages": grammar.message, "rows": grammar.row, "letters": grammar.letter}
    return makers[target]


def run(target: str, *arguments: str, quiet: bool = False) -> int:
    """Run libFuzzer on a target in a process of its own."""
    command = [sys.executable, "-m", "tests.fuzz", "--one", target, *arguments]
    sink = subprocess.DEVNULL if quiet else None
    return subprocess.run(command, check=False, stdout=sink, stderr=sink).returncode


def look(target: str, seconds: float) -> bool:
    """Look for a while; True if nothing broke."""
    kept = CORPUS / target
    kept.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="segstream-fuzz-") as folder:
        found, broke = Path(folder) / "found", Path(folder) / "broke"
        found.mkdir()
        broke.mkdir()
        for seed in range(FIRST):
            (found / f"seed-{seed}").write_bytes(_grammar(target)(Random(seed))[:LONGEST])
        code, until = 0, time.monotonic() + seconds
        while code == 0 and (left := round(until - time.monotonic())) > 0:
            code = run(
                target, f"-max_total_time={min(left, ROUND_SECONDS)}", f"-max_len={LONGEST}",
                f"-artifact_prefix={broke}/", "-timeout=10", str(found), str(kept),
            )  # fmt: skip
        for culprit in sorted(broke.iterdir()):
            short = Path(folder) / "short"
            run(
                target, "-minimize_crash=1", f"-max_total_time={SHORTEN_SECONDS}",
                f"-exact_artifact_path={short}", str(culprit), quiet=True,
            )  # fmt: skip
            keep = kept / f"broke-{culprit.name.rpartition('-')[2][:16]}"
            shutil.copy(short if short.exists() else culprit, keep)
            print(f"{target}: kept as {keep}; see it again: pytest tests/fuzz -k {keep.name[:12]}")
        if code != 0:
            return False
        before = len(list(kept.iterdir()))
        run(target, "-merge=1", f"-max_len={LONGEST}", str(kept), str(found), quiet=True)
        print(f"{target}: nothing broke; {len(list(kept.iterdir())) - before} new in {kept}")
    return True


def main() -> int:
    if sys.argv[1:2] == ["--one"]:
        fuzz_one(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="for each target")
    parser.add_argument("--target", action="append", choices=TARGETS, help="else all in turn")
    options = parser.parse_args()
    if find_spec("atheris") is None:
        sys.exit("atheris is not here: it has wheels for Linux on x86-64, and Python up to 3.13")
    os.environ.setdefault("PYTHONHASHSEED", "0")
    held = [look(target, options.seconds) for target in options.target or TARGETS]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
