"""Tests of ``flask_aibridge.demo``: one file per module."""
