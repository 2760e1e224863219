"""Corpora: any tree in LibriSpeech layout, downloads, and an embedded synthetic one, as Lhotse manifests."""
