"""Decoding: k2's search over HCLG, in processes under the interpreter that has k2, or by a kernel in this one.

- ``kernel``: the same search by ``beam_search.cpp``, for ``--search kernel``.
- ``worker``: the search and its process; needs only the standard library, NumPy, torch and k2.
- ``prepare``: finds the interpreter that has k2, and converts the graph, which ``openfst`` reads, for it.
- ``client``: searches in this process, or starts workers, sends them scores, and replaces those that die.
- ``recogniser``: the models, the graph and the options that the flags describe.
- ``acoustics``: frame scores of a network, an ensemble or the GMM.
- ``pipeline``: scoring and search of a set of utterances, in shards that a second run resumes; ``cluster``: the same
  on a Dask cluster.
- ``second_pass``: rescoring with another language model (``rescoring``), minimum Bayes risk and confidences (``mbr``),
  and times of words (``times``), on the lattices of the search (``lattices``).
- ``tuning``: acoustic scale and word insertion penalty with the fewest errors on dev.
- ``splits`` and ``files``: what the stage does with prepared splits, and with audio files; ``calibration`` and
  ``confidences``: confidences as probabilities.
- ``output``: words, tables of hypotheses, lattices as text, tuned values.
"""
