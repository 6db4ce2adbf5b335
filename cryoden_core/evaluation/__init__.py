"""Judging results: volumes, picking, realism of simulations, hallucination, what was put into the missing wedge."""
