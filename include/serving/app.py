"""The HTTP interface: our own, the Open Inference Protocol (v2) and MLflow's scoring protocol."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from include.serving.access import OPEN, Access, BodyLimit, Refused
from include.serving.metrics import Metrics
from include.serving.prediction_log import Said
from include.serving.server import ModelServer
from include.serving.wire import (
    Candidate,
    Compared,
    CompareRequest,
    FeedbackRequest,
    FeedbackResponse,
    InferRequest,
    InferResponse,
    Prediction,
    PredictRequest,
    PredictResponse,
    SampleRequest,
    SampleResponse,
    Tensor,
    WireError,
    mlflow_texts,
)

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request is not understood, and why"},
    401: {"description": "A token is needed"},
    404: {"description": "There is no such model here"},
    413: {"description": "Too many texts, or too large"},
    429: {"description": "More waits than can be answered soon; Retry-After says when"},
    503: {"description": "No version answers yet"},
}
MLFLOW_EXAMPLE = {"dataframe_split": {"columns": ["text"], "data": [["my card has not arrived yet"]]}}


def build(server: ModelServer) -> FastAPI:
    """The application of a server; its start and stop are the server's."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        await server.start()
        yield
        await server.stop()

    app = FastAPI(
        title="BERT classifier",
        description="Answers with the version that the registry's alias `champion` points at.",
        version="1",
        lifespan=life,
    )
    app.add_middleware(Watched, access=Access(server.config), metrics=server.metrics)
    app.add_middleware(BodyLimit, most_bytes=server.config.most_kib * 1024)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(WireError, _not_understood)
    for router in (_own(server), _open_inference(server), _mlflow(server), _about(server)):
        app.include_router(router)
    return app


class Watched:
    """Lets in who may ask, and counts all requests. It is plain ASGI: Starlette's own way takes a task for each."""

    def __init__(self, app: ASGIApp, access: Access, metrics: Metrics) -> None:
        self._app, self._access, self._metrics = app, access, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's own."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500  # unless an answer begins with another

        async def sent(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            if scope["path"] not in OPEN:
                self._access.check(Headers(scope=scope).get("authorization", ""))
            await self._app(scope, receive, sent)
        except Refused as refused:
            await _error(refused.status_code, str(refused.detail), dict(refused.headers or {}))(scope, receive, sent)
        finally:
            path = getattr(scope.get("route"), "path", "other")  # never the caller's own words: each is a time series
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.labels(path).observe(time.monotonic() - began)


def _own(server: ModelServer) -> APIRouter:
    router = APIRouter(tags=["predict"], responses=ERRORS)

    @router.post("/predict")
    async def predict(request: PredictRequest) -> PredictResponse:
        """Labels texts, each with its probability and the `top_k` most probable labels."""
        said = await server.say(request.model, request.texts, request.ids)
        return PredictResponse(model=said.model, version=said.version, predictions=_predictions(said, request.top_k))

    @router.post("/compare")
    async def compare(request: CompareRequest) -> list[Compared]:
        """What each version that is loaded says to a text, first the one that answers: a trial that is not logged."""
        found = await server.compare(request.model, [request.text])
        return [
            Compared(version=said.version, role=said.role, top=_predictions(said, request.top_k)[0].top)
            for said in found
        ]

    @router.post("/feedback")
    async def feedback(request: FeedbackRequest) -> FeedbackResponse:
        """Keeps what an answer should have been."""
        await asyncio.to_thread(server.keep_feedback, request)
        return FeedbackResponse(prediction_id=request.prediction_id)

    @router.post("/sample")
    async def sample(request: SampleRequest) -> SampleResponse:
        """Texts that were answered, chosen at random, to be labelled: by these labels accuracy is told."""
        return await asyncio.to_thread(server.draw, request)

    return router


def _open_inference(server: ModelServer) -> APIRouter:
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

    @router.get("")
    async def metadata() -> dict[str, Any]:
        return {"name": "bert", "version": "1", "extensions": []}

    @router.get("/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready", responses={503: {"description": "A model has no version that answers"}})
    async def ready(response: Response) -> dict[str, Any]:
        return _readiness(server, response)

    @router.get("/models/{name}", responses={404: ERRORS[404], 503: ERRORS[503]})
    async def model(name: str) -> dict[str, Any]:
        engine = server.engine(name)
        outputs = [
            ("label", "BYTES", [-1]),
            ("probability", "FP32", [-1]),
            ("probabilities", "FP32", [-1, len(engine.labels)]),
        ]
        return {
            "name": name,
            "versions": [engine.version],
            "platform": "pytorch_transformers",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in outputs],
            "parameters": {"labels": engine.labels, "max_length": engine.max_length},
        }

    @router.get("/models/{name}/ready", responses={404: ERRORS[404], 503: ERRORS[503]})
    async def model_ready(name: str) -> dict[str, Any]:
        return {"name": name, "version": server.engine(name).version, "ready": True}

    @router.post("/models/{name}/infer", responses=ERRORS)
    async def infer(name: str, request: InferRequest) -> InferResponse:
        said = await server.say(name, request.texts())
        outputs = _tensors(said)
        wanted = {output.get("name") for output in request.outputs or []} or {output.name for output in outputs}
        parameters = {"prediction_ids": said.ids, "labels": said.labels, "cut": said.cut}
        return InferResponse(
            model_name=said.model,
            model_version=said.version,
            id=request.id,
            parameters=parameters,
            outputs=[output for output in outputs if output.name in wanted],
        )

    return router


