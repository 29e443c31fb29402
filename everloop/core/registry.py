"""One file to add one thing: a registry finds what the files of a folder register, and what third parties offer.

A room makes `checks = Registry("check", "everloop.checks")`; each file in that folder says `@checks.add("psi")`. On the first
look-up all files of the folder are imported, then the entry points of group `everloop` whose name starts with `check.`
(`check.mine = "my_package.checks:Mine"`). Files must stay light to import: heavy libraries are imported where used.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from everloop.core.errors import NotFound

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to things of one kind, filled by a folder's files and by entry points."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._items: dict[str, T] = {}
        self._loaded = False

    def add(self, name: str) -> Callable[[Any], Any]:
        """Decorator: register the class or function under `name`. A name is taken once."""

        def register(item: Any) -> Any:
            if self._items.get(name, item) is not item and getattr(self._items[name], "__qualname__", "") != getattr(item, "__qualname__", None):
                raise ValueError(f"two {self.kind}s are called {name!r}")
            self._items[name] = item
            return item

        return register

    def get(self, name: str) -> T:
        """What is registered under `name`; NotFound lists the names there are."""
        self._load()
        try:
            return self._items[name]
        except KeyError:
            raise NotFound(f"There is no {self.kind} called {name!r}.", f"There are: {', '.join(sorted(self._items))}.") from None

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._load()
        return sorted(self._items)

    def items(self) -> Iterator[tuple[str, T]]:
        """All (name, thing) pairs, sorted by name."""
        self._load()
        return iter(sorted(self._items.items()))

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        from importlib.metadata import entry_points

        for entry in entry_points(group="everloop"):
            kind, _, name = entry.name.partition(".")
            if kind == self.kind and name:
                self._items.setdefault(name, entry.load())
