"""Decoding: k2's search over HCLG, by default in worker processes under the interpreter that has k2.

- ``worker``: the search and its process; knows only the standard library, NumPy, torch and k2.
- ``client``: finds the interpreter, prepares the graph, starts workers and outlives their deaths.
- ``acoustics``: frame scores from a network, an ensemble or the GMM.
- ``pipeline``: a split's utterances through scoring and search, in shards that a second run resumes.
- ``tuning``: acoustic scale and word insertion penalty with the fewest errors on dev.
- ``output``: words, hypotheses, lattices.
"""
