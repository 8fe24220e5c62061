"""What each command can be asked for; `dynamicdps.cli.registry` says what it does."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, UseAppendAction, arg

from dynamicdps.output_names import folder_beside
from dynamicdps.pipeline.options import AuditOptions, EnhanceOptions, FitOptions, ReadOptions, SegmentOptions, StudyOptions

Scans = Annotated[Positional[tuple[Path, ...]], arg(metavar="SCAN...")]
# Any number of values, after the option together or each after an option of its own.
Words = UseAppendAction[tuple[str, ...]]
Settings = Annotated[Words, arg(name="set", help="More of the solver's settings, as NAME=VALUE; docs/solvers.md lists them.")]

Extension = Annotated[Path | None, arg(help="Python file of your own solvers or operators: docs/architecture.md.")]


@dataclass
class Demo:
    """Enhance the bundled scan and show what changed: simulate, enhance, evaluate, report."""

    out: Path = Path("demo-out")
    """Folder for the results."""
    quality: Literal["fast", "default", "best"] = "default"
    """fast: one run without noise; default: a pair of samples of opposite noise; best: four pairs and more noise levels."""
    samples: int | None = None
    """Posterior samples to average; without it those of --quality."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type in which the prior computes; bfloat16 is about twice as fast on CPUs made for it."""
    seed: int = 0
    """Seed of all randomness."""
    device: str = "cpu"
    """cpu, cuda or mps."""


@dataclass(frozen=True)
class _Scan:
    scan: Annotated[Positional[Path], arg(metavar="SCAN")]
    """The measurement, T1w, T2w or FLAIR: an image file (NIfTI, MGH, Analyze), a folder of DICOM files, or raw k-space (.npz, .h5,
    ISMRMRD); with or without the skull."""


@dataclass(frozen=True)
class _ScansOfHead:
    scan: Scans
    """The measurement, T1w, T2w or FLAIR: an image file (NIfTI, MGH, Analyze), a folder of DICOM files, or raw k-space (.npz, .h5,
    ISMRMRD); with or without the skull. Several scans of one head make one image."""


@dataclass(frozen=True, kw_only=True)
class Enhance(EnhanceOptions, _ScansOfHead):
    """Enhance a scan, or several of one head, by DynamicDPS (or a peer) with the scanner's forward model."""

    out: Path | None = None
    """Folder for the results; without it a folder beside the scan, such as scan_enhanced for scan.nii.gz."""
    initial: Path | None = None
    """Any model's enhanced volume to start from; without it the conditional model runs."""
    dicom: Path | None = None
    """Folder for the enhanced scan as a DICOM series of the same patient and study, where SCAN is a DICOM folder."""
    dicom_stamp: bool = False
    """Draw "DynamicDPS, not for diagnosis" into the pixels of that series."""
    settings: Settings = ()

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or folder_beside(self.scan[0], self.to)


@dataclass(frozen=True)
class _AnyScanToFolder:
    scan: Annotated[Positional[Path], arg(metavar="SCAN")]
    """A scan of a head of any contrast: an image file (NIfTI, MGH, Analyze) or a folder of DICOM files; with or without the skull."""
    out: Path
    """Folder for the results."""


@dataclass(frozen=True, kw_only=True)
class Segment(SegmentOptions, _AnyScanToFolder):
    """Find the brain and its structures in a scan of any contrast, and measure their volumes."""

    dicom: Path | None = None
    """Of a folder of DICOM files: also write the structures there, as a DICOM segmentation of the same patient and study."""


@dataclass(frozen=True)
class _ImageToAudit:
    image: Annotated[Positional[Path], arg(metavar="IMAGE")]
    """The image to audit, of any tool: an image file in the scan's space, with voxels of any size."""
    scan: Path
    """The scan that it was made from: an image file or a folder of DICOM files; with or without the skull."""


