"""`everloop apply`: all or nothing, the same twice is unchanged, and a mistake in the file is a sentence with its line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from everloop.client.base import Client
from tests.cli.helpers import Run, run  # noqa: F401 - a fixture
from tests.web.test_data import client  # noqa: F401 - a fixture

PROJECT = """
import everloop as el

project = el.Project("churn")
project.dataset("customers", "customers.csv", target="churned")
project.prompt("hello", "Answer {{ question }}")
project.policy("polite", [{"check": "pii", "stage": "output", "action": "redact"}])
project.suite("questions", [{"question": "Who?", "kind": "answerable"}])

@project.step
def prepare(step):
    return {"rows": len(step.client.data.frame(step.params["dataset"]))}

@project.step
def train(step):
    return step.inputs["prepare"]

project.pipeline(dataset="dataset:customers", schedule="@weekly")
project.schedule("nightly", "0 3 * * *", depth=3)
project.gate(["auc >= 0.65"], approval="not_first")
project.endpoint()
project.monitor(retrain="churn")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mine"
    made.mkdir()
    (made / "project.py").write_text(PROJECT)
    (made / "customers.csv").write_text("age,churned\n" + "".join(f"{age},{age % 2}\n" for age in range(40)))
    return made


def changes(out: str) -> dict[str, str]:
    return {f"{i['what']}:{i['name']}": i["change"] for i in json.loads(out)["projects"][0]["items"]}


def test_a_project_is_registered_whole_and_once(client: Client, run: Run, folder: Path) -> None:  # noqa: F811
    code, out, err = run("apply", str(folder), "--dry-run")
    assert code == 0 and "Nothing was registered" in out and "from customers.csv" in out, err
    assert client.pipelines.list() == [] and client.gates.list() == [] and client.assets.list()["items"] == []
    code, out, err = run("apply", str(folder), "--json")
    assert code == 0, err
    made = changes(out)
    assert set(made.values()) == {"created"} and len(made) == 10
    spec = client.pipelines.get("churn")["spec"]
    assert [(s["name"], s["call"], s["after"]) for s in spec["steps"]] == [
        ("prepare", "project:prepare", []),
        ("train", "project:train", ["prepare"]),
    ]
    assert spec["code"] == "code:churn@1" and spec["params"] == {"name": "churn", "dataset": "dataset:customers"}
    assert {s["name"]: s["cron"] for s in client.pipelines.schedules()} == {"churn": "@weekly", "nightly": "0 3 * * *"}
    assert client.gates.list()[0]["spec"]["suite"] == "suite:churn"
    assert client.monitors.get("churn")["spec"]["on_fail"]["pipeline"] == "churn"
    assert client.suites.get("questions")["cases"][0]["question"] == "Who?"
    assert set(changes(run("apply", str(folder), "--json")[1]).values()) == {"unchanged"}


def test_what_changed_is_shown(client: Client, run: Run, folder: Path) -> None:  # noqa: F811
    run("apply", str(folder))
    file = folder / "project.py"
    file.write_text(PROJECT.replace('"auc >= 0.65"', '"auc >= 0.7"').replace("step.inputs[", "dict(a=1) or step.inputs["))
    code, out, _ = run("apply", str(file))
    assert code == 0 and "~ code      code:churn@2" in out and "file project.py: changed" in out
    assert "requirements: - auc >= 0.65\n" in out and "requirements: + auc >= 0.7\n" in out and "3 changed, 7 unchanged" in out.replace("\n", " ")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"auc >= 0.65"', '"acu >= 0.65"', "gate churn: "),
        ('retrain="churn"', 'retrain="none"', "monitor churn: There is no pipeline 'none'"),
        ('schedule="@weekly"', 'schedule="sometimes"', "pipeline churn: "),
        ("{{ question }}", "{{ question", "prompt hello: "),
        ('"check": "pii"', '"check": "pi"', "policy polite: "),
        ('"kind": "answerable"', '"kind": "odd"', "suite questions: "),
        ('target="churned"', 'target="left"', "dataset customers: "),
        ('"customers.csv"', '"none.csv"', "There is no file"),
        ("return step.inputs", "return step inputs", "project.py, line 16, fails: SyntaxError"),
        ("project.endpoint()", "project.endpiont()", "project.py, line 21, fails: AttributeError"),
        ("import everloop as el", "import everloop as el, no_such_thing", "project.py, line 2, fails: ModuleNotFoundError"),
        ("project.endpoint()", "project.endpoint(); project.endpoint()", "endpoint churn: It is declared twice"),
        ('project = el.Project("churn")', 'project = el.Project("a/b")', "line 4"),
    ],
)
def test_a_mistake_registers_nothing(client: Client, run: Run, folder: Path, old: str, new: str, told: str) -> None:  # noqa: F811
    assert old in PROJECT
    (folder / "project.py").write_text(PROJECT.replace(old, new, 1))
    code, _, err = run("apply", str(folder))
    assert code == 2 and told in err and "Traceback" not in err
    assert client.assets.list()["items"] == [] and client.pipelines.list() == [] and client.endpoints.list() == [] and client.gates.list() == []


