"""A classifier as OpenVINO runs it on a CPU: some three times as quick for a text alone, a quarter in large batches."""
# ruff: noqa: TID253 - tensors are all this module is about; import it inside functions

import logging
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import torch

from include.training.batches import padded_batches
from include.training.fast.hardware import bfloat16_is_quick
from include.training.fast.probing import probe_rows
from include.training.layout import position_limit

logger = logging.getLogger(__name__)

INPUTS = ("input_ids", "attention_mask")
# Of logits, as a share of the largest: less than half of what makes two labels so close that they are scored again.
MOST_APART, MOST_APART_IN_BFLOAT16 = 1e-5, 0.0125
SLOWER = 0.8  # times as quick as torch; below that it was no chance of a busy machine
EXAMPLE = (3, 17)  # texts and tokens, of no meaning: both are free in what comes of it
TURNS = 5


class Compiled:
    """Called as a transformers model is, and answers as one does."""

    def __init__(self, run: Callable[[list[Any]], Mapping[int, Any]]) -> None:
        self._run = run

    def __call__(self, **batch: Any) -> Any:
        """logits (texts, labels) float32, for input_ids and attention_mask (texts, tokens) int64."""
        return SimpleNamespace(logits=torch.from_numpy(self._run([batch[name].numpy() for name in INPUTS])[0].copy()))


def compile_to_score(model: Any) -> Compiled | None:
    """A trained classifier compiled for this CPU, which takes seconds; None where that is of no use.

    That is where OpenVINO is not installed, does not know a layer, gives other answers than torch, or no sooner.

    Args:
        model: A transformers sequence classifier, on the CPU. It stays as it is.
    """
    if find_spec("openvino") is None:
        return None
    begun, bfloat16 = time.perf_counter(), bfloat16_is_quick("cpu")
    try:
        found = Compiled(_compiled(model, "bf16" if bfloat16 else "f32"))
        apart, times = _compare(model, found)
    except Exception as error:  # of many kinds, by layer; torch answers as well
        logger.info("torch scores: OpenVINO does not take %s: %s", type(model).__name__, error)
        return None
    took = time.perf_counter() - begun
    if apart > (MOST_APART_IN_BFLOAT16 if bfloat16 else MOST_APART) or times < SLOWER:
        logger.warning("torch scores: OpenVINO was %.1f times as quick, and its logits %.1g apart", times, apart)
        return None
    logger.info("OpenVINO scores, after %.1f s: %.1f times as quick as torch, %.1g apart", took, times, apart)
    return found


def _compiled(model: Any, precision: str) -> Any:
    # Without these tools it imports as well, and reports to nobody that it was: they send an event, convert_model more.
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
            return found

    texts, tokens = EXAMPLE
    tokens = min(tokens, position_limit(model))
    example = {name: torch.ones(texts, tokens, dtype=torch.long) for name in INPUTS}
    front_end = FrontEndManager().load_by_framework("pytorch")
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that lengths and masks other than the example's may differ: it is tried below
        traced: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
            Logits().eval(), example_kwarg_inputs=example, strict=False, check_trace=False
        )
        # Freezing takes several times as long as all the rest, and changes nothing of what comes of it.
        decoder = TorchScriptPythonDecoder(traced, skip_freeze=True)  # the front end does not keep it alive
        converted = front_end.convert(front_end.load(decoder))
    converted.reshape({place: [-1, -1] for place in range(len(INPUTS))})
    options = {
        "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, on as many cores as torch has
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    return openvino.Core().compile_model(converted, "CPU", options)


@torch.inference_mode()
def _compare(model: Any, other: Compiled) -> tuple[float, float]:
    """How far their logits are apart, as a share of the largest, and how much quicker the other is, by one text."""
    rows = probe_rows(model)
    collate = padded_batches(model)
    batch, alone = collate(rows), collate(rows[:1])
    expected = torch.cat([model(**batch).logits, model(**alone).logits])
    found = torch.cat([other(**batch).logits, other(**alone).logits])
    apart = float((expected - found).abs().max() / expected.abs().max().clamp(min=1e-12))
    took: dict[Any, list[float]] = {model: [], other: []}
    for _ in range(TURNS):
        for one, seconds in took.items():
            begun = time.perf_counter()
            one(**alone)
            seconds.append(time.perf_counter() - begun)
    return apart, min(took[model]) / min(took[other])
