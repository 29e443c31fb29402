"""What users' code imports. Talks HTTP only."""

__all__: list[str] = []
