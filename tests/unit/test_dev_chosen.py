"""Which settings a stack has: given, kept, or refused."""

import os
import stat
from pathlib import Path

import pytest

from dev.chosen import choose, described, not_in_force
from dev.environment import environment
from dev.processes import StartError
from dev.stack import Stack
from dev.state import State


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    for name in [name for name in os.environ if name.startswith("BERT_")]:
        monkeypatch.delenv(name)
    state = State(tmp_path / "stack")
    state.make_folders()
    state.choose_ports()
    return state


def start(state: State, **overrides: str) -> dict[str, str]:
    state.keep_settings(choose(state, overrides))
    return environment(state)


def test_settings_are_kept_until_another_start_changes_them(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERT_EPOCHS", "2")
    assert start(state)["BERT_EPOCHS"] == "2"
    monkeypatch.delenv("BERT_EPOCHS")
    assert start(state, BERT_TEXT_COLUMN="Betreff")["BERT_EPOCHS"] == "2"
    assert {"BERT_EPOCHS=2  (kept)", "BERT_BUCKET=bert  (a local stack's own)"} < set(
        described(state, environment(state))
    )
    monkeypatch.setenv("BERT_EPOCHS", "3")
    assert environment(state)["BERT_EPOCHS"] == "2", "a caller's shell changes nothing that runs"
    assert not_in_force(state) == {"BERT_EPOCHS": "3"}
    assert start(state)["BERT_EPOCHS"] == "3"
    assert "BERT_EPOCHS=3  (given now)" in list(described(state, environment(state)))
    assert not_in_force(state) == {}
    monkeypatch.setenv("BERT_EPOCHS", "")
    assert not_in_force(state) == {"BERT_EPOCHS": ""}
    assert "BERT_EPOCHS" not in start(state)
    assert environment(state)["BERT_TEXT_COLUMN"] == "Betreff"
    assert stat.S_IMODE((state.folder / "settings.json").stat().st_mode) == 0o600


def test_what_is_wrong_stops_the_start_and_is_not_kept(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERT_EPOCHS", "2")
    start(state)
    monkeypatch.setenv("BERT_EPOCHS", "0")
    monkeypatch.setenv("BERT_SEEDS", "7")
    with pytest.raises(StartError) as refusal:
        Stack(state.folder).up()
    assert "BERT_SEEDS is no setting; did you mean BERT_SEED?" in str(refusal.value)
    assert "BERT_EPOCHS: it should be greater than or equal to 1" in str(refusal.value)
    assert "to forget" not in str(refusal.value)
    assert state.settings == {"BERT_EPOCHS": "2"}
    assert not (state.folder / "supervisord.conf").exists()


def test_a_kept_setting_that_is_none_any_more_can_be_forgotten(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    state.keep_settings({"BERT_FORMER": "1", "BERT_EPOCHS": "2"})
    with pytest.raises(StartError, match="Kept from an earlier start; to forget them: BERT_FORMER= make up"):
        choose(state, {})
    monkeypatch.setenv("BERT_FORMER", "")
    assert choose(state, {}) == {"BERT_EPOCHS": "2"}


def test_the_environment_of_a_machine_and_the_tools_own_variables_are_not_kept(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERT_ENVIRONMENT", "production")
    monkeypatch.setenv("BERT_AUDIT", "required")
    monkeypatch.setenv("bert_seed", "9")
    assert choose(state, {}) == {"BERT_SEED": "9"}
    assert environment(state)["BERT_ENVIRONMENT"] == "local"
