"""Conditional models: from the measurement straight to an image."""

from dynamicdps.conditional.esrgan import ConditionalESRGAN, RRDBConfig, load_esrgan
from dynamicdps.conditional.esrgan_training import train_esrgan
from dynamicdps.conditional.load import CONDITIONAL_KINDS, load_conditional
from dynamicdps.conditional.model import ConditionalModel
from dynamicdps.conditional.pairs import DegradationRange, draw_pair
from dynamicdps.conditional.unet import ConditionalUNet, load_unet, train_unet

__all__ = [
    "CONDITIONAL_KINDS",
    "ConditionalESRGAN",
    "ConditionalModel",
    "ConditionalUNet",
    "DegradationRange",
    "RRDBConfig",
    "draw_pair",
    "load_conditional",
    "load_esrgan",
    "load_unet",
    "train_esrgan",
    "train_unet",
]
