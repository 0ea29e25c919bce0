"""Whole studies in one command."""
