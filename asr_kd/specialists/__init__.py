"""Ensembles of a generalist and specialists (section 5), and one network distilled from them.

``clusters`` says which classes belong together, ``special`` is one specialist: its classes, its examples, its dustbin;
``combine`` makes one distribution of what the generalist and the specialists say.  They see inputs, labels and
posteriors, whatever these are of.
"""
