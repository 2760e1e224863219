"""Features of recordings and of their copies at other speeds or with babble; normalisation."""
