"""When an invoice is due."""

from datetime import date, timedelta


def due(issued: date, days: int = 14) -> date:
    return issued + timedelta(days=days)
