"""The demonstration jobs: orders that are paid, a report that is added up, a campaign that is mailed."""
