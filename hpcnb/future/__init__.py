"""Futures: what they are (`future`), what they stand on (`batch`, `ledger`), and the words that make them (`verbs`)."""
