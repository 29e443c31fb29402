"""Retrieval, measured: quality on Cranfield (nDCG@10), and speed, memory and re-indexing of our store beside LanceDB.

    python benchmarks/retrieval.py quality [FOLDER]        FOLDER holds cran.all.1400, cran.qry and cranqrel
    python benchmarks/retrieval.py speed STORE N DIMS      STORE: arrays or lancedb; one process a measurement; prints one line of JSON

Speed: N chunks of 60 words (20,000 words, Zipf) with clustered vectors (2,000 centres), 20 chunks a document, 200 queries of 3 words each with a
vector near the same clusters; the same data for both stores. Recall is against exact search. Wall p50 and CPU are both given: on a busy
machine trust the second. LanceDB is set up as its documentation advises (IVF-PQ with refinement, full-text index, rank fusion).
"""

from __future__ import annotations

import json
import re
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

K = 10
QUERIES = 200


def rss_mb() -> int:
    """Resident memory now, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) // 1024
    return 0


def timed(ask: Callable[[int], list[str]], n: int = QUERIES) -> tuple[dict[str, float], list[list[str]]]:
    """({min, p50 and p99 of wall time, cpu: milliseconds a query}, answers), after one warm-up query."""
    ask(0)
    walls, found = [], []
    cpu = time.process_time()
    for i in range(n):
        start = time.perf_counter()
        found.append(ask(i))
        walls.append((time.perf_counter() - start) * 1e3)
    cpu = (time.process_time() - cpu) * 1e3 / n
    walls.sort()
    return {"min": round(walls[0], 2), "p50": round(statistics.median(walls), 2), "p99": round(walls[int(n * 0.99)], 2), "cpu": round(cpu, 2)}, found


class Made:
    """The synthetic corpus: vectors, texts, queries and their exact nearest chunks."""

    def __init__(self, n: int, dims: int) -> None:
        import numpy as np

        rng = np.random.default_rng(0)
        centres = rng.normal(size=(2000, dims)).astype(np.float32)

        def near(count: int, seed: int) -> Any:
            own = np.random.default_rng(seed)
            rows = centres[own.integers(0, 2000, count)] + 0.9 * own.normal(size=(count, dims)).astype(np.float32)
            return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

        self.vectors, self.queries = near(n, 1), near(QUERIES, 2)
        share = 1 / np.arange(1, 20_001) ** 1.05
        drawn = rng.choice(20_000, size=(n, 60), p=share / share.sum())
        words = np.array([f"w{i}" for i in range(20_000)])
        self.texts = [" ".join(words[row]) for row in drawn]
        self.asked = [" ".join(words[rng.choice(drawn[i], 3, replace=False)]) for i in rng.integers(0, n, QUERIES)]
        self.truth = [{str(j) for j in np.argpartition(-(self.vectors @ q), K)[:K]} for q in self.queries]
        self.n, self.dims = n, dims

    def recall(self, found: list[list[str]]) -> float:
        """Mean share of the exact nearest ten that was found."""
        return round(sum(len(set(f) & t) for f, t in zip(found, self.truth, strict=True)) / (K * len(found)), 4)


def speed_arrays(made: Made) -> dict[str, Any]:
    """Our store: built, stored, opened anew, searched, one document of 20 chunks replaced."""
    from everloop.store.vectors import open_index, stores

    asked = [f"{text} q{i}" for i, text in enumerate(made.asked)]  # a word that no chunk has tells equal questions apart
    ahead = dict(zip(asked, made.queries, strict=True))
    blank = {"path": "", "title": "", "heading": "", "position": 0, "page": None}
    chunk = lambda i: {"chunk": str(i), "document": str(i // 20), "text": f"{made.texts[i]} n{i}", **blank}

    def embed(texts: list[str]) -> Any:
        import numpy as np

        if len(texts) == 1 and texts[0] in ahead:
            return ahead[texts[0]][None, :]
        return made.vectors if len(texts) == made.n else np.stack([made.vectors[0]] * len(texts))

    embedder: Any = SimpleNamespace(embed=embed, asked=lambda text: embed([text])[0])
    folder: dict[str, bytes] = {}

    def put(data: bytes) -> dict[str, Any]:
        folder[str(len(folder))] = data
        return {"digest": str(len(folder) - 1), "size": len(data)}

    start = time.perf_counter()
    built = stores.get("arrays").create([chunk(i) for i in range(made.n)], embedder)
    manifest = built.save(put)
    out: dict[str, Any] = {"build_s": round(time.perf_counter() - start, 2), "disk_mb": round(sum(map(len, folder.values())) / 1e6, 1)}
    del built
    before = rss_mb()
    start = time.perf_counter()
    index = open_index(manifest, folder.__getitem__, embedder)
    out["open_s"] = round(time.perf_counter() - start, 3)
    out["open_rss_mb"] = rss_mb() - before
    for mode in ("vector", "text", "hybrid"):
        out[mode], found = timed(lambda i, m=mode: [p["chunk"] for p in index.search(asked[i], K, m)])
        if mode == "vector":
            out["recall"] = made.recall(found)
    times = []
    for d in range(10):
        start = time.perf_counter()
        index = index.replace([chunk(d * 20 + j) for j in range(20)])
        times.append((time.perf_counter() - start) * 1e3)
    out["replace_document_ms"] = round(statistics.median(times), 2)
    out["hybrid_after"], _ = timed(lambda i: [p["chunk"] for p in index.search(asked[i], K)])
    return out


def speed_lancedb(made: Made) -> dict[str, Any]:
    """LanceDB: the same steps with its own indexes and its rank fusion."""
    start, before = time.perf_counter(), rss_mb()
    import lancedb
    import pyarrow as pa
    from lancedb.rerankers import RRFReranker

    out: dict[str, Any] = {"import_s": round(time.perf_counter() - start, 2), "import_rss_mb": rss_mb() - before, "version": lancedb.__version__}
    root = tempfile.mkdtemp(prefix="everloop-bench-")

    def rows(low: int, high: int) -> Any:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(made.vectors[low:high].reshape(-1)), made.dims)
        ids = [str(i) for i in range(low, high)]
        return pa.table({"id": ids, "document": [str(i // 20) for i in range(low, high)], "text": made.texts[low:high], "vector": vectors})

    try:
        start = time.perf_counter()
        table = lancedb.connect(root).create_table("c", rows(0, made.n))
        table.create_fts_index("text", replace=True, with_position=False)
        if made.n >= 10_000:
            table.create_index(metric="cosine", num_partitions=316, num_sub_vectors=made.dims // 8)
        table.create_scalar_index("document")
        out["build_s"] = round(time.perf_counter() - start, 2)
        out["disk_mb"] = round(sum(f.stat().st_size for f in Path(root).rglob("*") if f.is_file()) / 1e6, 1)
        before, start = rss_mb(), time.perf_counter()
        table = lancedb.connect(root).open_table("c")
        out["open_s"] = round(time.perf_counter() - start, 3)

        def by_vector(i: int) -> list[str]:
            asked = table.search(made.queries[i]).metric("cosine")
            asked = asked.nprobes(20).refine_factor(5) if made.n >= 10_000 else asked
            return asked.limit(K).select(["id", "_distance"]).to_arrow()["id"].to_pylist()

        fuse = RRFReranker()
        both = lambda i: (
            table.search(query_type="hybrid")
            .vector(made.queries[i])
            .text(made.asked[i])
            .metric("cosine")
            .rerank(fuse)
            .limit(K)
            .to_arrow()["id"]
            .to_pylist()
        )
        out["vector"], found = timed(by_vector)
        out["recall"] = made.recall(found)
        out["text"], _ = timed(lambda i: table.search(made.asked[i], query_type="fts").limit(K).select(["id", "_score"]).to_arrow()["id"].to_pylist())
        out["hybrid"], _ = timed(both)
        out["open_rss_mb"] = rss_mb() - before
        times = []
        for d in range(10):
            start = time.perf_counter()
            table.delete(f"document = '{d}'")
            table.add(rows(d * 20, d * 20 + 20))
            times.append((time.perf_counter() - start) * 1e3)
        out["replace_document_ms"] = round(statistics.median(times), 2)
        out["hybrid_after"], _ = timed(both)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return out


def cranfield(folder: Path) -> tuple[list[dict[str, Any]], list[str], list[set[str]]]:
    """(passages, questions, relevant documents by question); documents judged -1 count as not relevant."""
    chunks = []
    for part in (folder / "cran.all.1400").read_text().split("\n.I "):
        number, rest = part.removeprefix(".I ").split("\n", 1)
        title = re.search(r"^\.T\n(.*?)\n?\.A$", rest, re.S | re.M)
        entry = {"chunk": number, "document": number, "path": number, "title": title.group(1) if title else "", "heading": "", "position": 0}
        chunks.append({**entry, "page": None, "text": rest.split("\n.W", 1)[1].strip() or "-"})
    questions = [part.split("\n.W\n", 1)[1].strip() for part in (folder / "cran.qry").read_text().removeprefix(".I ").split("\n.I ")]
    relevant: list[set[str]] = [set() for _ in questions]
    for line in (folder / "cranqrel").read_text().splitlines():
        query, document, code = line.split()
        if int(code) > 0:
            relevant[int(query) - 1].add(document)
    return chunks, questions, relevant


def ndcg(found: list[str], relevant: set[str]) -> float:
    """nDCG@10 with gain 1 for a relevant document."""
    from math import log2

    gain = sum(1 / log2(i + 2) for i, d in enumerate(found[:K]) if d in relevant)
    return gain / sum(1 / log2(i + 2) for i in range(min(K, len(relevant))))


def quality(folder: Path) -> dict[str, Any]:
    """nDCG@10 of each way of searching, by passages of whole abstracts and of 800 characters, with a bootstrap 95 % interval for hybrid."""
    import numpy as np

    from everloop.assets.chunks import chunk
    from everloop.assets.text import Document
    from everloop.engines.lsa import Lsa
    from everloop.store.vectors import indexed, stores

    whole, questions, relevant = cranfield(folder)
    cut = [c | {"title": w["title"]} for w in whole for c in chunk(Document(w["document"], "text", w["title"], w["text"]), 800, 120)]
    out: dict[str, Any] = {}
    for name, chunks in (("whole", whole), ("chunks of 800", cut)):
        embedder = Lsa.fit([indexed(c) for c in chunks], {"dims": 128})
        index = stores.get("arrays").create(chunks, embedder)
        ranked: dict[str, list[list[str]]] = {}
        for mode in ("text", "vector", "hybrid"):
            ranked[mode] = [list(dict.fromkeys(p["document"] for p in index.search(q, 60, mode))) for q in questions]
        ranked["rank fusion"] = [fused(a, b) for a, b in zip(ranked["text"], ranked["vector"], strict=True)]
        scores = {mode: [ndcg(f, r) for f, r in zip(found, relevant, strict=True) if r] for mode, found in ranked.items()}
        out[name] = {mode: round(float(np.mean(s)), 4) for mode, s in scores.items()} | {"passages": index.count}
        draws = np.random.default_rng(0).choice(scores["hybrid"], size=(2000, len(scores["hybrid"]))).mean(axis=1)
        out[name]["hybrid 95 %"] = [round(float(x), 4) for x in np.quantile(draws, [0.025, 0.975])]
        out[name]["search_ms"] = timed(lambda i, ix=index: [p["chunk"] for p in ix.search(questions[i], K)])[0]
    return {"queries": len(scores["hybrid"]), **out}


def fused(*rankings: list[str], constant: int = 60) -> list[str]:
    """Reciprocal rank fusion, for comparison."""
    total: dict[str, float] = {}
    for ranking in rankings:
        for i, document in enumerate(ranking):
            total[document] = total.get(document, 0.0) + 1 / (constant + i + 1)
    return sorted(total, key=lambda d: (-total[d], d))


def main(words: list[str]) -> None:
    """Run what the command line asks for and print it as JSON."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    if words[:1] == ["quality"]:
        folder = Path(words[1]) if len(words) > 1 else Path(__file__).parents[2] / "shared/data/retrieval/cranfield"
        print(json.dumps(quality(folder)))
    elif words[:1] == ["speed"] and len(words) == 4:
        made = Made(int(words[2]), int(words[3]))
        found = {"arrays": speed_arrays, "lancedb": speed_lancedb}[words[1]](made)
        found["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps({"store": words[1], "n": made.n, "dims": made.dims, **found}))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
