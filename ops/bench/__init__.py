"""Scenarios that measure, and results that are appended, never replaced."""
