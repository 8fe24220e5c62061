"""The share of faults that the tests notice, estimated from a random sample.

Every fault (mutation_faults.py) of the packages is equally likely, and each package has its share of the sample. Which tests reach which
line is measured once, by a run of the packages' tests with coverage (kept in build/mutation-sample/reach; delete it to measure again). Each
fault is put into a process of its own, which runs the tests that reach its line, fastest first, until one fails. A fault that no test
reaches counts as not noticed, one that hangs as noticed. Modules whose tests need a package that is not installed are left out, and the
output says so. What has been run is kept in build/mutation-sample/sample-SEED.jsonl: a stopped
run continues, and ``--again`` runs those that were not noticed once more, first of all with the test files written since.
"""

import contextlib
import importlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import chain
from math import sqrt
from pathlib import Path

from mutation_faults import Fault, faults, insert

# What the tests of a module need beyond the package's own dependencies.
OPTIONAL = {"solvers/deepinv_adapter.py": "deepinv"}
# A fault that hangs is noticed after this and so many times what its tests took when their reach was measured, under coverage.
SPARE_SECONDS = 60.0
SLOWER = 3.0
# Plugins are loaded before the fork.
LOADED = "ignore::pytest.PytestAssertRewriteWarning"
PRELOADED = ("torch", "numpy", "scipy.ndimage", "scipy.optimize", "nibabel", "nilearn.image", "monai.networks.nets", "pytest")


@dataclass(frozen=True)
class Reach:
    """Which tests run a line, and how long each takes in seconds."""

    tests: dict[str, dict[int, set[str]]]
    seconds: dict[str, float]

    def of(self, fault: Fault) -> list[str]:
        """Tests that reach the fault, fastest first. What a fixture reaches counts for all tests of its file."""
        lines = self.tests.get(fault.file, {})
        contexts = set(chain.from_iterable(lines.get(line, ()) for line in fault.lines))
        found = {context.removesuffix("|run") for context in contexts if context.endswith("|run")}
        files = {context.partition("::")[0] for context in contexts if context.endswith(("|setup", "|teardown"))}
        found |= {test for test in self.seconds if test.partition("::")[0] in files}
        return sorted(found, key=lambda test: self.seconds.get(test, 0.0))


def measure_reach(work: Path, packages: list[str], folder: Path) -> None:
    """Run the packages' tests once under coverage."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-m", "not slow", "-p", "no:cacheprovider", "--durations=0", "-vv", "--cov=dynamicdps", "--cov-branch", "--cov-context=test"]
    command = [sys.executable, "-m", "pytest", *options, "--cov-report=", "--cov-fail-under=0", *(f"tests/{name}" for name in packages)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(work / "src"), "COVERAGE_FILE": str(folder / "coverage")}
    with (folder / "durations.partial").open("w", encoding="utf-8") as log:
        code = subprocess.run(command, cwd=work, env=environment, stdout=log).returncode  # noqa: S603
    if code:
        raise SystemExit(f"the tests fail without any fault: {folder / 'durations.partial'}")
    (folder / "durations.partial").rename(folder / "durations.txt")


def read_reach(folder: Path) -> Reach:
    from coverage import CoverageData

    data = CoverageData(str(folder / "coverage"))
    data.read()
    tests: dict[str, dict[int, set[str]]] = {}
    for path in data.measured_files():
        name = path.partition("src/dynamicdps/")[2]
        tests[name] = {line: set(contexts) for line, contexts in data.contexts_by_lineno(path).items()}
    seconds: dict[str, float] = defaultdict(float)
    for duration, test in re.findall(
        r"^(\d+\.\d+)s (?:call|setup|teardown) +(.+?)\s*$", (folder / "durations.txt").read_text("utf-8"), re.M
    ):
        seconds[test] += float(duration)
    return Reach(tests, dict(seconds))


def draw(source: Path, packages: list[str], size: int, seed: int) -> list[Fault]:
    """A random sample; each package's part is in proportion to its faults that can be tested here."""
    untested = {file: needed for file, needed in OPTIONAL.items() if find_spec(needed) is None}
    all_faults = {}
    for package in packages:
        files = sorted(str(path.relative_to(source)) for path in (source / package).rglob("*.py"))
        for file in untested.keys() & set(files):
            print(f"left out: {file} with {len(faults(source, file))} faults; its tests need {untested[file]}, which is not installed")
        all_faults[package] = [fault for file in files if file not in untested for fault in faults(source, file)]
    total = sum(map(len, all_faults.values()))
    generator = random.Random(seed)  # noqa: S311
    sample = [f for found in all_faults.values() for f in generator.sample(found, min(len(found), round(size * len(found) / total)))]
    generator.shuffle(sample)
    print(f"{total} faults: " + ", ".join(f"{len(found)} in {package}" for package, found in all_faults.items()))
    return sample


def run_child(work: Path, fault: Fault, tests: list[str], log: Path) -> None:
    """In the forked process: insert the fault, run the tests, leave with pytest's exit code."""
    import pytest

    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    insert(work / "src" / "dynamicdps", fault)
    temporary = work.parent / f"tmp-{os.getpid()}"
    arguments = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--tb=line", f"--basetemp={temporary}", "-W", LOADED]
    code = int(pytest.main([*arguments, *tests]))
    shutil.rmtree(temporary, ignore_errors=True)
    sys.stdout.flush()
    os._exit(code)


# 4: a test file that cannot be loaded any more; `load_tests` sees to it that all could be without the fault.
OUTCOMES = {0: "survived", 1: "noticed", 2: "noticed", 3: "noticed", 4: "noticed"}


