"""everloop: one open platform that takes any model to production and keeps it good there.

`import everloop as el` gives the client: `el.connect()`, `el.run()`, `el.step`, `el.pipeline`. The server is everything else.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The client's public names, imported at first use, so that `import everloop` costs nothing."""
    import everloop.client as client

    try:
        return getattr(client, name)
    except AttributeError:
        raise AttributeError(f"everloop has no {name!r}; it has: {', '.join(client.__all__)}") from None
