"""Lhotse cuts of corpora: trees, Kaldi folders, manifests, tables, downloads, and an embedded synthetic corpus."""
