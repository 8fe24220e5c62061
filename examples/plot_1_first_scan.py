"""
Enhance a first scan
====================

Make a poor scan from a good one, let a conditional model make a first image of it, and let
DynamicDPS correct that image by what was measured. :doc:`/quick-start` does the same with commands.
"""

import matplotlib.pyplot as plt

import dynamicdps as dd
from dynamicdps.evaluation import evaluate_volume
from dynamicdps.volumes import crop

# Two of the 32 slices: enough to see, and quick.
scan = crop(dd.load(dd.demo_scan()), (slice(None), slice(None), slice(15, 17)))

# %%
# The scanner of ``iqt-out`` has voxels four times as long in the plane and a flat contrast, which
# the conditional model ``unet-iqt-in`` has never seen. ``simulate`` gives the measurement, on the
# scanner's own grid, and the operator that says how it came about.

poor, operator = dd.simulate(scan, dd.preset("iqt-out"))
print(scan, poor, sep="\n")

# %%
# Four samples of the posterior; the default is two. The estimate is their mean.

enhanced = dd.enhance(poor, operator=operator, conditional="unet-iqt-in", samples=4)
result = enhanced.result
print(enhanced)
print(f"{result.nfe} denoiser passes a slice, from level {result.start_sigma:.2f} of noise")

# %%
# Here the truth is known, so that both images can be judged. The misfit can be had without it: it
# puts the image through the operator and compares that with the measurement, in standard deviations
# of the noise. Near 1 the image explains what was measured, below 1 it follows some of the noise
# too. The conditional model's image does not explain it: its contrast is wrong.

print("             PSNR (dB)   SSIM  misfit")
for name, image in {"conditional": enhanced.initial, "DynamicDPS": enhanced.image}.items():
    of = evaluate_volume(image, scan, result.scale, poor, operator)
    print(f"{name:12} {of.psnr:9.1f} {of.ssim:6.3f} {of.data_misfit:7.1f}")

# %%
# All four pictures have the same grey scale. (``dd.report.plot(result, measurement=poor,
# truth=scan)`` gives a larger figure of a result, for a paper.)


def show(axes, data, title, **colours):
    """The first slice, the front of the head up and its left on the left."""
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()
    return axes.imshow(data[..., 0].T, origin="lower", **colours)


grey = {"cmap": "gray", "vmin": 0, "vmax": result.scale.scale}
images = {"measurement": poor, "conditional": enhanced.initial}
images |= {"DynamicDPS": enhanced.image, "truth": scan}
figure, axes = plt.subplots(1, 4, figsize=(7.4, 2.6), layout="constrained")
for place, (title, image) in zip(axes, images.items(), strict=True):
    show(place, image.data, title, **grey)

# %%
# The standard deviation over the samples says where they differ: at folds and edges that the
# measurement leaves open, hardly inside white matter. It shows where the prior had to choose, and
# not how large the error is. That is larger, most of all at the brain's rim, where all samples are
# wrong in the same way.

error = abs(enhanced.image.data - scan.data) / result.scale.scale
spread = enhanced.uncertainty.data / result.scale.scale
figure, axes = plt.subplots(1, 2, figsize=(7.4, 4.2), layout="constrained")
show(axes[0], error, "error", vmin=0, vmax=0.15)
drawn = show(axes[1], spread, "standard deviation of the samples", vmin=0, vmax=0.15)
label = "share of the intensity range"
figure.colorbar(drawn, ax=axes, label=label, extend="max", pad=0.02)
print("root mean square in the brain")
for name, values in {"error": error, "standard deviation": spread}.items():
    print(f"{name:18} {(values[scan.data > 0] ** 2).mean() ** 0.5:.3f}")
