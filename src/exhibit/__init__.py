"""Exhibit: one trained model through ten deployment options, each asked the same questions by a run that can fail."""
