"""The process of one job: `python -m dynamicdps.app.worker WORK`, where WORK is the JSON of what to do.

It says how far it is as lines of JSON on standard output: ``{"stage", "done", "planned"}``, or ``{"problem"}`` where the input cannot be
used (exit code 2), or where the result could not be written as DICOM too (exit code 0). It ends when its standard input does, and so with
whoever started it, however that ended.
"""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

# In the folder of the results, where the scan is one of DICOM files.
DICOM = "dicom"


def work(what: dict[str, Any], channel: Any) -> int:
    """Enhance scans and write the results.

    Args:
        what: ``scans`` (paths), ``options`` (of `dynamicdps.pipeline.EnhanceOptions` by name), ``out`` (folder).
        channel: text file for the lines.

    Returns:
        Exit code.
    """

    def tell(stage: str, done: int, planned: int) -> None:
        channel.write(json.dumps({"stage": stage, "done": done, "planned": planned}) + "\n")
        channel.flush()

    def tell_problem(problem: str) -> None:
        channel.write(json.dumps({"problem": problem}) + "\n")
        channel.flush()

    tell("load", 0, 1)
    # Torch and more, of which the line above tells.
    from dynamicdps.errors import InputError
    from dynamicdps.pipeline.enhancement import enhance

    scans, out = [Path(scan) for scan in what["scans"]], Path(what["out"])
    try:
        result = enhance(scans, progress=tell, **what["options"])
        tell("write", 0, 1)
        result.write(out)
    except InputError as error:
        tell_problem(str(error))
        return 2
    if scans[0].is_dir():
        try:
            result.write_dicom(out / DICOM)
        except InputError as error:
            tell_problem(f"the result was not written as DICOM: {error}")
    tell("write", 1, 1)
    return 0


def end_with_standard_input() -> None:
    """Wait for the end of standard input, then end the process at once."""
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_standard_input, daemon=True).start()
    # What libraries print goes to the log.
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.exit(work(json.loads(sys.argv[1]), lines))
