"""What the bot remembers, in SQLite or PostgreSQL: deliveries, the desk, reviews, findings, notes, votes, adapters.

`Store` is the one door. Each of its methods is one short transaction and may be called from any thread; each raises
`StoreError` when the database cannot do it. What it gives back are frozen values.
"""

from bot.store.adapters import Adapters
from bot.store.admin import Admin
from bot.store.database import StoreError
from bot.store.desk import Desk
from bot.store.reviews import Reviews
from bot.store.values import (
    AdapterState,
    Arrival,
    Beside,
    Counts,
    Delivery,
    Group,
    Project,
    ReviewState,
    StoredAdapter,
    StoredFinding,
    StoredReview,
    Voted,
)

__all__ = [
    "AdapterState",
    "Arrival",
    "Beside",
    "Counts",
    "Delivery",
    "Group",
    "Project",
    "ReviewState",
    "Store",
    "StoreError",
    "StoredAdapter",
    "StoredFinding",
    "StoredReview",
    "Voted",
]


class Store(Desk, Reviews, Adapters, Admin):
    """The database and every query on it.

    Args:
        url: `sqlite:////absolute/path/apprentice.sqlite` or `postgresql://user:password@host/name`.

    Raises:
        StoreError: the URL cannot be understood. Nothing is connected before the first query.
    """
