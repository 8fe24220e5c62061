"""
An invented structure goes
==========================

A conditional model can show something that nobody measured. Here that is done on purpose, beside a
structure that was measured, and DynamicDPS starts from the result. At the end: an invention that it
cannot take out.
"""

import matplotlib.pyplot as plt
from matplotlib.patches import Circle

import dynamicdps as dd
import dynamicdps.evaluation as ev
from dynamicdps.volumes import IntensityScale, brain_mask, crop

# One slice, in intensities from 0 to 1.
scan = crop(dd.load(dd.demo_scan()), (slice(None), slice(None), slice(16, 17)))
scan = IntensityScale.robust(scan.data).apply(scan)
unit = IntensityScale(1.0)
tissue = ev.segment(scan.data, brain_mask(scan))

# %%
# Two dark spots of 8 mm in white matter. The one on the left is in the head when it is measured. The
# one on the right is put into the conditional model's image alone.

real = ev.make_lesion(tissue, scan.spacing, (40, 122, 0), 8.0, contrast=-0.3)
invented = ev.make_lesion(tissue, scan.spacing, (104, 124, 0), 8.0, contrast=-0.3)
truth = scan.with_data(ev.insert_lesion(scan.data, real))

unet, prior = dd.load_conditional("unet-iqt-in"), dd.load_prior("brain")
config = dd.DynamicDPSConfig(samples=4)


def enhance(head, scanner, spot):
    """Measure a head, put a spot into the conditional model's image, start from it."""
    poor, operator = dd.simulate(head, dd.preset(scanner), scale=unit)
    image = dd.initial_from_model(poor, operator, unet, "unet-iqt-in").volume
    image = image.with_data(ev.insert_lesion(image.data, spot))
    result = dd.solve("dynamicdps", poor, operator, prior, initial=image, config=config)
    images = {"measurement": poor, "conditional + spot": image, "DynamicDPS": result.volume}
    return operator, result, images


operator, result, images = enhance(truth, "iqt-out", invented)
images["truth"] = truth

# %%
# The contrast of a spot is the mean inside it less the mean around it. The invented one goes, because
# the measurement contradicts it. The real one stays; the conditional model had shown half of it.

print("contrast of the spot     real  invented")
for name in ("truth", "conditional + spot", "DynamicDPS"):
    left, right = (ev.lesion_contrast(images[name].data, spot) for spot in (real, invented))
    print(f"{name:20} {left:z8.2f} {right:z9.2f}")


def show(axes, title, image, spots, **colours):
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()
    for spot, colour in spots.items():
        radius = spot.diameter_mm / 2 + 4
        axes.add_patch(Circle(spot.centre[:2], radius, fill=False, color=colour))
    colours = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"} | colours
    place = {"origin": "lower", "extent": (0, 144, 0, 184)}
    return axes.imshow(image.data[..., 0].T, **place, **colours)


figure, axes = plt.subplots(1, 4, figsize=(7.4, 2.6), layout="constrained")
for place, (title, image) in zip(axes, images.items(), strict=True):
    show(place, title, image, {real: "tab:blue", invented: "tab:orange"})

# %%
# Now a spot of 3 mm, under voxels of 4 mm, in an image that is good everywhere else: the contrast is
# the one that the conditional model was made for. So small a spot hardly changes the measurement. The
# image explains it well, little noise is put on it, and much of the spot is left.

small = ev.make_lesion(tissue, scan.spacing, (44, 40, 0), 3.0, contrast=-0.3)
operator, second, images = enhance(scan, "iqt-in", small)
kept = ev.resolvable(small, operator.operator, scan.data, noise_std=operator.noise.std).kept
print(f"of such a spot's contrast {kept:.0%} is measured")
print(f"noised to {second.start_sigma:.2f}; the first image: to {result.start_sigma:.2f}")
for name in ("conditional + spot", "DynamicDPS"):
    print(f"{name:20} {ev.lesion_contrast(images[name].data, small):8.2f}")

# %%
# What the measurement could not have shown has a map of its own (``hallucination.nii.gz``, of the
# command ``enhance``). The spot is on it, and so are true edges: :doc:`/limits`.

unmeasured = ev.unsupported_map(second.volume, operator, unit)
map_colours = {"cmap": "RdBu_r", "vmin": -0.3, "vmax": 0.3}
panels = {"truth": scan, **images, "not measurable": unmeasured}
figure, axes = plt.subplots(1, 5, figsize=(7.4, 1.75), layout="constrained")
for place, (title, image) in zip(axes, panels.items(), strict=True):
    colours = map_colours if image is unmeasured else {}
    drawn = show(place, title, image, {small: "tab:orange"}, **colours)
    place.set(xlim=(20, 68), ylim=(16, 64))
figure.colorbar(drawn, ax=axes)
