"""Correlations that two parties make by themselves."""
