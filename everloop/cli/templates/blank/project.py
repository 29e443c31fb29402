"""A project with one step of its own. Register it with `everloop apply`; change it and apply again.

The file runs here when it is applied, and in workers when they run its steps: it must only declare. Data come in by project.dataset.
"""

import everloop as el

project = el.Project("mine")


@project.step
def count(step):
    """A step gets `step.params`, `step.inputs` (results of the steps before it), `step.client`, `step.run` and `step.log`."""
    found = step.client.assets.list(kind="dataset")["items"]
    step.run.log_metric("datasets", len(found))
    step.log(f"there are {len(found)} datasets in this project")
    return {"datasets": len(found)}


@project.step
def report(step):
    """A step comes after the one above it; what it returns is kept, so a run that is cut off goes on where it was."""
    return {"words": f"{step.inputs['count']['datasets']} datasets, as {step.params['author']} asked"}


project.pipeline(author="me")  # both steps, in order; add schedule="@weekly" to run it by the clock

# More to declare, each in one line; `everloop apply --dry-run` says what would come of it:
#   project.dataset("customers", "customers.csv", target="left")        a table as a version
#   project.documents("handbook", "docs")                               a folder of PDF, HTML, Markdown, text
#   project.prompt("tutor", "Answer from: {{ context }}")               a prompt, checked
#   project.suite("tutor", "questions.jsonl")                           what releases are tested on
#   project.gate(["auc >= 0.7"], name="churn")                          what must hold before one goes live
#   project.endpoint("churn")                                           what programs call
#   project.monitor("churn", retrain="mine")                            what watches it, and what it starts