def changed_tests(work: Path, package: str, since: float) -> list[str]:
    """Test files of a package that are younger than the measurement of reach; they must pass without a fault."""
    files = sorted((work / "tests" / package).rglob("test_*.py"))
    changed = [str(path.relative_to(work)) for path in files if path.stat().st_mtime > since]
    if changed:
        environment = {**os.environ, "PYTHONPATH": str(work / "src")}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *changed]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            raise SystemExit(f"tests fail without any fault: {done.stdout[-2000:]}")
    return changed


def load_tests(tests: list[str]) -> None:
    """Load pytest and all test files, which each forked process then has already; all tests must be there without a fault."""
    import pytest

    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        code = pytest.main(["-q", "--collect-only", "-p", "no:cacheprovider", *tests])
    if code:
        raise SystemExit(f"some tests are not what they were when their reach was measured: {text.getvalue()[-1000:]}")


def start(work: Path, fault: Fault, tests: list[str], log: Path) -> int:
    process = os.fork()
    if process == 0:
        try:
            run_child(work, fault, tests, log)
        except BaseException as error:
            os.write(2, repr(error).encode())
        finally:
            os._exit(70)
    return process


def run_faults(work: Path, wanted: list[tuple[Fault, list[str], float]], jobs: int, results: Path) -> None:
    """Run each fault with its tests and time limit, ``jobs`` at a time, and append a line for each to ``results``."""
    running: dict[int, tuple[Fault, float, float]] = {}
    waiting = list(reversed(wanted))
    while waiting or running:
        while waiting and len(running) < jobs:
            fault, tests, limit = waiting.pop()
            if not tests:
                append(results, fault, "not reached", 0.0)
                continue
            running[start(work, fault, tests, results.with_suffix(f".{len(waiting)}.log"))] = (fault, time.monotonic(), limit)
        time.sleep(0.05)
        for process, (fault, began, limit) in list(running.items()):
            done, status = os.waitpid(process, os.WNOHANG)
            seconds = time.monotonic() - began
            if not done and seconds > limit:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process, signal.SIGKILL)
                os.waitpid(process, 0)
            if done or seconds > limit:
                del running[process]
                code = os.waitstatus_to_exitcode(status) if done else None
                outcome = "hung" if code is None else "noticed" if code < 0 else OUTCOMES.get(code, f"not run ({code})")
                append(results, fault, outcome, seconds)


def append(results: Path, fault: Fault, outcome: str, seconds: float) -> None:
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"name": fault.name, "outcome": outcome, "seconds": round(seconds, 1), **asdict(fault)}) + "\n")
    if outcome not in ("noticed", "hung"):
        print(f"{outcome}: {fault.name} line {fault.lines[0]}: {fault.before}  ->  {fault.after}", flush=True)


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    share, squared = successes / n, z**2
    middle, half = share + squared / (2 * n), z * sqrt(share * (1 - share) / n + squared / (4 * n**2))
    return (middle - half) / (1 + squared / n), (middle + half) / (1 + squared / n)


def outcomes(results: Path) -> dict[str, str]:
    """The last outcome of every fault."""
    if not results.is_file():
        return {}
    lines = map(json.loads, results.read_text(encoding="utf-8").splitlines())
    return {line["name"]: line["outcome"] for line in lines}


def run_sample(work: Path, packages: list[str], size: int, seed: int, *, again: bool, jobs: int) -> float:
    """Share of a sample of faults that is noticed. ``work`` holds a copy of src, tests and pyproject.toml."""
    folder, results = work.parent / "reach", work.parent / f"sample-{seed}.jsonl"
    if not (folder / "durations.txt").is_file():
        measure_reach(work, packages, folder)
    reach = read_reach(folder)
    measured = (folder / "durations.txt").stat().st_mtime
    sample = draw(work / "src" / "dynamicdps", packages, size, seed)
    before = outcomes(results)
    rerun = {"survived", "not reached"} if again else set()
    new_of = {package: changed_tests(work, package, measured) for package in packages}
    wanted = []
    for fault in sample:
        if fault.name in before and before[fault.name] not in rerun:
            continue
        tests, new = reach.of(fault), new_of[fault.package]
        limit = SPARE_SECONDS * (1 + len(new)) + SLOWER * sum(reach.seconds.get(test, 0.0) for test in tests)
        wanted.append((fault, [*new, *tests], limit))
    os.chdir(work)
    sys.path[:0] = [str(work / "src"), str(work)]
    os.environ["PYTHONPATH"] = str(work / "src")
    for name in (*PRELOADED, *(f"dynamicdps.{package}" for package in packages)):
        importlib.import_module(name)
    for file in {fault.file for fault in sample}:
        importlib.import_module("dynamicdps." + file.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    load_tests(sorted({test for _, tests, _ in wanted for test in tests}))
    run_faults(work, wanted, jobs, results)
    now = outcomes(results)
    counts = Counter((fault.package, now[fault.name]) for fault in sample)
    noticed = sum(n for (_, outcome), n in counts.items() if outcome in ("noticed", "hung"))
    run = sum(n for (_, outcome), n in counts.items() if not outcome.startswith("not run"))
    for package in packages:
        print(f"{package}: " + ", ".join(f"{n} {outcome}" for (name, outcome), n in sorted(counts.items()) if name == package))
    low, high = wilson(noticed, run)
    print(f"{noticed} of {run} sampled faults noticed: {noticed / run:.1%} (95 % interval {low:.1%} to {high:.1%})")
    return noticed / run
