"""Conditional models: from the measurement straight to an image."""

from dynamicdps.conditional.esrgan import ConditionalESRGAN, RRDBConfig
from dynamicdps.conditional.esrgan_training import train_esrgan
from dynamicdps.conditional.load import load_conditional
from dynamicdps.conditional.model import ConditionalModel, InitialModel
from dynamicdps.conditional.pairs import DegradationRange, draw_pair
from dynamicdps.conditional.unet import ConditionalUNet, load_unet, train_unet
from dynamicdps.conditional.volume_model import ConditionalVolumeUNet
from dynamicdps.conditional.volume_network import VolumeConfig
from dynamicdps.conditional.volume_training import train_volume_unet
from dynamicdps.models.names import CONDITIONAL_KINDS

__all__ = [
    "CONDITIONAL_KINDS",
    "ConditionalESRGAN",
    "ConditionalModel",
    "ConditionalUNet",
    "ConditionalVolumeUNet",
    "DegradationRange",
    "InitialModel",
    "RRDBConfig",
    "VolumeConfig",
    "draw_pair",
    "load_conditional",
    "load_unet",
    "train_esrgan",
    "train_unet",
    "train_volume_unet",
]
