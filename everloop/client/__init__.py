"""What users' code imports: `import everloop as el`, then `el.connect()` and `el.run()`. Talks HTTP only."""

from everloop.client.connect import Client, connect
from everloop.client.runs import run

__all__ = ["Client", "connect", "run"]
