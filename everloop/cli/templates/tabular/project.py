"""Which customers are about to leave? From a table to an endpoint that is tested before it goes live and retrained when it gets worse.

Register it with `everloop apply`; change it and apply again. Nothing here runs at once: the file only says what there shall be.
"""

import everloop as el
from everloop.build import tabular

NAME = "churn"
DATA = "data/customers.csv"  # a CSV or Parquet file beside this one
TARGET = "left"  # the column to predict: two values, more, or a number
TIME = "seen_on"  # when each row happened (None: there is no such column); newer rows then test what older ones taught
PROTECTED = ["gender"]  # groups that must be treated alike; no features of the model
ID = "customer"  # what names a row, and is no feature (None: there is no such column)
RULES = ["auc >= 0.65", "auc >= champion - 0.02", "cpu_p95_ms <= 50"]  # what a release must show before it goes live

project = el.Project(NAME)

# 1. The data become a version, dataset:churn@1, with schema and statistics. Load newer data with `everloop apply` or `everloop data add`.
project.dataset(NAME, DATA, target=TARGET, time=TIME, protected=PROTECTED, id=ID)

# 2. The pipeline: check the data, hold out the newest quarter, train, explain, register a model and its release, judge it at the gate.
#    Steps of your own fit in: mark a function with @project.step and give steps=[*tabular.PIPELINE["steps"], mine].
project.pipeline(steps=tabular.PIPELINE, dataset=f"dataset:{NAME}")

# 3. The gate: a release goes live only when all of this holds on the held-out rows, with 95 % confidence. The first one needs no person.
project.gate(RULES, approval="not_first")

# 4. What your programs call: POST /api/v1/endpoints/churn/predict, or /v2/models/churn/infer.
project.endpoint()

# 5. The monitor compares live traffic with the held-out rows; when the labels that you send show more errors, it starts the pipeline.
project.monitor(checks=["decay", "drift"], every="1d", window_days=7, retrain=NAME)
