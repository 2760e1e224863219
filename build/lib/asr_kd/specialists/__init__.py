"""Ensembles of a generalist and specialists (section 5), and their distillation into one network.

``assign`` clusters the classes, ``train`` trains one specialist per cluster, and ``combine`` merges the posteriors of
the generalist and the active specialists into one distribution.  All of it works on inputs, labels and posteriors,
whether they belong to images or to frames of speech.
"""
