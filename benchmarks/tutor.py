"""The demo's tutor on questions that nobody tuned it on: 50 by a reader of the docs who had not seen the demo's own.

    everloop demo tutor --port 7671 --home ~/tutor
    python -m benchmarks.tutor --url http://127.0.0.1:7671

The questions (tutor_heldout.jsonl, fixed before the first run) become a suite; a gate on the alias `heldout` has the rules of the gate on
`champion`. Version 1 holds that alias without having passed, so that the others are compared with it case by case. Printed: each figure with its
two-sided 90 % interval (what a one-sided rule at 95 % looks at), beside the figure on the demo's own questions, and what each question's words
have to do with the documents that answer it.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import everloop as el

QUESTIONS = Path(__file__).with_name("tutor_heldout.jsonl")
FIGURES = ("hit_rate@4", "answer_relevance", "refusal_accuracy", "over_refusal_rate", "harmful_answer_rate")
COMMON = re.compile("about|after|also|been|being|does|from|have|into|many|much|should|than|that|their|them|they|this|what|when|where|which|will|with")


def words(text: str) -> set[str]:
    """Words of four letters or more, without common ones and without endings."""
    return {re.sub(r"(ing|ed|es|s)$", "", w) for w in re.findall(r"[a-z]{4,}", text.lower()) if not COMMON.fullmatch(w)}


def overlap(client: el.Client, suite: str, documents: str) -> float:
    """Mean share of an answerable question's words that the documents expected for it hold: 1 means that the question quotes them."""
    texts = {d["path"]: words(d["title"] + " " + d["text"]) for d in client.data.documents(documents)}
    shares = []
    for case in client.suites.get(suite)["cases"]:
        asked = words(case["question"])
        held = [w for path, w in texts.items() if any(path == name or path.endswith("/" + name) for name in case.get("expected_sources") or [])]
        if asked and held:
            shares.append(max(len(asked & w) / len(asked) for w in held))
    return sum(shares) / len(shares)


def figures(decision: dict[str, Any] | None) -> dict[str, str]:
    """What a decision found: requirement to figure (of a comparison the difference, with its sign), interval and n."""
    found = {}
    for score in decision["scores"] if decision else []:
        if score["value"] is not None and score["interval"]:
            sign = "+" if "compared" in score["details"] else ""
            found[score["name"]] = f"{score['value']:{sign}.3f} [{score['interval'][0]:.3f}, {score['interval'][1]:.3f}], n = {score['n']}"
    return found


def prepare(client: el.Client, name: str, alias: str, baseline: int) -> None:
    """Suite, alias and gate. The alias goes to the baseline while no gate protects it."""
    gates = {g["alias"]: g["spec"] for g in client.gates.list() if (g["kind"], g["name"]) == ("release", name)}
    suite = client.suites.put(alias, QUESTIONS)
    if alias not in gates:
        client.assets.move_alias(f"release:{name}@{baseline}", alias, why="what the others are compared with on held-out questions")
    elif client.assets.get(f"release:{name}@{alias}")["version"] != baseline:
        raise SystemExit(f"{alias} has a gate already and does not point to version {baseline}: choose another --alias")
    rules = [*gates["champion"]["requirements"], *(f"{figure} > champion" for figure in FIGURES[:3])]
    client.gates.declare("release", name, alias, suite=suite["ref"], requirements=list(dict.fromkeys(rules)))


def main() -> None:
    """Evaluate the versions and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--url", default="http://127.0.0.1:7600")
    parser.add_argument("--name", default="tutor", help="the release's name")
    parser.add_argument("--alias", default="heldout")
    parser.add_argument("--documents", default="handbook")
    parser.add_argument("versions", nargs="*", type=int, default=[1, 2, 3])
    args = parser.parse_args()
    client = el.connect(args.url, start=False)
    prepare(client, args.name, args.alias, args.versions[0])
    known = {d["version"]: d for d in reversed(client.gates.decisions(name=args.name)) if d["alias"] == "champion"}
    for version in args.versions:
        decision = client.gates.evaluate(f"release:{args.name}@{version}", args.alias)
        own = figures(known.get(version))
        print(
            f"\n{decision['ref']}: {decision['verdict']} on held-out questions ({known[version]['verdict'] if version in known else '-'} on the demo's)"
        )
        for rule, figure in figures(decision).items():
            if rule.startswith(FIGURES):
                print(f"  {rule:48} {figure:36} demo's: {own.get(rule, '-')}")
    for label, suite in (("held out", args.alias), ("the demo's own", args.name)):
        print(f"\nshare of a question's words in its document, {label}: {overlap(client, suite, args.documents):.2f}", end="")
    print()


if __name__ == "__main__":
    main()
