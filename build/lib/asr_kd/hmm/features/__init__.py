"""The features of GMMs, adapted to speakers, for networks."""
