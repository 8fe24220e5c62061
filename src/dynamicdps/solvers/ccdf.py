"""CCDF (Chung, Sim, Ye, CVPR 2022): come closer, diffuse faster: a warm start at one fixed level, then projections."""

from dataclasses import dataclass

from dynamicdps.solvers.projection import ProjectionConfig, solve_projection
from dynamicdps.solvers.registry import register


@dataclass(frozen=True)
class CCDFConfig(ProjectionConfig):
    """How to run CCDF, algorithm 1 of the paper: the projection method with another start.

    Attributes:
        start_sigma: level to which every initial image is noised.
    """

    steps: int = 20
    start_sigma: float | None = 0.3


register("ccdf", config=CCDFConfig)(solve_projection)
