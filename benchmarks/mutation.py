"""Mutation testing: which share of small faults in the code do the tests notice?

mutmut changes one thing at a time (a sign, a constant, a comparison) in a copy of the repository under build/mutation and runs the
tests that reach it. Run it as ``make mutation`` (all of solvers, operators and evaluation: many hours) or on some files,
``make mutation MODULE=operators/presets.py``. What survived: ``cd build/mutation && ../../.venv/bin/mutmut show NAME``.

``make mutation SAMPLE=200`` estimates the share from a random sample instead, with its 95 % interval, in about an hour; there the faults
and the runs are our own (mutation_faults.py, mutation_sample.py). ``--seed`` draws another sample, ``--again`` repeats what survived.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "mutation"
SAMPLED = ROOT / "build" / "mutation-sample" / "copy"
PACKAGES = ("solvers", "operators", "evaluation")
WANTED = 0.85


def tests_of(module: str) -> list[str]:
    """The test file that mirrors a module, or the folder of its package."""
    path = Path("tests") / module
    mirror = path.parent / f"test_{path.name}"
    folder = path if path.suffix == "" else path.parent
    return [str(mirror)] if (ROOT / mirror).is_file() else [str(folder)]


def prepare(modules: list[str]) -> None:
    """A copy of what is mutated and tested, with its settings."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    for folder in ("src", "tests"):
        shutil.copytree(ROOT / folder, WORK / folder, ignore=shutil.ignore_patterns("__pycache__"))
    patterns = [f"src/dynamicdps/{module}" + ("" if module.endswith(".py") else "/*") for module in modules]
    tests = sorted({test for module in modules for test in tests_of(module)})
    # Processes that have computed with torch cannot be forked safely.
    settings = {
        "source_paths": ["src"],
        "only_mutate": patterns,
        "pytest_add_cli_args_test_selection": tests,
        "pytest_add_cli_args": ["-m", "not slow", "-p", "no:cacheprovider"],
        "process_isolation": "forkserver",
        "mutate_only_covered_lines": True,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (WORK / "pyproject.toml").write_text(f"{text}\n[tool.mutmut]\n" + "\n".join(lines) + "\n", encoding="utf-8")


def mutmut(*arguments: str) -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-m", "mutmut", *arguments], cwd=WORK, env=environment).returncode  # noqa: S603


def copy_to(folder: Path) -> None:
    """A copy of what the tests run on, so that edits meanwhile change nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("src", "tests", "docs", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def main() -> int:
    parser = argparse.ArgumentParser(description="Which share of small faults do the tests notice?")
    parser.add_argument("modules", nargs="*", help="files or packages of src/dynamicdps")
    parser.add_argument("--sample", type=int, help="estimate the share from so many random faults")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--again", action="store_true", help="run the sampled faults that were not noticed once more")
    arguments = parser.parse_args()
    modules: list[str] = arguments.modules
    unknown = [module for module in modules if not (ROOT / "src" / "dynamicdps" / module).exists()]
    if unknown:
        sys.stderr.write(
            f"there is no src/dynamicdps/{unknown[0]}; expected files or packages such as operators/presets.py; change MODULE\n"
        )
        return 2
    if arguments.sample:
        from mutation_sample import run_sample

        if files := [module for module in modules if module.endswith(".py")]:
            sys.stderr.write(
                f"{files[0]} is a file; expected packages such as operators for a sample; leave --sample out or name packages\n"
            )
            return 2

        copy_to(SAMPLED)
        jobs = int(os.environ.get("MUTATION_JOBS", 1))
        share = run_sample(SAMPLED, modules or list(PACKAGES), arguments.sample, arguments.seed, again=arguments.again, jobs=jobs)
        return 0 if share >= WANTED else 1
    prepare(modules or list(PACKAGES))
    code = mutmut("run", "--max-children", str(os.environ.get("MUTATION_JOBS", 1)))
    if code:
        return code
    mutmut("export-cicd-stats")
    counts = json.loads((WORK / "mutants" / "mutmut-cicd-stats.json").read_text(encoding="utf-8"))
    noticed, all_of_them = counts["killed"] + counts["timeout"], counts["total"] - counts["skipped"]
    share = noticed / max(all_of_them, 1)
    mutmut("results")
    print(f"{noticed} of {all_of_them} mutants noticed ({share:.1%}); wanted {WANTED:.0%}")
    return 0 if share >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
