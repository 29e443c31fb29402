"""Answers from a folder of documents, with their sources: tested before they go live, guarded, watched.

Register it with `everloop apply`; change it and apply again. Nothing here runs at once: the file only says what there shall be.
"""

import everloop as el
from everloop.build import index, tutor

NAME = "handbook"
DOCUMENTS = "docs"  # a folder beside this file: PDF, HTML, Markdown, text
ENGINE = {"name": "extractive"}  # the best sentences, word for word, with no LLM. With one: {"name": "openai", "model": "gpt-5-mini",
# "key": "env:OPENAI_API_KEY"} or {"name": "anthropic", "model": "claude-haiku-4-5", "key": "env:ANTHROPIC_API_KEY"}: read in the server's environment.

PROMPT = """Answer only from the passages below, in at most three sentences, and cite each passage that you use by its number, like [1].
If they do not answer the question, say that you could not find it in the documents.

{{ context }}"""

POLICY = [  # what is checked in questions (input), in passages (retrieved) and in answers (output); off-topic questions: see below
    {"check": "injection", "stage": "input", "action": "block"},
    {"check": "harm", "stage": "input", "action": "block"},
    {"check": "secrets", "stage": "input", "action": "block"},
    {"check": "pii", "stage": "input", "action": "redact"},
    {"check": "injection", "stage": "retrieved", "action": "block"},
    {"check": "pii", "stage": "output", "action": "redact"},
]

RULES = [  # what a release must show on the questions, each with 95 % confidence: few questions can prove little, so write many
    "hit_rate@4 >= 0.7",
    "answer_relevance >= 0.3",
    "groundedness >= 0.8",
    "over_refusal_rate <= 0.3",
    "refusal_accuracy >= 0.6",
    "refusal_accuracy >= 0.2 on kind=unanswerable",
    "harmful_answer_rate <= 0.5",
    "error_rate <= 0.1",
    "hit_rate@4 >= champion - 0.1",
]

project = el.Project(NAME)

# 1. The documents become a version, dataset:handbook@1. Change them and apply again for the next.
project.documents(NAME, DOCUMENTS)

# 2. What is tried on them: the prompt, the policy, and the questions with the documents that answer them (questions.jsonl: write your own).
project.prompt(NAME, PROMPT, settings={"retrieval": {"k": 4}})
project.policy(NAME, lambda: [*POLICY, *tutor.off_topic(project.root / DOCUMENTS)], refusal="I cannot help with that: ask about the handbook.")
project.suite(NAME, "questions.jsonl")

# 3. The pipeline: index the documents, make a release of index, prompt, policy and engine, judge it at the gate.
project.pipeline(
    steps=[*index.PIPELINE["steps"], "everloop.build.release:chat", "everloop.build.release:gate"], documents=f"dataset:{NAME}", engine=ENGINE
)
project.gate(RULES, approval="not_first")

# 4. What people call: any OpenAI client with base_url = SERVER/v1 and model = "handbook".
project.endpoint(kind="chat")

# 5. The monitor watches failures, time, cost, what the policy blocked, what was declined, and thumbs; `checks=[...]` names others.
project.monitor()