@dataclass(frozen=True, kw_only=True)
class Audit(AuditOptions, _ImageToAudit):
    """Compare any tool's image with the scan that it was made from: what the scan contradicts, and what it cannot show."""

    out: Path | None = None
    """Folder for the results; without it a folder beside the image, such as image_audit for image.nii.gz."""

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or folder_beside(self.image, ending="audit")


@dataclass
class Simulate:
    """Make a low-field scan from a good one; its operator is written beside it."""

    scan: Annotated[Positional[Path], arg(metavar="SCAN")]
    """A good scan: a skull-stripped image file."""
    out: Path
    """The simulated scan: a name that ends in .nii or .nii.gz."""
    degradation: str = "iqt-out"
    """The scanner: a named degradation, which gives the parameters left out below, or an operator's JSON file."""
    gamma: float | None = None
    """Exponent of the contrast."""
    in_plane_factor: float | None = None
    """Length of a measured voxel in the plane, in voxels of the scan."""
    blur: float | None = None
    """Standard deviation of the blur in voxels of the scan."""
    slice_thickness: float | None = None
    """Thickness of measured slices in mm."""
    noise_std: float | None = None
    """Standard deviation of the noise as a share of the intensity range."""
    snr: float | None = None
    """Signal-to-noise ratio in white matter, in the place of --noise-std."""
    noise: Literal["gaussian", "rician"] | None = None
    """Kind of noise."""
    seed: int = 0
    """Seed of the noise."""
    extension: Extension = None


@dataclass
class _Training:
    scans: Scans
    """Skull-stripped scans to learn from."""
    out: Path
    """Folder of the training: model, checkpoint, log."""
    validation: UseAppendAction[tuple[Path, ...]] = ()
    """Scans of other subjects to measure the error on; without them a tenth of SCAN... is held out."""
    resume: bool = False
    """Continue the training in --out."""
    weights: str | None = None
    """Bundled model or .safetensors file whose weights a new training starts from."""
    max_minutes: float = float("inf")
    """Stop after so many minutes; --resume goes on."""
    steps: int = 20_000
    """Stop after so many steps in all."""
    learning_rate: float = 4e-4
    """Peak of the learning rate."""
    cooldown: int = 0
    """Steps at the end over which the learning rate falls to 0."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    data_name: str = "unnamed"
    """What the model card says about the data."""
    bfloat16: bool = True
    """Compute in bfloat16 where the processor has units for it; elsewhere it would cost many times float32."""
    optimiser: Literal["adamw", "muon"] = "adamw"
    """AdamW, or Muon: orthogonal momentum, which learns more in each step."""
    batches: int = 1
    """Batches of each step, whose mean loss it lowers; several processes share them."""
    accumulate: int = 1
    """Parts of each batch, which pass the network one after another: the same step in less memory."""
    device: str = "cpu"
    """cpu, cuda or mps; of several processes each takes a GPU of its own."""
    seed: int = 0
    """Seed of all randomness."""


@dataclass
class _UNetTraining(_Training):
    channels: tuple[int, ...] = (64, 128, 192)
    """Feature channels of each level of the network, multiples of 16."""
    residual_blocks: tuple[int, ...] = (1, 2, 2)
    """Residual blocks of each level."""


@dataclass
class TrainPrior(_UNetTraining):
    """Train the prior: an unconditional score-matching model of good scans that sees neighbouring slices."""

    slices_in: int = 7
    """Neighbouring slices that the network sees, odd; 1 for single slices."""
    slices_out: int = 5
    """Slices in their middle that it returns, odd; the more, the less each costs."""
    contrast: str = "T1w"
    """BIDS suffix of the scans' contrast: T1w, T2w, FLAIR or unknown."""
    optimiser: Literal["adamw", "muon"] = "muon"
    """AdamW, or Muon: orthogonal momentum, which learns more in each step."""
    learning_rate: float = 1e-3
    """Peak of the learning rate."""


