"""Lhotse manifests of corpora: trees in LibriSpeech layout, downloads, and an embedded synthetic corpus."""