def test_an_editor_who_would_loosen_a_gate_is_refused_with_3(client: Client, run: Run, folder: Path) -> None:  # noqa: F811
    assert run("apply", str(folder))[0] == 0
    key = client._http.post("/api/v1/keys", json={"name": "ed", "role": "editor"})["key"]
    client._http._headers["authorization"] = f"Bearer {key}"
    (folder / "project.py").write_text(PROJECT.replace("auc >= 0.65", "auc >= 0.55"))
    code, _, err = run("apply", str(folder))
    assert code == 3 and err.startswith("Forbidden") and "change the gate of release:churn@champion" in err and "approver" in err
    (folder / "project.py").write_text(PROJECT.replace("auc >= 0.65", "auc >= 0.55").replace("0 3 * * *", "at noon"))
    assert run("apply", str(folder))[0] == 2


def test_two_mistakes_are_both_named(run: Run, folder: Path) -> None:  # noqa: F811
    (folder / "project.py").write_text(PROJECT.replace("auc >= 0.65", "auc ~ 0.65").replace("@weekly", "sometimes"))
    err = run("apply", str(folder))[2]
    assert "2 declarations of project.py cannot be:" in err and "gate churn: " in err and "pipeline churn: " in err


CHAT = """
import everloop as el

project = el.Project("help")
project.documents("help", "docs")
project.prompt("help", "Answer as {{ style }} from {{ context }}")
PIPELINE
project.endpoint(kind="chat")
"""
BUILD = 'project.pipeline(steps=["everloop.build.index:build", "everloop.build.release:chat"], documents="dataset:help"MORE)'


@pytest.mark.parametrize("pipeline", [BUILD.replace("MORE", ""), ""], ids=["pipeline", "endpoint alone"])
def test_a_prompt_that_nothing_fills_registers_nothing(client: Client, run: Run, tmp_path: Path, pipeline: str) -> None:  # noqa: F811
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# Bicycles\n\nThey have two wheels.\n")
    (tmp_path / "project.py").write_text(CHAT.replace("PIPELINE", pipeline))
    for more in (["--dry-run"], []):
        code, out, err = run("apply", str(tmp_path), *more)
        assert (
            code == 2 and "prompt help" in err and "'style' in message 1 (system) is filled by nothing" in err and "Nothing was registered" in err
        ), err
    assert client.assets.list()["items"] == [] and client.pipelines.list() == []
    (tmp_path / "project.py").write_text(CHAT.replace("PIPELINE", BUILD.replace("MORE", ', variables={"style": "a sailor"}')))
    code, out, err = run("apply", str(tmp_path))
    assert code == 0 and "filled by nothing" not in out, err


def test_a_prompt_that_no_release_uses_is_only_noted(run: Run, folder: Path) -> None:  # noqa: F811
    (folder / "project.py").write_text(PROJECT.replace("Answer {{ question }}", "Answer {{ question }} as {{ style }}"))
    code, out, err = run("apply", str(folder))
    assert code == 0 and "note: The prompt's variable 'style'" in out, err


@pytest.mark.parametrize(("words", "told"), [(("none",), "There is no file or folder"), ((".",), "has no project to apply")])
def test_without_a_project_file_it_says_what_to_do(run: Run, tmp_path: Path, monkeypatch, words, told) -> None:  # noqa: F811
    monkeypatch.chdir(tmp_path)
    code, _, err = run("apply", *words)
    assert code == 2 and told in err and "everloop init" in err


def test_a_file_that_ends_with_apply_is_applied_once(client: Client, run: Run, folder: Path) -> None:  # noqa: F811
    (folder / "project.py").write_text(PROJECT + '\nproject.apply("http://127.0.0.1:9")\n')  # nothing answers there
    code, out, err = run("apply", str(folder), "--json")
    assert code == 0 and set(changes(out).values()) == {"created"}, err
    done = subprocess.run([sys.executable, str(folder / "project.py")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "No everloop server answers at http://127.0.0.1:9" in done.stderr


def test_running_the_file_says_what_to_do(folder: Path) -> None:
    done = subprocess.run([sys.executable, str(folder / "project.py")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "everloop apply project.py" in done.stderr
