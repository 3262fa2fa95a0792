"""GitLab as the bot sees it: `GitLabForge` keeps `bot.forge.Forge`, `GitLabAdmin` is for `connect` and `doctor`.

`door` is the one way out: who is trusted, what is tried again, what went wrong. `api` makes typed calls of it with
python-gitlab, `answers` reads what comes back, `changes` makes files of diffs, `publish` posts a review.
"""

from bot.gitlab.admin import GitLabAdmin
from bot.gitlab.forge import GitLabForge

__all__ = ["GitLabAdmin", "GitLabForge"]
