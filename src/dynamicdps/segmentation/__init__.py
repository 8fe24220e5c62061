"""Networks that find the brain and its parts in heads of any contrast, trained on images made of label maps."""

from dynamicdps.segmentation.brain_network import BrainNetwork, brain_finder, load_brain_network
from dynamicdps.segmentation.synthetic_heads import LabelMap, SyntheticHeads
from dynamicdps.segmentation.training import train_segmenter

__all__ = ["BrainNetwork", "LabelMap", "SyntheticHeads", "brain_finder", "load_brain_network", "train_segmenter"]
