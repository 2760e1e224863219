"""Shared by all rooms: command lines, files, processes, progress bars and errors."""
