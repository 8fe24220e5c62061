"""Classes of a segmentation, and which labels of FreeSurfer's table belong to each."""

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
_OF_LABEL = {label: index for index, labels in enumerate(LABELS.values()) for label in labels}


def class_of(label: int) -> int:
    """Index into `CLASSES` of a label of FreeSurfer's; what is not of the brain is 0."""
    return _OF_LABEL.get(label, 0)
