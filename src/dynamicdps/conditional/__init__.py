"""Conditional models: from the measurement straight to an image."""

from dynamicdps.conditional.unet import ConditionalUNet, DegradationRange, load_unet, train_unet

__all__ = ["ConditionalUNet", "DegradationRange", "load_unet", "train_unet"]
