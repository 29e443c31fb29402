"""A training script as many have one: pandas, scikit-learn, MLflow. It knows nothing of everloop."""

import mlflow
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

data = pd.read_csv("data/customers.csv")
x, y = data[["age", "plan", "months_with_us", "monthly_bill", "support_calls", "paid_late"]], data["left"]
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)

texts = ["plan", "paid_late"]
numbers = [column for column in x if column not in texts]
prepare = ColumnTransformer([("numbers", SimpleImputer(), numbers), ("texts", OneHotEncoder(handle_unknown="ignore"), texts)])
model = Pipeline([("prepare", prepare), ("classify", RandomForestClassifier(n_estimators=60, min_samples_leaf=10, random_state=0))])

mlflow.set_experiment("churn")
with mlflow.start_run():
    model.fit(x_train, y_train)
    mlflow.log_params({"n_estimators": 60, "min_samples_leaf": 10})
    mlflow.log_metric("auc", roc_auc_score(y_test == "yes", model.predict_proba(x_test)[:, 1]))
    mlflow.sklearn.log_model(model, name="model", registered_model_name="churn", serialization_format="cloudpickle")
