"""The behaviour suite for queues, and what it needs of each queue."""
