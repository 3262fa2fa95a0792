"""Invoices of a customer."""

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True)
class Invoice:
    number: int
    customer: str
    cents: int


def open_invoices(db: sqlite3.Connection) -> list[Invoice]:
    rows = db.execute("SELECT number, customer, cents FROM invoices WHERE paid = 0 ORDER BY number")
    return [Invoice(*row) for row in rows]


def invoices_of(db: sqlite3.Connection, customer: str) -> list[Invoice]:
    rows = db.execute("SELECT number, customer, cents FROM invoices WHERE customer = ?", (customer,))
    return [Invoice(*row) for row in rows]


def total_cents(invoices: list[Invoice]) -> int:
    return sum(invoice.cents for invoice in invoices)
