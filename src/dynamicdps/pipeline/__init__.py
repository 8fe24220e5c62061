"""The product: a scan in, an enhanced scan with its maps, numbers and page out, or its brain and structures; the audit of an image."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dynamicdps.pipeline.options import AuditOptions, EnhanceOptions, SegmentOptions, StudyOptions

if TYPE_CHECKING:
    from dynamicdps.pipeline.audited import Audit
    from dynamicdps.pipeline.auditing import audit
    from dynamicdps.pipeline.demonstration import demo
    from dynamicdps.pipeline.enhanced import Enhanced
    from dynamicdps.pipeline.enhancement import enhance
    from dynamicdps.pipeline.progress import Progress
    from dynamicdps.pipeline.segmentation import segment
    from dynamicdps.pipeline.segmented import Segmented

# Imported on first use: the command line's help, which shows the options, must not wait for torch.
_HOMES = {
    "Audit": "audited",
    "Enhanced": "enhanced",
    "Progress": "progress",
    "Segmented": "segmented",
    "audit": "auditing",
    "demo": "demonstration",
    "enhance": "enhancement",
    "segment": "segmentation",
}

__all__ = [
    "Audit",
    "AuditOptions",
    "EnhanceOptions",
    "Enhanced",
    "Progress",
    "SegmentOptions",
    "Segmented",
    "StudyOptions",
    "audit",
    "demo",
    "enhance",
    "segment",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"dynamicdps.pipeline.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'dynamicdps.pipeline' has no attribute {name!r}")
