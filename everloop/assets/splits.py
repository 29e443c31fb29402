"""Named splits of a dataset, recorded with it: the same version, names and seed always give the same rows.

    {"parts": {"train": 0.8, "test": 0.2}, "seed": 1, "stratify": "bad" | "group": "customer" | "time": "when"}

`stratify` keeps each class's share, `group` keeps rows of one group together, `time` puts the oldest rows into the first part. Which row is where is
an object, a Parquet file with one column `split`, in the order of the rows (or of the files in a list).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from everloop.assets.table_roles import need_column
from everloop.core.errors import BadInput
from everloop.core.limits import SPLIT_PARTS

KEYS = {"parts", "seed", "stratify", "group", "time"}


def checked(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The specification with shares that sum to 1; BadInput says what cannot be read."""
    parts = spec.get("parts")
    if not isinstance(parts, Mapping) or not parts or set(spec) - KEYS:
        raise BadInput("The splits cannot be read.", 'Write them as {"parts": {"train": 0.8, "test": 0.2}, "seed": 1, "stratify": "bad"}.')
    if len(parts) > SPLIT_PARTS or not all(isinstance(n, str) and n and "#" not in n and "@" not in n for n in parts):
        raise BadInput(f"Splits have names without # and @, and there are at most {SPLIT_PARTS}.")
    if not all(isinstance(s, int | float) and s > 0 for s in parts.values()):
        raise BadInput(f"The shares of the splits are {dict(parts)}; each must be a number over 0.")
    how = [k for k in ("stratify", "group", "time") if spec.get(k)]
    if len(how) > 1:
        raise BadInput(f"Rows are split by {' and '.join(how)}.", "Choose one of stratify, group and time.")
    total = sum(parts.values())
    seed = spec.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise BadInput(f"The seed {seed!r} is not a whole number from 0.")
    return {"parts": {n: s / total for n, s in parts.items()}, "seed": seed, **{k: str(spec[k]) for k in how}}


def assign(table: Any, spec: Mapping[str, Any]) -> Any:
    """For each row of the table the number of its split (its place among `parts`), as a numpy array. BadInput for a column that is not there, or a part that gets no row."""
    import numpy as np

    names, shares = list(spec["parts"]), list(spec["parts"].values())
    rng, n = np.random.default_rng(spec["seed"]), table.num_rows
    codes = np.zeros(n, dtype=np.int8)
    if "stratify" in spec:
        classes = _numbers(table, spec["stratify"])
        for value in np.unique(classes):
            rows = np.flatnonzero(classes == value)
            codes[rng.permutation(rows)] = _cut(len(rows), shares)
    elif "group" in spec:
        groups = _numbers(table, spec["group"])
        order = rng.permutation(np.unique(groups))
        sizes = np.bincount(groups)[order]
        middle = (np.cumsum(sizes) - sizes / 2) / n
        of_group = np.zeros(len(order), dtype=np.int64)
        of_group[order] = np.searchsorted(np.cumsum(shares)[:-1], middle, side="right")
        codes = of_group[groups]
    elif "time" in spec:
        import pyarrow.compute as pc

        at = pc.rank(table.column(need_column(table, spec["time"], "The time column")), tiebreaker="min").to_numpy()  # equal times stay together
        codes = np.searchsorted(np.cumsum(shares)[:-1], (at - 1) / n, side="right")
    else:
        codes[rng.permutation(n)] = _cut(n, shares)
    empty = [name for i, name in enumerate(names) if not (codes == i).any()]
    if empty:
        raise BadInput(f"The split {empty[0]!r} would have no row of {n:,}.", "Give it a larger share, or split by something else.")
    return codes


def record(table: Any, spec: Mapping[str, Any], put: Any) -> dict[str, Any]:
    """What a manifest keeps of splits: {"names": {name: rows}, "spec", "digest", "size"}; `put` stores which row is where."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    full = checked(spec)
    codes = assign(table, full)
    file = io.BytesIO()
    named = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), pa.array(list(full["parts"])))
    pq.write_table(pa.table({"split": named}), file, compression="zstd", store_schema=False)
    digest, size = put(file.getvalue())
    return {"names": {n: int((codes == i).sum()) for i, n in enumerate(full["parts"])}, "spec": full, "digest": digest, "size": size}


def mask(data: bytes, part: str) -> Any:
    """Which rows a split has, as an Arrow boolean array, from the object that says which row is where."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    return pc.equal(pq.read_table(io.BytesIO(data)).column("split"), part)


def need_part(manifest: Mapping[str, Any], ref: str, part: str) -> str:
    """The split's name, if the dataset has it; NotFound-like BadInput listing those there are."""
    names = (manifest.get("splits") or {}).get("names") or {}
    if part not in names:
        raise BadInput(f"{ref} has no split {part!r}.", f"It has: {', '.join(names) or 'none'}.")
    return part


def _cut(n: int, shares: Sequence[float]) -> Any:
    """n codes in order, each share's number of them by largest remainder."""
    import numpy as np

    exact = np.array(shares) * n
    counts = np.floor(exact).astype(np.int64)
    for i in np.argsort(-(exact - counts), kind="stable")[: n - counts.sum()]:
        counts[i] += 1
    return np.repeat(np.arange(len(shares)), counts)


def _numbers(table: Any, column: str) -> Any:
    """A column's values as numbers from 0, equal values the same, missing ones too."""
    import pyarrow.compute as pc

    values = table.column(need_column(table, column, "The column to split by"))
    return pc.dictionary_encode(values, null_encoding="encode").combine_chunks().indices.to_numpy()
