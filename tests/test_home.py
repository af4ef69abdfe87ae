"""The home folder: made whole, and never taken from its owner."""

from pathlib import Path

import yaml

from dasd_resources.home import DAGSTER_SETTINGS, prepare_home


def test_a_new_home_has_its_landing_folder_and_dagsters_settings(tmp_path: Path) -> None:
    folder = prepare_home(tmp_path / "new" / "home", None)
    assert folder == tmp_path / "new" / "home" / "dagster"
    assert (tmp_path / "new" / "home" / "prompts").is_dir()
    assert [path.name for path in folder.iterdir()] == ["dagster.yaml"]
    assert (folder / "dagster.yaml").read_bytes() == DAGSTER_SETTINGS.read_bytes()
    assert isinstance(yaml.safe_load(DAGSTER_SETTINGS.read_text()), dict)


def test_dagster_home_may_lie_elsewhere(tmp_path: Path) -> None:
    folder = prepare_home(tmp_path / "home", str(tmp_path / "elsewhere"))
    assert folder == tmp_path / "elsewhere"
    assert (folder / "dagster.yaml").is_file()
    assert not (tmp_path / "home" / "dagster").exists()


def test_settings_that_are_there_are_kept(tmp_path: Path) -> None:
    settings = prepare_home(tmp_path, None) / "dagster.yaml"
    settings.write_text("telemetry: {enabled: false} # mine")
    prepare_home(tmp_path, None)
    assert settings.read_text() == "telemetry: {enabled: false} # mine"


def test_settings_of_an_earlier_release_get_the_scheduler_and_keep_the_rest(tmp_path: Path) -> None:
    settings = prepare_home(tmp_path, None) / "dagster.yaml"
    before = settings.read_text().partition("scheduler:")[0].replace("max_retries: 2", "max_retries: 5")
    settings.write_text(before)
    prepare_home(tmp_path, None)
    assert settings.read_text().startswith(before)
    assert yaml.safe_load(settings.read_text())["scheduler"]["class"] == "OneService"
    settings.write_text(before + "scheduler: {module: mine, class: Mine}\n")
    prepare_home(tmp_path, None)
    assert settings.read_text().endswith("class: Mine}\n")
