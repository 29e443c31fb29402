"""A training script with MLflow calls, unchanged, becomes an endpoint that is tested before it goes live and retrained when it gets worse.

Register it with `everloop apply`; change it and apply again. Nothing here runs at once: the file only says what there shall be.
"""

import everloop as el
from everloop.build import script

NAME = "churn"
SCRIPT = "train.py"  # your script: it trains with scikit-learn and logs with mlflow's log_model(..., registered_model_name="...")
DATA = "data/customers.csv"  # your data; in a run the script finds there the rows to train on, never those that the gate judges with
FILE = "data/customers.csv"  # the path under which the script reads them
TARGET = "left"  # the column that it predicts
TIME = "seen_on"  # when each row happened (None: there is no such column); newer rows then test what older ones taught
PROTECTED = ["gender"]  # groups that must be treated alike
ID = "customer"  # what names a row (None: there is no such column)
RULES = ["auc >= 0.65", "auc >= champion - 0.02", "cpu_p95_ms <= 50"]  # what a release must show before it goes live

project = el.Project(NAME)

# 1. The data become a version, dataset:churn@1.
project.dataset(NAME, DATA, target=TARGET, time=TIME, protected=PROTECTED, id=ID)

# 2. The pipeline: hold out rows, run the script in a worker with MLFLOW_TRACKING_URI set to this server, make what it logged servable
#    (ONNX where the answers agree), release it, judge it. The script travels along as code:churn@1.
project.pipeline(steps=script.PIPELINE, code=True, dataset=f"dataset:{NAME}", script=SCRIPT, file=FILE)

# 3. The gate, 4. the endpoint that your programs call, 5. the monitor that runs the script again when errors rise.
project.gate(RULES, approval="not_first")
project.endpoint()
project.monitor(retrain=NAME)
