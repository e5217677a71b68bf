"""Story of one job: its history as text for a terminal and as a picture. Standard library only."""

from harness.explain.drawing import svg
from harness.explain.story import Part, Story, story
from harness.explain.telling import text

__all__ = ["Part", "Story", "story", "svg", "text"]