def _tensors(said: Said) -> list[Tensor]:
    """Answers as the Open Inference Protocol has them."""
    rows, columns = said.probabilities.shape
    numbers = said.probabilities.ravel().tolist()
    return [
        Tensor(name="label", shape=[rows], datatype="BYTES", data=said.predicted),
        Tensor(name="probability", shape=[rows], datatype="FP32", data=said.certainty),
        Tensor(name="probabilities", shape=[rows, columns], datatype="FP32", data=numbers),
    ]


def _mlflow(server: ModelServer) -> APIRouter:
    router = APIRouter(tags=["MLflow"])

    @router.get("/ping")
    @router.get("/health")
    async def ping(response: Response) -> dict[str, Any]:
        return _readiness(server, response)

    @router.post("/invocations", responses=ERRORS)
    async def invocations(
        request: Request, body: Annotated[Any, Body(openapi_examples={"frame": {"value": MLFLOW_EXAMPLE}})] = None
    ) -> dict[str, Any]:
        texts = mlflow_texts(await request.body(), request.headers.get("content-type", ""))
        said = await server.say(None, texts)
        return {"predictions": said.predicted}

    return router


def _about(server: ModelServer) -> APIRouter:
    router = APIRouter(tags=["about"])

    @router.get("/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/ready", responses={503: {"description": "A model has no version that answers"}})
    async def ready(response: Response) -> dict[str, Any]:
        return _readiness(server, response)

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        server.metrics.waiting_tokens.set(server.batcher.waiting_tokens)
        server.metrics.log_waiting.set(server.log.waiting_rows)
        server.metrics.log_lost.set(server.log.lost_rows)
        return Response(generate_latest(server.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _predictions(said: Said, top_k: int) -> list[Prediction]:
    order = (-said.probabilities).argsort(-1)[:, :top_k]
    found = []
    for row, indices in enumerate(order.tolist()):
        top = [
            Candidate(label=said.labels[index], probability=float(said.probabilities[row, index])) for index in indices
        ]
        found.append(
            Prediction(id=said.ids[row], label=top[0].label, probability=top[0].probability, top=top, cut=said.cut[row])
        )
    return found


def _readiness(server: ModelServer, response: Response) -> dict[str, Any]:
    models = server.readiness()
    ready = all(one["version"] for one in models.values())
    response.status_code = 200 if ready else 503
    return {"ready": ready, "models": models}


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail), dict(error.headers or {}))


async def _not_understood(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        return _error(400, str(error))
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _error(400, f"the body is no JSON: {first['ctx']['error']}, at character {first['loc'][-1]}")
    where = ".".join(str(part) for part in first["loc"][1:]) or "the body"
    return _error(400, f"{where}: {first['msg']}")
