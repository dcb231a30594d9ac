"""Tests of the whole, with the programs that people use it with."""
