"""Classes of a segmentation, and which labels of FreeSurfer's table belong to each."""

CLASSES = ("other", "outer fluid", "ventricles", "cortex", "white matter", "cerebellum", "deep grey", "brain stem")
BRAIN = tuple(range(2, len(CLASSES)))

# Numbers of FreeSurfer's colour table, left, right and without a side, by the class that they belong to.
LABELS: dict[str, tuple[int, ...]] = {
    "outer fluid": (24,),
    "ventricles": (4, 5, 14, 15, 43, 44, 31, 63, 72),
    "cortex": (3, 42, 17, 53, 18, 54),
    # Vessels and what has no tissue of its own lie among white matter.
    "white matter": (2, 41, 30, 62, 77, 85, 251, 252, 253, 254, 255),
    "cerebellum": (7, 8, 46, 47),
    "deep grey": (10, 11, 12, 13, 26, 28, 49, 50, 51, 52, 58, 60),
    "brain stem": (16,),
}


def class_of(label: int) -> int:
    """Index into `CLASSES` of a label of FreeSurfer's; what is not of the brain is 0."""
    for name, labels in LABELS.items():
        if label in labels:
            return CLASSES.index(name)
    return 0
