"""Which kinds of customers are there? Groups in a table without labels, tested for how well they hold together before they go live.

Register it with `everloop apply`; change it and apply again. Nothing here runs at once: the file only says what there shall be.
"""

import everloop as el
from everloop.build import clustering

NAME = "segments"
DATA = "data/customers.csv"  # a CSV or Parquet file beside this one
TIME = "seen_on"  # when each row happened (None: there is no such column); newer rows then test what older ones taught
ID = "customer"  # what names a row (None: there is no such column)
LEAVE_OUT = ["left", "gender"]  # columns that shall not shape the groups
CLUSTERS = [2, 8]  # fewest and most groups; as many as hold together best are taken
RULES = ["silhouette >= 0.1", "smallest_cluster >= 0.01", "silhouette >= champion - 0.02"]  # what a release must show before it goes live

project = el.Project(NAME)

# 1. The data become a version. 2. The pipeline finds groups in three quarters of the rows and tests them on the rest.
project.dataset(NAME, DATA, time=TIME, id=ID)
project.pipeline(steps=clustering.PIPELINE, dataset=f"dataset:{NAME}", leave_out=LEAVE_OUT, clusters=CLUSTERS)

# 3. The gate, 4. the endpoint that says which group a row belongs to, 5. the monitor that notices when the rows of today are others.
project.gate(RULES, approval="not_first")
project.endpoint()
project.monitor(checks=["drift"], retrain=NAME, retrain_on="any")
