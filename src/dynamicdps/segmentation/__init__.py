"""Networks that find the brain and its parts in heads of any contrast, trained on images made of label maps."""

from dynamicdps.segmentation.brain_network import BRAIN_MODEL, BrainNetwork, View, brain_finder, load_brain_network
from dynamicdps.segmentation.class_chances import ClassChances
from dynamicdps.segmentation.intensity_mixture import FinerChances, refine_chances
from dynamicdps.segmentation.midplane import Midplane, fit_midplane
from dynamicdps.segmentation.repeats import repeated_volumes
from dynamicdps.segmentation.synthetic_heads import LabelMap, SyntheticHeads
from dynamicdps.segmentation.thick_slices import SHARPENING_MODEL, without_thick_slices
from dynamicdps.segmentation.training import train_segmenter

__all__ = [
    "BRAIN_MODEL",
    "SHARPENING_MODEL",
    "BrainNetwork",
    "ClassChances",
    "FinerChances",
    "LabelMap",
    "Midplane",
    "SyntheticHeads",
    "View",
    "brain_finder",
    "fit_midplane",
    "load_brain_network",
    "refine_chances",
    "repeated_volumes",
    "train_segmenter",
    "without_thick_slices",
]
