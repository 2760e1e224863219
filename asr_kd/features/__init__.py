"""Audio to log-mel features, their normalisation, and copies at other speeds or with noise."""
