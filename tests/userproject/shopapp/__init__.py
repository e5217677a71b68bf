"""A user's project: written for RQ, and never heard of what explores it."""
