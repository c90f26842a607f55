"""The symmetric head and the losses of SymNets (Zhang et al., CVPR 2019) for PyTorch."""

from symloss import diagnostics, functional, scores
from symloss.estimator import SymNetClassifier
from symloss.heads import RoutedLogits, SymmetricHead, SymmetricHead2d, route
from symloss.objective import SymNetLosses, SymNetV2Losses, symnet_losses, symnet_v2_losses
from symloss.prior import EstimatedPrior, estimate_prior
from symloss.schedules import AnnealedLR, progressive_lambda
from symloss.training import TwoOptimizerStep, check_wiring, parameter_groups

__version__ = "0.3.0"

__all__ = [
    "AnnealedLR",
    "EstimatedPrior",
    "RoutedLogits",
    "SymNetClassifier",
    "SymNetLosses",
    "SymNetV2Losses",
    "SymmetricHead",
    "SymmetricHead2d",
    "TwoOptimizerStep",
    "check_wiring",
    "diagnostics",
    "estimate_prior",
    "functional",
    "parameter_groups",
    "progressive_lambda",
    "route",
    "scores",
    "symnet_losses",
    "symnet_v2_losses",
]
