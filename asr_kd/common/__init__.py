"""What all rooms share: command lines, files, processes, progress, errors."""