@dataclass
class TrainUNet(_UNetTraining):
    """Train a conditional U-Net on simulated pairs."""

    degradation: str = "iqt-in"
    """Named degradation of the pairs; range for many drawn at random; scanners for a network of whole volumes and random scanners."""
    channels: tuple[int, ...] = (32, 64, 128)
    """Feature channels of each level of the network, multiples of 16."""


@dataclass
class TrainESRGAN(_Training):
    """Train a conditional ESRGAN on simulated pairs: sharp, and prone to hallucination."""

    degradation: str = "iqt-in"
    """Named degradation of the pairs, or range for many drawn at random."""
    learning_rate: float = 2e-4
    """Peak of AdamW's learning rate, of generator and discriminator."""
    adversarial_weight: float = 5e-3
    """Weight of the adversarial loss beside an L1 loss of weight 1."""
    pretrain_steps: int = 3000
    """Steps of L1 alone before the discriminator comes in."""
    channels: int = 48
    """Feature channels of the generator."""
    growth: int = 24
    """Channels that each layer of a dense block adds."""
    blocks: int = 6
    """Residual-in-residual dense blocks."""


@dataclass
class TrainSegmenter(_Training):
    """Train the network that finds the brain, on images made of label maps; SCAN... are the maps, with FreeSurfer's numbers."""

    channels: tuple[int, ...] = (16, 32, 64)
    """Feature channels of each level of the network."""
    residual_blocks: tuple[int, ...] = (1, 2, 2)
    """Residual blocks of each level."""
    optimiser: Literal["adamw", "muon"] = "muon"
    """AdamW, or Muon: orthogonal momentum, which learns more in each step."""
    learning_rate: float = 1e-3
    """Peak of the learning rate."""


@dataclass
class TrainOperatorFit:
    """Train the estimator behind `calibrate operator` and `enhance --operator fit`, on scans simulated from good ones."""

    scans: Scans
    """Skull-stripped scans at 1 mm."""
    out: Path
    """Folder for operator-fit.safetensors and its model card."""
    conditional: str = "unet-range"
    """Conditional model whose images sharpen the contrast; one that keeps the scan's contrast cannot."""
    simulations: int = 6000
    """Scans to simulate."""
    epochs: int = 120
    """Passes over the simulated scans."""
    with_image: int = 150
    """Scans of held-out subjects to run the conditional model on."""
    data_name: str = "unnamed"
    """What the model card says about the data."""
    seed: int = 0
    """Seed of all randomness."""


@dataclass
class Train:
    """Train a prior, a conditional model, the network that finds the brain, or the estimator of operators."""

    model: (
        Annotated[TrainPrior, tyro.conf.subcommand("prior")]
        | Annotated[TrainUNet, tyro.conf.subcommand("unet")]
        | Annotated[TrainESRGAN, tyro.conf.subcommand("esrgan")]
        | Annotated[TrainSegmenter, tyro.conf.subcommand("segmenter")]
        | Annotated[TrainOperatorFit, tyro.conf.subcommand("operator-fit")]
    )


@dataclass
class Sample:
    """Draw random slices from a prior: see what it has learned."""

    out: Path
    """Folder for samples.png and samples.nii.gz."""
    prior: str = "brain"
    """Bundled prior or a .safetensors file."""
    contrast: str | None = None
    """What the prior is told: T1w, T2w, FLAIR or unknown; without it the contrast that its model card names first."""
    n: int = 8
    """Number of samples."""
    slices: int = 1
    """Neighbouring slices of each sample; more than 1 draws volumes."""
    layout: str = "auto"
    """Where the large parts of a brain lie: auto takes the file beside the prior, where there is one for the contrast; none starts from
    noise alone; or a .safetensors file."""
    sampler: Literal["heun", "ancestral"] = "heun"
    """Second-order deterministic solver, or ancestral sampling."""
    steps: int = 32
    """Noise levels."""
    height: int = 176
    """Voxels of a slice, back to front."""
    width: int = 144
    """Voxels of a slice, left to right."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type in which the prior computes; bfloat16 is about twice as fast on CPUs made for it."""
    seed: int = 0
    """Seed of all randomness."""
    device: str = "cpu"
    """cpu, cuda or mps."""


