"""
Samples, and what they say
==========================

A poor measurement fits many images. Posterior samples are some of them: where they differ, the
measurement leaves the image open. From them come a map of standard deviations and intervals of
tissue volumes. Both hold less than the whole error, as can be seen here.
"""

import matplotlib.pyplot as plt
from scipy.ndimage import binary_erosion

import dynamicdps as dd
from dynamicdps.evaluation import segment, tissue_intervals, tissue_volumes
from dynamicdps.volumes import brain_mask, crop

scan = crop(dd.load(dd.demo_scan()), (slice(None), slice(None), slice(16, 17)))
scanner = dd.ScanOperator(dd.LowField(gamma=0.7, in_plane_factor=2.0, blur=1.0), noise=0.05)
poor, operator = dd.simulate(scan, scanner)
unet, prior = dd.load_conditional("unet-range"), dd.load_prior("brain")
initial = dd.initial_from_model(poor, operator, unet, "unet-range").volume

# %%
# ``estimate="sample"`` draws samples; the default takes the most probable image in each data step, so
# that they differ less. ``keep_samples`` keeps each of them beside their mean.

config = dd.DynamicDPSConfig(samples=8, estimate="sample", keep_samples=True)
result = dd.solve("dynamicdps", poor, operator, prior, initial=initial, config=config)

# %%
# The samples agree on the ventricle, which the measurement shows, and each has folds of its own in
# the insula, where it shows little. Their mean is smooth there.

images = {f"sample {i + 1}": sample for i, sample in enumerate(result.samples[:3])}
images |= {"measurement": poor, "mean of 8": result.volume, "truth": scan}
figure, axes = plt.subplots(2, 3, figsize=(7.4, 5.3), layout="constrained")
for place, (title, image) in zip(axes.flat, images.items(), strict=True):
    grey = {"cmap": "gray", "vmin": 0, "vmax": result.scale.scale}
    place.imshow(image.data[..., 0].T, origin="lower", extent=(0, 144, 0, 184), **grey)
    place.set(xlim=(72, 144), ylim=(55, 125))
    place.set_title(title, fontsize=10)
    place.set_axis_off()

# %%
# Were the standard deviation all of the error, about 95 % of the voxels would be nearer to the truth
# than two of it. It is not: at the rim of the brain all samples are wrong in the same way.

error = abs(result.volume.data - scan.data) / result.scale.scale
spread = result.uncertainty.data / result.scale.scale
brain = brain_mask(scan)
near = (error <= 2 * spread)[brain].mean()
print(f"nearer than two standard deviations: {near:.0%} of the brain")

figure, axes = plt.subplots(1, 2, figsize=(7.4, 4.2), layout="constrained")
maps = {"standard deviation of the samples": spread, "error of their mean": error}
for place, (title, values) in zip(axes, maps.items(), strict=True):
    drawn = place.imshow(values[..., 0].T, origin="lower", vmin=0, vmax=0.15)
    place.set_title(title, fontsize=10)
    place.set_axis_off()
label = "share of the intensity range"
figure.colorbar(drawn, ax=axes, label=label, extend="max", pad=0.02)

# %%
# An interval holds the tissue volume of one more sample with 95 %; errors that all samples share are
# not in it. Here they are at the rim again, one voxel wide, where fluid takes the place of grey
# matter. Without it, fluid and grey matter lie in their intervals, white matter at the end of its own.

inner = binary_erosion(brain[..., 0])[..., None]
for name, mask in {"brain": brain, "brain without its outermost voxel": inner}.items():
    volumes = {}
    for title, image in (("truth", scan), ("U-Net", initial), ("mean", result.volume)):
        volumes[title] = tissue_volumes(segment(image.data, mask), scan.spacing)
    samples = [sample.data for sample in result.samples]
    found = tissue_intervals(samples, mask, scan.spacing, estimate=volumes["mean"])
    print(f"\n{name}, mm3\n       truth  U-Net   mean  its interval")
    for tissue, (low, high) in found.interval_mm3.items():
        values = "".join(f"{each[tissue]:7.0f}" for each in volumes.values())
        print(f"{tissue:5}{values}  {low:.0f} to {high:.0f}")
