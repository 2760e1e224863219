"""Features of recordings and of their copies at other speeds, with babble or degraded; normalisation."""
