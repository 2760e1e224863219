"""Training: batches of shuffled frames, one update, the loop, one network over several devices."""
