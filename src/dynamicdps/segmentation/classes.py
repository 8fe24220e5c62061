"""Classes of a segmentation, which labels of FreeSurfer's table belong to each, and what is reported of them."""

from dataclasses import dataclass

# Numbers of FreeSurfer's colour table, left, right and without a side, by the class that they belong to.
LABELS: dict[str, tuple[int, ...]] = {
    "other": (),
    "outer fluid": (24,),
    "ventricles": (4, 5, 14, 15, 43, 44, 31, 63, 72),
    "cortex": (3, 42),
    # Vessels and what has no tissue of its own lie among white matter.
    "white matter": (2, 41, 30, 62, 77, 85, 251, 252, 253, 254, 255),
    "cerebellar cortex": (8, 47),
    "cerebellar white matter": (7, 46),
    "thalamus": (9, 10, 48, 49),
    "caudate": (11, 50),
    "putamen": (12, 51),
    "pallidum": (13, 52),
    "hippocampus": (17, 53),
    "amygdala": (18, 54),
    "accumbens": (26, 58),
    "ventral diencephalon": (28, 60),
    "brain stem": (16,),
}
CLASSES = tuple(LABELS)
BRAIN = tuple(range(2, len(CLASSES)))
# Classes that are also measured together: where each alone is uncertain their sum may not be.
TISSUES: dict[str, tuple[int, ...]] = {
    name: tuple(CLASSES.index(each) for each in classes)
    for name, classes in {
        "all fluid": ("outer fluid", "ventricles"),
        "all grey matter": (
            *("cortex", "cerebellar cortex", "thalamus", "caudate", "putamen", "pallidum"),
            *("hippocampus", "amygdala", "accumbens"),
        ),
        "all white matter": ("white matter", "cerebellar white matter"),
        "deep grey matter": ("thalamus", "caudate", "putamen", "pallidum", "accumbens"),
        "striatum": ("caudate", "putamen", "accumbens"),
        "hippocampus and amygdala": ("hippocampus", "amygdala"),
        "cerebellum": ("cerebellar cortex", "cerebellar white matter"),
    }.items()
}
_OF_LABEL = {label: index for index, labels in enumerate(LABELS.values()) for label in labels}


def class_of(label: int) -> int:
    """Index into `CLASSES` of a label of FreeSurfer's; what is not of the brain is 0."""
    return _OF_LABEL.get(label, 0)


@dataclass(frozen=True)
class Structure:
    """A part of the head that a segmentation reports.

    Attributes:
        name: of its class, as in `CLASSES`, or of its tissue, as in `TISSUES`.
        side: ``"left"``, ``"right"``, or empty where it has none or none is known.
        label: its number in FreeSurfer's table; of a structure whose side is not known the left one's; of a tissue 0.
        colour: in that table, as ``#rrggbb``.
        abbreviation: of name and side.
    """

    name: str
    side: str
    label: int
    colour: str
    abbreviation: str

    @property
    def full_name(self) -> str:
        """Side and name."""
        return f"{self.side} {self.name}".strip()

    @property
    def classes(self) -> tuple[int, ...]:
        """What it consists of, as indices into `CLASSES`."""
        return TISSUES[self.name] if self.name in TISSUES else (CLASSES.index(self.name),)


# Abbreviation, colour, and numbers of the left and the right one, or of the one, in FreeSurfer's table. The ventricles are all of them.
_REPORTED: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "outer fluid": ("CSF", "#3c3c3c", (24,)),
    "ventricles": ("VEN", "#781286", (4, 43)),
    "cortex": ("CTX", "#cd3e4e", (3, 42)),
    "white matter": ("WM", "#f5f5f5", (2, 41)),
    "cerebellar cortex": ("CBC", "#e69422", (8, 47)),
    "cerebellar white matter": ("CBW", "#dcf8a4", (7, 46)),
    "thalamus": ("THA", "#00760e", (10, 49)),
    "caudate": ("CAU", "#7abadc", (11, 50)),
    "putamen": ("PUT", "#ec0db0", (12, 51)),
    "pallidum": ("PAL", "#0c30ff", (13, 52)),
    "hippocampus": ("HIP", "#dcd814", (17, 53)),
    "amygdala": ("AMY", "#67ffff", (18, 54)),
    "accumbens": ("ACC", "#ffa500", (26, 58)),
    "ventral diencephalon": ("VDC", "#a52a2a", (28, 60)),
    "brain stem": ("BS", "#779fb0", (16,)),
}


def structures(*, sided: bool) -> tuple[Structure, ...]:
    """All that has a label, in the order of `CLASSES`, left before right.

    Args:
        sided: whether left and right are told apart.
    """
    found = []
    for name, (short, colour, labels) in _REPORTED.items():
        if sided and len(labels) == 2:
            found += [
                Structure(name, side, label, colour, f"{short}-{side[0].upper()}")
                for side, label in zip(("left", "right"), labels, strict=True)
            ]
        else:
            found.append(Structure(name, "", labels[0], colour, short))
    return tuple(found)


def tissues() -> tuple[Structure, ...]:
    """All that is measured of several classes together, of both sides."""
    return tuple(Structure(name, "", 0, "", "") for name in TISSUES)
