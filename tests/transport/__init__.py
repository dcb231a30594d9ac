"""Tests of the in-process transport and of its faces."""
