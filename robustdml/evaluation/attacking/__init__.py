"""Running attacks: on queries, in stages, and on the gallery; budgets are measured and enforced here."""
