"""The tests mirror the package: one folder per part, one file per module."""
