"""A classifier as OpenVINO runs it on a CPU: some three times as quick for a text alone, a quarter in large batches."""
# ruff: noqa: TID253 - tensors are all this module is about; import it inside functions

import logging
import sys
import time
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import torch

from include.training.batches import padded_batches
from include.training.fast.hardware import bfloat16_is_quick
from include.training.fast.probing import probe_rows
from include.training.layout import position_limit

logger = logging.getLogger(__name__)

FLOAT32, BFLOAT16 = "f32", "bf16"  # as OpenVINO calls them
INPUTS = ("input_ids", "attention_mask")
MOST_APART = 1e-5  # logits in float32, as a share of the largest
# How far off bfloat16 takes a text's best labels from each other, as a share of the best logit: half of what makes
# two so close that they are scored again.
MOST_OFF = 0.0125
QUICKER = 1.1  # times as quick as float32 bfloat16 has to be, since close calls are scored twice
SLOWER = 0.8  # times as quick as torch; below that it was no chance of a busy machine
EXAMPLE = (3, 17)  # texts and tokens, of no meaning: both are free in what comes of it
TRIED = (1, 8)  # texts that are answered at a time when it is tried, of TOKENS each
TOKENS = 16
TURNS = 4


class Compiled:
    """Called as a transformers model is, and answers as one does."""

    def __init__(self, model: Any, precision: str) -> None:
        self._model, self.precision = model, precision

    @property
    def bfloat16(self) -> bool:
        """Whether its close calls are to be decided by another."""
        return self.precision == BFLOAT16

    def __call__(self, **batch: Any) -> Any:
        """logits (texts, labels) float32, for input_ids and attention_mask (texts, tokens) int64."""
        return SimpleNamespace(logits=torch.from_numpy(self._model([batch[name].numpy() for name in INPUTS])[0].copy()))


def compile_to_score(model: Any, usual: Any, precisions: Sequence[str] = ()) -> list[Compiled]:
    """A trained classifier compiled for this CPU, which takes seconds; nothing where that is of no use.

    That is where OpenVINO is not installed, does not know a layer, gives other answers than torch, or no sooner.

    Args:
        model: A transformers sequence classifier, on the CPU. It stays as it is.
        usual: What answers otherwise: the model, or a copy in bfloat16.
        precisions: In which a model that was compiled before is the quickest here. None: it is tried.

    Returns:
        What answers; before it, where that is quicker, the same in bfloat16, whose close calls it decides.
    """
    if find_spec("openvino") is None:
        return []
    begun = time.perf_counter()
    try:
        wanted = precisions or ((FLOAT32, BFLOAT16) if bfloat16_is_quick("cpu") else (FLOAT32,))
        found = _agreeing(model, _converted(model), wanted)
        if precisions:
            return found
        seconds = _seconds(model, [usual, *found])
    except Exception as error:  # of many kinds, by layer; torch answers as well
        logger.info("torch scores: OpenVINO does not take %s: %s", type(model).__name__, " ".join(str(error).split()))
        return []
    if len(found) > 1 and seconds[found[0]] * QUICKER > seconds[found[1]]:
        del found[0]
    if not found or seconds[usual] < SLOWER * seconds[found[0]]:
        logger.warning("torch scores: OpenVINO gives other answers, or takes longer")
        return []
    logger.info(
        "OpenVINO scores in %s, after %.1f s: %.1f times as quick as torch",
        found[0].precision,
        time.perf_counter() - begun,
        seconds[usual] / seconds[found[0]],
    )
    return found


@torch.inference_mode()
def _agreeing(model: Any, converted: Any, wanted: Sequence[str]) -> list[Compiled]:
    """In float32, and before it in bfloat16, where that is wanted and the answers are the model's."""
    batch = padded_batches(model)(probe_rows(model))
    expected = model(**batch).logits
    found: list[Compiled] = []
    for precision, difference, most in ((FLOAT32, _apart, MOST_APART), (BFLOAT16, _lead_off, MOST_OFF)):
        if precision not in wanted or (precision == BFLOAT16 and not found):
            continue
        one = Compiled(_compiled(converted, precision), precision)
        differs = difference(expected, one(**batch).logits)
        logger.debug("OpenVINO's answers in %s differ by %.1g", precision, differs)
        if differs <= most:
            found.insert(0, one)
    return found


def _apart(expected: torch.Tensor, logits: torch.Tensor) -> float:
    return float((expected - logits).abs().max() / expected.abs().max().clamp(min=1e-12))


def _lead_off(expected: torch.Tensor, logits: torch.Tensor) -> float:
    best = [one.topk(min(2, one.shape[-1])).indices for one in (expected, logits)]
    off = (logits - expected).gather(-1, torch.cat(best, -1))
    return float(((off.amax(-1) - off.amin(-1)) / logits.amax(-1).abs().clamp(min=2)).max())


@torch.inference_mode()
def _seconds(model: Any, sides: list[Any]) -> dict[Any, float]:
    """What a text alone and some together take, added up; the best of some turns."""
    row = {"input_ids": [word for one in probe_rows(model) for word in one["input_ids"]][:TOKENS]}
    batches = [padded_batches(model)([row] * texts) for texts in TRIED]
    took: dict[Any, list[list[float]]] = {side: [[] for _ in batches] for side in sides}
    for _ in range(TURNS):
        for side in sides:
            for batch, seconds in zip(batches, took[side], strict=True):
                begun = time.perf_counter()
                side(**batch)
                seconds.append(time.perf_counter() - begun)
    return {side: sum(map(min, times)) for side, times in took.items()}


class _Logits(torch.nn.Module):
    """Not made in a function: such a class is let go of by Python's collector alone, and holds the model until then."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return found


def _converted(model: Any) -> Any:
    """The model as OpenVINO has models, for any number of texts and tokens."""
    _openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    texts, tokens = EXAMPLE
    tokens = min(tokens, position_limit(model))
    example = {name: torch.ones(texts, tokens, dtype=torch.long) for name in INPUTS}
    front_end = FrontEndManager().load_by_framework("pytorch")
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that lengths and masks other than the example's may differ: it is tried below
        traced: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
            _Logits(model).eval(), example_kwarg_inputs=example, strict=False, check_trace=False
        )
        # Freezing takes several times as long as all the rest, and changes nothing of what comes of it.
        decoder = TorchScriptPythonDecoder(traced, skip_freeze=True)  # the front end does not keep it alive
        converted = front_end.convert(front_end.load(decoder))
    converted.reshape({place: [-1, -1] for place in range(len(INPUTS))})
    return converted


def _compiled(converted: Any, precision: str) -> Any:
    return _openvino().Core().compile_model(converted, "CPU", _options(precision))


def _options(precision: str) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, on as many cores as torch has
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }


def _openvino() -> Any:
    # Without these tools it imports as well, and reports to nobody that it was: they send an event, convert_model more.
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
    import openvino

    return openvino
