"""Tests of ``flask_aibridge.license``: one file per module."""
