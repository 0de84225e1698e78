"""The attacks of ART that are not offered, each with the reason why."""

from __future__ import annotations

_SPEECH = "attacks speech recognition"
_DETECTION = "attacks object detection"
_TENSORFLOW = "needs TensorFlow"
_PATCH = "chooses art.AdversarialPatchPyTorch for PyTorch models"

REFUSED: dict[str, str] = {
    "AdversarialPatch": _PATCH,
    "AdversarialPatchTensorFlowV2": _TENSORFLOW,
    "AdversarialTexturePyTorch": "attacks object tracking in videos",
    "CarliniWagnerASR": _SPEECH,
    "CompositeAdversarialAttackPyTorch": "needs kornia, which ART does not install",
    "DPatch": _DETECTION,
    "DecisionTreeAttack": "attacks decision trees",
    "FeatureAdversariesNumpy": "takes the gradient by finite differences, one pass of the batch per pixel value in "
    "every step; art.FeatureAdversariesPyTorch is the same attack with gradients",
    "FeatureAdversariesTensorFlowV2": _TENSORFLOW,
    "FrameSaliencyAttack": "attacks videos, frame by frame, with another attack inside",
    "GRAPHITEBlackbox": "needs kornia and OpenCV, which ART does not install",
    "GRAPHITEWhiteboxPyTorch": "needs kornia and OpenCV, which ART does not install",
    "GeoDA": "calls numpy.mat, which NumPy 2 does not have, and writes a file into the working folder",
    "HighConfidenceLowUncertainty": "attacks Gaussian processes",
    "ImperceptibleASR": _SPEECH,
    "ImperceptibleASRPyTorch": _SPEECH,
    "LaserAttack": "calls numpy.asfarray, which NumPy 2 does not have",
    "LowProFool": "attacks tables: it weighs columns by their correlation with the label",
    "MalwareGDTensorFlow": "attacks malware detection, and needs TensorFlow",
    "OverTheAirFlickeringPyTorch": "attacks videos",
    "OverloadPyTorch": _DETECTION,
    "ProjectedGradientDescentPyTorch": "is what art.ProjectedGradientDescent runs for PyTorch models",
    "ProjectedGradientDescentTensorFlowV2": _TENSORFLOW,
    "RobustDPatch": _DETECTION,
    "SNAL": _DETECTION,
    "ThresholdAttack": "evolves every pixel value at once: CMA-ES takes a matrix of (3 H W) x (3 H W), and "
    "differential evolution 3 H W passes per image and generation",
}