@dataclass
class CalibrateStart:
    """Find the map from an initial image's misfit to the best start level, on good scans of one contrast."""

    scans: Scans
    """Skull-stripped scans that neither the prior nor the conditional models have seen."""
    out: Path
    """The calibration: a .json file."""
    prior: str = "brain"
    """Bundled prior or a .safetensors file."""
    contrast: str | None = None
    """The scans' contrast, which the prior is told: T1w, T2w, FLAIR or unknown; without it the contrast that its model card names first."""
    conditional: tuple[str, ...] = ("unet-iqt-in", "unet-range")
    """Conditional models whose errors the map must cover."""
    degradations: tuple[str, ...] = ("iqt-in", "iqt-out", "blur-mismatch")
    """Degradations that the map must cover."""
    rule: Literal["misfit", "bank"] = "misfit"
    """misfit: the level of lowest true error; bank: the paper's memory bank, a reference run of the whole reverse process."""
    slices_per_scan: int = 2
    """Images of each scan, evenly spaced."""
    depth: int = 1
    """Neighbouring slices of each image; thick slices need at least 10."""
    samples: int = 2
    """Posterior samples averaged for each candidate level (rule misfit)."""
    steps: int | None = None
    """Noise levels of each run; 5 for the rule misfit, the paper's 1000 for the bank."""
    tau: float = 0.4
    """Exponent on the initial image's residual norm (rule bank)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type in which the prior computes; bfloat16 is about twice as fast on CPUs made for it."""
    seed: int = 0
    """Seed of all randomness."""


@dataclass(frozen=True)
class _ScanToFile(_Scan):
    out: Path
    """The operator: a .json file, for --operator of enhance."""


@dataclass(frozen=True, kw_only=True)
class CalibrateOperator(FitOptions, ReadOptions, _ScanToFile):
    """Find a scan's forward model from the scan and an initial image, without any truth."""

    initial: Path | None = None
    """Any model's enhanced volume; without it the conditional model runs."""
    fit: str = "gamma,blur,slice_thickness,noise_std"
    """What to find, separated by commas: gamma, blur, slice_thickness, noise_std. What the header says is kept."""
    known: Words = ()
    """What is known, as NAME=VALUE, and kept: gamma, blur (mm), slice_thickness (mm), noise_std (share of the intensity range)."""
    profile: str = ""
    """Parameters whose neighbouring values are tried too, with the others following, separated by commas; written as .profile.csv."""


@dataclass
class Calibrate:
    """Calibrate the start level on good scans, or the forward model of one poor scan."""

    what: Annotated[CalibrateStart, tyro.conf.subcommand("start")] | Annotated[CalibrateOperator, tyro.conf.subcommand("operator")]


@dataclass
class Evaluate:
    """Measure a reconstruction against the truth."""

    reconstruction: Annotated[Positional[Path], arg(metavar="RECONSTRUCTION")]
    """Volume to judge, on the truth's grid."""
    truth: Path
    """The good scan."""
    out: Path
    """Folder for metrics.json."""
    measurement: Path | None = None
    """The measurement, for the data misfit."""
    operator: str | None = None
    """JSON file of the measurement's operator; needed with --measurement."""
    name: str = "dynamicdps"
    """Stage name in metrics.json."""
    extension: Extension = None


