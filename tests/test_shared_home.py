"""What people use of a home: over one on servers it says what it says over the home in a folder, copied there."""

import shlex
from collections.abc import Iterator

import polars as pl
import pytest
import shared_stores
from conftest import Project
from shared_stores import Storage
from test_viewer import client_of

import dasd
from dasd_assets.cli import main

pytestmark = pytest.mark.drill

IDS = """SELECT s.response_id AS response, s.prompt_id AS prompt,
        (SELECT min(checkpoint_id) FROM checkpoints WHERE name = 'mixed') AS checkpoint,
        (SELECT min(continuation_id) FROM teacher_continuations) AS continuation,
        (SELECT min(example_id) FROM sft_examples) AS example,
        (SELECT min(evaluation_id) FROM evaluations) AS answer
    FROM selected_responses s WHERE dataset = 't060' AND policy = 'das' ORDER BY response_id LIMIT 1"""
COMMANDS = """\
sql 'FROM response_scores ORDER BY ALL' --json
sql 'SELECT count(*) AS n FROM prompts' --at 2
sql 'SELECT snapshot_id, commit_message FROM dasd.snapshots() ORDER BY ALL' --json
audit response {response}
audit prompt {prompt}
audit checkpoint {checkpoint}
audit verify
quarantine
repair
compare tiny/t060 tiny/student""".splitlines()
PAGES = """\
/explore?sort=length
/explore?verdict=wrong
/question/{prompt}
/question/{prompt}/reach
/response/{response}
/response/{response}/reach
/response/{response}/selection
/response/{response}/sentence/0
/mixed
/continuation/{continuation}
/checkpoints
/checkpoint/{checkpoint}
/answer/{answer}
/leaderboard
/experiments""".splitlines()


@pytest.fixture(scope="module")
def shared(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The finished home, its tables on PostgreSQL and in an object store."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in shared_stores.object_store().items():
            monkeypatch.setenv(name, value)
        home = Storage.SHARED.copy(finished.home, tmp_path_factory.mktemp("shared") / "home")
        yield Project(home, finished.recipe)


@pytest.fixture(scope="module")
def ids(finished: Project) -> dict[str, str]:
    return finished.read(IDS).row(0, named=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_the_same(
    command: str,
    finished: Project,
    shared: Project,
    ids: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = []
    for project in (finished, shared):
        monkeypatch.setenv("DASD_HOME", str(project.home))
        code = main(shlex.split(command.format(**ids)))
        out, err = capsys.readouterr()
        said.append((code, out.replace(str(project.home), "HOME"), err))
    assert said[1] == said[0]
    code, out, err = said[0]
    assert (code, (err if command == "quarantine" else out) != "") == (0, True)  # that none is, is a sentence


def test_the_viewer_shows_the_same(finished: Project, shared: Project, ids: dict[str, str]) -> None:
    clients = [client_of(project) for project in (finished, shared)]
    for page in PAGES:
        shown = [client.get(page.format(**ids)) for client in clients]
        assert [answer.status_code for answer in shown] == [200, 200], page
        texts = [answer.text.replace(str(p.home), "HOME") for answer, p in zip(shown, (finished, shared), strict=True)]
        assert texts[1] == texts[0], page


def test_python_reads_the_same(finished: Project, shared: Project, ids: dict[str, str]) -> None:
    with dasd.open(finished.home) as here, dasd.open(shared.home) as there:
        for table in ("prompts", "responses", "sentence_types", "lineage_examples", "rejected_prompts"):
            rows = [home.table(table).collect().sort(pl.all().hash()) for home in (here, there)]
            assert rows[1].equals(rows[0]), table
            assert there.relation(table).shape == rows[0].shape
        assert there.sql("SELECT sum(hash(r)) FROM responses r").equals(
            here.sql("SELECT sum(hash(r)) FROM responses r")
        )
        assert there.response(ids["response"])._repr_html_() == here.response(ids["response"])._repr_html_()
