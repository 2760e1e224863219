"""asr_kd: "Distilling the Knowledge in a Neural Network" for acoustic models."""

__version__ = "0.1.0"