@dataclass
class Benchmark:
    """Compare solvers on good scans under simulated degradations."""

    scans: Scans
    """Skull-stripped scans that no model has seen."""
    out: Path
    """Folder for the tables, figures and summary.json; what it holds of the same benchmark is continued."""
    solvers: str = "conditional,data-step,dynamicdps"
    """Solvers, or labels of --settings, separated by commas."""
    conditions: str = "unet/iqt-out,unet/blur-mismatch,unet/iqt-in"
    """Conditions MODEL/DEGRADATION, separated by commas. MODEL: a bundled conditional model (unet is unet-iqt-in, esrgan is esrgan-iqt-in),
    a .safetensors file, or identity, the interpolated measurement."""
    degradations: Path | None = None
    """JSON file of more degradations by name, {"NAME": {"type": "LowField", "gamma": 0.5}}; they override bundled ones."""
    slices_per_scan: int = 4
    """Slices of each scan, evenly spaced."""
    neighbours: bool = False
    """Take neighbouring slices around the middle instead, so that tissues and structures are solid."""
    lesions: int = 0
    """Lesions to insert into each subject's white matter, in a pass of their own."""
    slab: int = 10
    """Neighbouring slices of each scan where a degradation couples slices."""
    prior: str = "brain"
    """Bundled prior or a .safetensors file."""
    contrast: Literal["T1w", "T2w", "FLAIR"] | None = None
    """Contrast of the scans, which the prior is told, and by which tissues are found; LowField degradations leave T2w and FLAIR as they are
    (gamma 1). Without it T1w, and the prior is told what its model card names first."""
    settings: Path | None = None
    """JSON file of what differs from the solvers' defaults, {"SOLVER": {"NAME": VALUE}}, and of variants under names of their own,
    {"LABEL": {"solver": "SOLVER", "NAME": VALUE}}."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type in which the prior computes; bfloat16 is about twice as fast on CPUs made for it."""
    seed: int = 0
    """Seed of all randomness."""
    extension: Extension = None


@dataclass
class Report:
    """Make report.html again from the files of an output folder."""

    folder: Annotated[Positional[Path], arg(metavar="DIR")]
    """Output folder of enhance or demo."""


@dataclass(frozen=True)
class _Study:
    bids_dir: Annotated[Positional[Path], arg(metavar="BIDS_DIR")]
    """The dataset, or any folder with --pattern."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """Folder for the derivatives, the table and the page; what it holds already is not done again unless something has changed."""


@dataclass(frozen=True, kw_only=True)
class _Together:
    combine: bool = False
    """Enhance scans of one session that differ in acq-, run- and dir- alone together, to one image; see docs/several-scans.md."""
    keep_all: bool = False
    """With --combine: use all scans, also one that does not show what the others show."""


@dataclass(frozen=True, kw_only=True)
class Cohort(StudyOptions, _Together, _Study):
    """Enhance all T1w scans of a BIDS dataset (with --contrast T2w or FLAIR those), on this machine or a cluster, and make one table.

    Without --operator, a scan that has no .operator.json of its own beside it has its operator fitted.
    """

    subject: Words = ()
    """Subjects to take, with or without sub-; without it all."""
    session: Words = ()
    """Sessions to take."""
    acquisition: Words = ()
    """Acquisitions (acq-) to take."""
    pattern: str | None = None
    """For folders that are no BIDS dataset: which files are scans, such as '*/t1.nii.gz'."""
    cluster: str = "local"
    """local, slurm, sge, pbs, lsf, or the address of a running Dask scheduler, tcp://HOST:PORT."""
    workers: int | None = None
    """Scans at a time. Without it one for each GPU, else as many as cores and memory (4 GB each) allow; with a queue 1."""
    threads: int = 1
    """Cores for each worker. Another number may change the last digits of results."""
    memory: str = "8GB"
    """Memory of each job (slurm, sge, pbs, lsf)."""
    walltime: str = "12:00:00"
    """Time of each job."""
    queue: str | None = None
    """Queue or partition of the jobs."""
    job_directive: Words = ()
    """Further directives of the jobs, such as --job-directive=--gres=gpu:1."""
    job_prologue: Words = ()
    """Shell lines of the jobs before the worker, such as 'module load cuda'."""
    dry_run: bool = False
    """Only list what would be done."""
    show_job_script: bool = False
    """Only print the script that would be submitted for each worker."""
    settings: Settings = ()


