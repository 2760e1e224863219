"""Training: shuffled batches of frames, one update, the loop, and networks that are split over devices."""
