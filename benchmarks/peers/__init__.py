"""The same work through public packages: one file for each, one function per bench."""
