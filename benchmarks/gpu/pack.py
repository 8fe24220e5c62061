"""Pack training scans into one small file for a machine that takes little: slices of bytes as JPEG mosaics.

    python benchmarks/gpu/pack.py DATA --out build/gpu/scans.npz

DATA holds `oasis/train`, `oasis/validation`, `wholebrain`, `t2w` and `flair/slices.npz`. Scans named by --without are left out: what
results are measured on. Scans for validation are packed without loss.
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dynamicdps.training.windows import TrainingVolume

HELD_OUT = ("sub-norm", "sub-trio", "sub-datalad", "sub-patient19")


def encode(volume: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """A volume (z, y, x) as one image of its slices below each other; quality 0 is PNG, without loss."""
    buffer = io.BytesIO()
    image = Image.fromarray(volume.reshape(-1, volume.shape[2]))
    if quality:
        image.save(buffer, format="JPEG", quality=quality)
    else:
        image.save(buffer, format="PNG", optimize=True)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


def cropped(volume: TrainingVolume) -> TrainingVolume:
    """Without the empty margins."""
    filled = volume.data > 0
    spans = [np.flatnonzero(filled.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    box = tuple(slice(max(0, s[0] - 4), s[-1] + 5) for s in spans)
    return TrainingVolume(np.ascontiguousarray(volume.data[box]), volume.scale, volume.contrast)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/gpu/scans.npz"))
    parser.add_argument("--quality", type=int, default=94, help="of the JPEG mosaics")
    parser.add_argument("--without", nargs="*", default=list(HELD_OUT), help="scans whose names begin so are left out")
    parser.add_argument("--scans", type=int, default=10_000, help="at most so many of each folder")
    parser.add_argument("--flair-slices", type=int, default=200, help="single slices of so many patients")
    arguments = parser.parse_args()
    root: Path = arguments.data
    found: list[tuple[str, str, TrainingVolume]] = []
    for folder, contrast in (
        ("oasis/train", "T1w"),
        ("oasis/validation", "T1w"),
        ("wholebrain", "T1w"),
        ("t2w", "T2w"),
        ("flair", "FLAIR"),
    ):
        files = [f for f in sorted((root / folder).glob("sub-*.nii.gz")) if not f.name.startswith(tuple(arguments.without))]
        names = {file: file.name.removesuffix(".nii.gz") for file in files[: arguments.scans]}
        found += [(folder, name, cropped(TrainingVolume.from_file(file, contrast))) for file, name in names.items()]
    if (root / "flair/slices.npz").exists():
        slices = np.load(root / "flair/slices.npz")["slices"][:, ::-1]
        # The last 60 are held out.
        chosen = slices[: min(len(slices) - 60, arguments.flair_slices)]
        found += [("flair", f"slice-{n}", TrainingVolume.from_array(np.ascontiguousarray(s[None]), "FLAIR")) for n, s in enumerate(chosen)]
    arrays: dict[str, NDArray[np.uint8]] = {}
    cards, errors = [], []
    for number, (folder, name, volume) in enumerate(found):
        validation = folder.endswith("validation")
        if validation and number % 3:
            continue
        data = volume.data[10:22] if validation else volume.data
        arrays[str(number)] = encoded = encode(data, 0 if validation else arguments.quality)
        decoded = np.asarray(Image.open(io.BytesIO(encoded.tobytes()))).reshape(data.shape).astype(float)
        errors.append(float(np.square(decoded - data)[data > 0].mean() ** 0.5) * volume.scale)
        cards.append(
            {"key": str(number), "name": name, "folder": folder, "shape": data.shape, "scale": volume.scale, "contrast": volume.contrast}
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(arguments.out, cards=np.frombuffer(json.dumps(cards).encode(), dtype=np.uint8), **arrays)
    sizes = {f: sum(arrays[c["key"]].size for c in cards if c["folder"] == f) / 1e6 for f in sorted({c["folder"] for c in cards})}
    print(f"{len(cards)} scans, {arguments.out.stat().st_size / 1e6:.1f} MB {sizes}; rms error of packing {np.mean(errors):.4f}")


if __name__ == "__main__":
    main()
