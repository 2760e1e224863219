"""Named studies: a YAML file says which networks to train, what to measure and how to show it; the stages do the work.

``plan`` reads the file, ``steps`` runs its stages, ``views`` turns what was measured into tables and figures.
"""
