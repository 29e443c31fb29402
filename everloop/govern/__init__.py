"""Lineage questions, approvals, cards, export."""