@dataclass(frozen=True, kw_only=True)
class App(StudyOptions):
    """Open a page on this machine: drop scans, watch them being enhanced, look, save. Nothing leaves the machine.

    The options of enhance hold for every job; --quality is what the page offers first.
    """

    port: int = 0
    """Port of 127.0.0.1; 0 for a free one."""
    browser: bool = True
    """Open the page in the browser; with --no-browser its address is only printed."""
    folder: Path | None = None
    """Where jobs with their scans and results are kept; without it ~/.local/share/dynamicdps/jobs."""
    settings: Settings = ()


@dataclass(frozen=True)
class _BidsPlaces:
    bids_dir: Annotated[Positional[Path], arg(metavar="BIDS_DIR")]
    """The dataset."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """Folder for the derivatives; what it holds already is not done again unless something has changed."""
    level: Annotated[Positional[Literal["participant", "group"]], arg(metavar="participant|group")]
    """participant: enhance the scans; several such runs may work on other participants in one OUT. group: afterwards, the table, the page
    and the list of what is not enhanced."""


@dataclass(frozen=True, kw_only=True)
class BidsApp(StudyOptions, _Together, _BidsPlaces):
    """Enhance the T1w scans of a BIDS dataset, as a BIDS App. Research use only."""

    participant_label: Words = ()
    """Participants to take, with or without sub-; without it all."""
    session_label: Words = ()
    """Sessions to take, with or without ses-; without it all."""
    skip_bids_validation: bool = False
    """Do not ask for a dataset_description.json that says Name and BIDSVersion."""
    n_cpus: int | None = None
    """Cores to use; without it all."""
    omp_nthreads: int | None = None
    """Cores for each scan; without it the scans that are done at the same time share all cores equally."""
    mem_mb: int | None = None
    """Memory to stay within, in MB: fewer scans at a time, and fewer slices. Without it that of the machine."""
    settings: Settings = ()


@dataclass
class ListModels:
    """List the bundled models and those that were added."""


@dataclass
class ShowModel:
    """Print a model's card: what it is, what it was trained on, and what it fits."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """Bundled or added model, or a .safetensors file."""


@dataclass
class AddModel:
    """Check a model and copy it into your folder of models ($DYNAMICDPS_MODELS), where all commands find it by its name."""

    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """A .safetensors file with its model card, a .json file of the same name, beside it."""
    sha256: str | None = None
    """SHA-256 that the file must have, as its source says."""


@dataclass
class Models:
    """List models, show their cards, add a model by its file."""

    what: (
        Annotated[ListModels, tyro.conf.subcommand("list")]
        | Annotated[ShowModel, tyro.conf.subcommand("show")]
        | Annotated[AddModel, tyro.conf.subcommand("add")]
    ) = field(default_factory=ListModels)


@dataclass
class Rerun:
    """Repeat a run from its run.json, and say what differs: inputs, models, versions, machine, and the files that come out."""

    run_json: Annotated[Positional[Path], arg(metavar="RUN_JSON")]
    """Record that a command left behind: run.json, or NAME.run.json."""
    out: Path | None = None
    """Folder for the results; without it a new folder beside the run's, NAME-rerun."""


Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Enhance, tyro.conf.subcommand("enhance")]
    | Annotated[Segment, tyro.conf.subcommand("segment")]
    | Annotated[Audit, tyro.conf.subcommand("audit")]
    | Annotated[Simulate, tyro.conf.subcommand("simulate")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Sample, tyro.conf.subcommand("sample")]
    | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Benchmark, tyro.conf.subcommand("benchmark")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Cohort, tyro.conf.subcommand("cohort")]
    | Annotated[App, tyro.conf.subcommand("app")]
    | Annotated[Models, tyro.conf.subcommand("models")]
    | Annotated[Rerun, tyro.conf.subcommand("rerun")]
)
