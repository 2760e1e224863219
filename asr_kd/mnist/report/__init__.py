"""Reports the MNIST study."""
