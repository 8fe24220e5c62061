"""
A solver of your own
====================

DynamicDPS has two sources: the measurement and the prior. The solver made here has the prior alone:
noise the initial image, and let the prior take the noise away again (SDEdit, Meng et al. 2022).
``data-step`` has the measurement alone. Side by side they show what each of the two is good for.
:doc:`/write-a-solver` explains the parts, and how to test a solver where the answer is known.
"""

from dataclasses import dataclass

import matplotlib.pyplot as plt

import dynamicdps as dd
from dynamicdps.evaluation import evaluate_volume
from dynamicdps.solvers import SamplerConfig, sampler
from dynamicdps.volumes import crop

# %%
# A solver is a function and a frozen dataclass of its settings. ``sampler`` does the rest: seeds, levels,
# the count of passes, the mean of several samples and their spread.


@dataclass(frozen=True)
class SDEditConfig(SamplerConfig):
    """As few levels as DynamicDPS takes, from a fixed one down."""

    steps: int = 5
    start_sigma: float | None = 0.2
    stop_sigma: float = 0.02


@sampler("sdedit", SDEditConfig)
def sdedit(task, config):
    """Meng et al., ICLR 2022, algorithm 1."""

    def sample(run):
        x = run.x  # the initial image with noise of the first level
        for sigma, down in run.steps():
            clean = run.denoise(x, sigma)
            run.record(task.term.misfit(clean))
            x = run.step_down(x, clean, sigma, down, config.eta)
        return x

    return sample


# %%
# By its name it runs as all others do. The scanner's blur is twice what the conditional model has
# seen; all four start from that model's image of the same two slices.

scan = crop(dd.load(dd.demo_scan()), (slice(None), slice(None), slice(15, 17)))
poor, operator = dd.simulate(scan, dd.preset("blur-mismatch"))
unet, prior = dd.load_conditional("unet-iqt-in"), dd.load_prior("brain")
initial = dd.initial_from_model(poor, operator, unet, "unet-iqt-in").volume
solvers = {
    "conditional": None,
    "data-step": None,
    "sdedit": SDEditConfig(samples=2),
    "dynamicdps": dd.DynamicDPSConfig(samples=2),
}
images = {}
print("solver       PSNR (dB)   SSIM  misfit  passes")
for name, config in solvers.items():
    result = dd.solve(name, poor, operator, prior, initial=initial, config=config)
    of = evaluate_volume(result.volume, scan, result.scale, poor, operator)
    numbers = f"{of.psnr:9.2f} {of.ssim:6.3f} {of.data_misfit:7.1f} {result.nfe:7}"
    print(f"{name:12} {numbers}")
    images[name] = result.volume

# %%
# The prior alone makes a plausible brain that is farther from the truth, and from the measurement,
# than the image it started from. The measurement alone brings most of the gain, for the operator
# knows the blur. Both together come nearest here; :doc:`/results` has many scans.

figure, axes = plt.subplots(2, 4, figsize=(7.4, 5.0), layout="constrained")
for (above, below), (name, image) in zip(axes.T, images.items(), strict=True):
    above.set_title(name, fontsize=10)
    grey = {"cmap": "gray", "vmin": 0, "vmax": result.scale.scale}
    above.imshow(image.data[..., 0].T, origin="lower", **grey)
    error = (image.data - scan.data) / result.scale.scale
    colours = {"cmap": "RdBu_r", "vmin": -0.3, "vmax": 0.3}
    drawn = below.imshow(error[..., 0].T, origin="lower", **colours)
for place in axes.flat:
    place.set_axis_off()
bar = {"orientation": "horizontal", "shrink": 0.5, "extend": "both"}
figure.colorbar(drawn, ax=axes[1], label="error, share of the intensity range", **bar)
