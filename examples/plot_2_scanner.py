"""
Describe a scanner
==================

The result is as good as the operator: what the software believes that the scanner did to the image.
Here is what each part of it does, how parts are put together, and how a scanner is written down.
:doc:`/scanner` says where the numbers of a real one come from.
"""

import json

import matplotlib.pyplot as plt
import torch

import dynamicdps as dd
from dynamicdps.operators import BiasField, operator_from_json
from dynamicdps.volumes import IntensityScale, to_batch

scan = dd.load(dd.demo_scan())
scale = IntensityScale.robust(scan.data)

# %%
# ``LowField`` holds what most scanners need. Each of these has one part of it; what is not named
# leaves the image as it is. Noise is added to what the scanner shows: its standard deviation is a share
# of the intensity range.

scanners = {
    "gamma 0.4": dd.ScanOperator(dd.LowField(gamma=0.4), noise=0.001),
    "blur 2 voxels": dd.ScanOperator(dd.LowField(blur=2.0), noise=0.001),
    "in-plane factor 3": dd.ScanOperator(dd.LowField(in_plane_factor=3.0), noise=0.001),
    "slices of 5 mm": dd.ScanOperator(dd.LowField(slice_thickness=5.0), noise=0.001),
    "noise 0.1": dd.ScanOperator(dd.LowField(), noise=0.1),
}
images = {"the scan": scan}
for name, scanner in scanners.items():
    images[name], _ = dd.simulate(scan, scanner)
for name, image in images.items():
    size = " x ".join(f"{mm:.0f}" for mm in image.spacing)
    print(f"{name:18} {image.shape} voxels of {size} mm")

# %%
# Gamma below 1 brings dark and bright tissue nearer to each other. Blur and larger voxels both take
# details; larger voxels are fewer numbers, too. Noise covers what is fainter than it.


def show(axes, title, data, width_mm, height_mm, white=scale.scale):
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()
    grey = {"cmap": "gray", "vmin": 0, "vmax": white, "interpolation": "nearest"}
    axes.imshow(data.T, origin="lower", extent=(0, width_mm, 0, height_mm), **grey)


figure, axes = plt.subplots(2, 3, figsize=(7.4, 5.3), layout="constrained")
for place, (title, image) in zip(axes.flat, images.items(), strict=True):
    show(place, title, image.data[..., image.shape[2] // 2], 144, 184)
    place.set(xlim=(20, 124), ylim=(45, 145))

# %%
# What thick slices lose is seen from the front: each is a mean over about 5 mm from top to bottom.

figure, axes = plt.subplots(2, 1, figsize=(7.4, 4.3), layout="constrained")
for place, title in zip(axes, ("the scan", "slices of 5 mm"), strict=True):
    show(place, title, images[title].data[:, 92], 144, 32)

# %%
# What ``LowField`` does not have is put on with ``@``: ``A @ B`` is A after B. This scanner's coil sees
# the subject's right better. Compositions work on tensors ``(batch, 1, z, y, x)`` of intensities from 0
# to 1.

shading = torch.zeros(1, 1, 2)
shading[0, 0, 1] = 0.375  # factors exp(0.375) at one edge, exp(-0.375) at the other
low_field = dd.LowField(gamma=0.7, in_plane_factor=1.6, blur=0.8, slice_thickness=5.0)
scanner = BiasField(shading) @ low_field

volume = to_batch(scale.apply(scan).data)
seeds = [torch.Generator().manual_seed(0)]
measured = dd.Noise(0.03).draw(scanner(volume), seeds)

figure, axes = plt.subplots(1, 2, figsize=(5.2, 3.5), layout="constrained")
for place, title, x in zip(axes, ("the scan", "measured"), (volume, measured), strict=True):
    show(place, title, x[0, 0, x.shape[2] // 2].T.numpy(), 144, 184, white=1.4)

# %%
# Every operator goes to JSON and back. As a file, ``dynamicdps enhance --operator scanner.json`` and
# ``dd.read_operator`` take it.

text = json.dumps(scanner.to_json(), indent=1)
print(text)
assert torch.equal(operator_from_json(json.loads(text))(volume), scanner(volume))
