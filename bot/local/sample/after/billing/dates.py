"""When an invoice is due."""

from datetime import date, timedelta


def due(issued: date, days: int = 14) -> date:
    """Return the day an invoice must be paid, at the latest."""
    return issued + timedelta(days=days)


def overdue(issued: date, today: date, days: int = 14) -> bool:
    """Tell whether an invoice was not paid in time."""
    return today > due(issued, days)
