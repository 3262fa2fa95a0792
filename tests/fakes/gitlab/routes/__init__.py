"""What the API answers. Importing this declares all routes."""

from tests.fakes.gitlab.routes import hooks, merges, notes, people, projects

__all__ = ["hooks", "merges", "notes", "people", "projects"]
