"""The parameters of a scanner, found from its scan: contrast, blur, slices, noise and shading."""

from dynamicdps.calibration.fit import OperatorFit, fit_operator

__all__ = ["OperatorFit", "fit_operator"]
