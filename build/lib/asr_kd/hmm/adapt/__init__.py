"""GMMs adapted to the speakers of recognised speech."""
