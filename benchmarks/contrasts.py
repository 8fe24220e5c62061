"""Which contrast the intensities of scans say, against the one in their names.

    python benchmarks/contrasts.py SCAN_T1w.nii.gz SCAN_T2w.nii.gz ... [--slices slices.npz]

The names of the scans end in their BIDS suffix; the brain is found as `enhance` does. Of `--slices`, single FLAIR slices `(slices, rows,
columns)` with the front in the first row, every fourth is looked at. Printed: a row for each folder and contrast with how many scans are
taken for what, and the numbers of those that are not taken for what they are. A few seconds a scan.
"""

import argparse
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from dynamicdps.pipeline.scan_contrast import contrast_of
from dynamicdps.volumes import Volume, extract_brain, load
from dynamicdps.volumes.contrast import ContrastLook, look_at_contrast

COLUMNS = ("T1w", "T2w", "FLAIR", "unsure")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--slices", type=Path)
    arguments = parser.parse_args()
    looks: list[tuple[str, str, str, ContrastLook | None]] = []
    for scan in arguments.scans:
        volume = load(scan)
        looks.append((scan.parent.name, str(contrast_of(scan)), scan.name, look_at_contrast(volume, extract_brain(volume).inside)))
    if arguments.slices is not None:
        for number, rows in enumerate(np.load(arguments.slices)["slices"][::4, ::-1].astype(np.float32)):
            single = Volume(np.ascontiguousarray(rows.T[:, :, None]), np.eye(4))
            looks.append(("single slices", "FLAIR", f"slice {4 * number}", look_at_contrast(single, single.data > 0)))
    table: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for folder, contrast, name, look in looks:
        said = look.contrast if look is not None and look.is_sure else "unsure"
        table[folder, contrast][said] += 1
        if said != contrast:
            print(f"{name}: {'too little brain' if look is None else look.in_words()}")
    print(f"| scans | contrast | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 2)}")
    for (folder, contrast), counts in table.items():
        print(f"| {folder} | {contrast} | {' | '.join(str(counts[name]) for name in COLUMNS)} |")


if __name__ == "__main__":
    main()
