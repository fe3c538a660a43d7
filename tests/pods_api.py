"""A stand-in for the part of the Kubernetes API that training needs: pods, their logs and events.

It answers over HTTP as the API server does (names are unique, deletion has a grace period and preconditions, logs have
time stamps) and plays kubelet: a pod's command runs as a process of this machine, gets SIGTERM when the pod is deleted
and SIGKILL after its grace period. Faults are injected by the methods of Cluster.

What it does not show: that an image can be pulled and has what the command needs; that a node, a GPU or a volume is
there; that limits, security contexts, quotas, admission and RBAC do what they say (any pod is taken if the request has
the right token); how long a real scheduler, kubelet or node controller takes, and in which order their changes become
visible; that workload identity or a secret really opens S3. docs/kubernetes.md has the checklist that shows those on a
real cluster.
"""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.programs import Program

TOKEN = "the-token-of-the-kubernetes-connection"
NODE = "gpu-node-1"
Json = dict[str, Any]


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Cluster:
    """One cluster with one node.

    ``secrets`` are its Kubernetes secrets. ``created`` keeps the manifest of each pod that ever was. ``next_fault``
    makes the next pod stay Pending: "unschedulable", "gated" (in a queue), "image" or "held" (its container is being
    created for ever).
    """

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, str]] = {}
        self.created: list[Json] = []
        self.events: list[Json] = []
        self.next_fault = ""
        self.failing_requests = 0  # so many requests from now are answered with 500
        self._pods: dict[str, _Pod] = {}
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    @contextmanager
    def running(self) -> Iterator["Cluster"]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            for pod in list(self._pods.values()):
                pod.kill()

    @property
    def kubeconfig(self) -> Json:
        """What a connection to this cluster holds."""
        server = f"http://127.0.0.1:{self._server.server_port}"
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "stand-in", "cluster": {"server": server}}],
            "users": [{"name": "airflow", "user": {"token": TOKEN}}],
            "contexts": [{"name": "stand-in", "context": {"cluster": "stand-in", "user": "airflow"}}],
            "current-context": "stand-in",
        }

    @property
    def connection(self) -> str:
        """The Airflow connection, as the value of AIRFLOW_CONN_KUBERNETES_DEFAULT."""
        return json.dumps(
            {"conn_type": "kubernetes", "extra": {"kube_config": self.kubeconfig, "namespace": "training"}}
        )

    # What a test looks at.

    @property
    def pods(self) -> list[Json]:
        """All pods that are there, as the API shows them."""
        with self._lock:
            return [pod.manifest for pod in self._pods.values()]

    def log(self, name: str) -> str:
        return "\n".join(line for _, line in self._pods[name].lines) if name in self._pods else ""

    # Faults.

    def evict(self, name: str) -> None:
        """The node runs out of a resource: kubelet kills the container, the failed pod stays."""
        self._pods[name].end_by_kubelet("Evicted", "The node was low on resource: ephemeral-storage.")

    def preempt(self, name: str) -> None:
        """The scheduler makes room: the pod is told why and deleted with its grace period."""
        pod = self._pods[name]
        pod.disrupt("PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod")
        pod.delete(None)

    def out_of_memory(self, name: str) -> None:
        pod = self._pods[name]
        pod.killed_for = "OOMKilled"
        pod.kill()

    def lose_node(self, name: str) -> None:
        """The node is cut off: the pod is marked for deletion, but nobody can stop its process or say that it ended."""
        pod = self._pods[name]
        pod.lost = True
        pod.disrupt("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
        pod.delete(0)

    def remove_node(self, name: str) -> None:
        """The lost node is deleted from the cluster, and its pods with it."""
        pod = self._pods[name]
        pod.lost = False
        pod.kill()
        self.collect(name)

    def collect(self, name: str) -> None:
        """The pod's object goes, as by garbage collection."""
        with self._lock:
            self._pods.pop(name, None)

    # The API.

    def create(self, manifest: Json) -> Json:
        with self._lock:
            name = manifest["metadata"]["name"]
            if name in self._pods:
                raise Refused(409, f'pods "{name}" already exists')
            self.created.append(manifest)
            pod = self._pods[name] = _Pod(self, manifest, self.next_fault)
            self.next_fault = ""
        pod.start()
        return pod.manifest

    def read(self, name: str) -> "_Pod":
        with self._lock:
            if name not in self._pods:
                raise Refused(404, f'pods "{name}" not found')
            return self._pods[name]

    def delete(self, name: str, options: Json) -> Json:
        pod = self.read(name)
        wanted = (options.get("preconditions") or {}).get("uid")
        if wanted not in (None, pod.manifest["metadata"]["uid"]):
            raise Refused(409, f"Precondition failed: UID in precondition: {wanted}")
        pod.delete(options.get("gracePeriodSeconds"))
        return pod.manifest


class _Pod:
    """A pod and the process that is its container."""

    def __init__(self, cluster: Cluster, manifest: Json, fault: str) -> None:
        self.cluster = cluster
        self.fault = fault
        self.lost = False
        self.killed_for = ""
        self.process: Program | subprocess.Popen[str] | None = None
        self.lines: list[tuple[str, str]] = []
        metadata = manifest["metadata"] | {"uid": str(uuid.uuid4()), "creationTimestamp": _now()}
        self.manifest: Json = manifest | {"metadata": metadata, "status": {"phase": "Pending", "conditions": []}}

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def container(self) -> Json:
        (container,) = self.manifest["spec"]["containers"]
        return dict(container)

    @property
    def status(self) -> Json:
        status: Json = self.manifest["status"]
        return status

    def start(self) -> None:
        if self.fault == "unschedulable":
            self._condition(
                "PodScheduled", "False", "Unschedulable", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
            )
            return
        if self.fault == "gated":
            self._condition("PodScheduled", "False", "SchedulingGated", "non-empty scheduling gates")
            return
        self._condition("PodScheduled", "True", "", "")
        self.manifest["spec"]["nodeName"] = NODE
        missing = [one for one in self._secret_names() if one not in self.cluster.secrets]
        if self.fault == "image":
            self._waiting("ImagePullBackOff", f'Back-off pulling image "{self.container["image"]}": not found')
        elif self.fault == "held":
            self._waiting("ContainerCreating", "")
            self._event("FailedMount", "MountVolume.SetUp failed for volume scratch")
            self._event("FailedScheduling", "0/3 nodes are available", seconds_ago=60)
        elif missing:
            self._waiting("CreateContainerConfigError", f'secret "{missing[0]}" not found')
        else:
            self._run()

    def delete(self, grace_seconds: int | None) -> None:
        metadata, spec = self.manifest["metadata"], self.manifest["spec"]
        grace = spec.get("terminationGracePeriodSeconds", 30) if grace_seconds is None else grace_seconds
        if "deletionTimestamp" not in metadata:
            metadata["deletionTimestamp"] = _now(grace)
            metadata["deletionGracePeriodSeconds"] = grace
        if self.lost:
            return
        if self.process is None or self.process.poll() is not None:
            self.cluster.collect(self.name)
            return
        self.process.send_signal(signal.SIGTERM)
        killer = threading.Timer(max(grace, 1), self.kill)
        killer.daemon = True
        killer.start()

    def end_by_kubelet(self, reason: str, message: str) -> None:
        self.disrupt("TerminationByKubelet", message)
        self.status.update(reason=reason, message=message)
        self.kill()

    def disrupt(self, reason: str, message: str) -> None:
        self._condition("DisruptionTarget", "True", reason, message)

    def kill(self) -> None:
        if self.process is not None:
            for kill in (os.kill, os.killpg):  # one that has only just begun leads no group yet
                with suppress(ProcessLookupError):
                    kill(self.process.pid, signal.SIGKILL)

    def _run(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="pod-")
        command, environment = [*self.container["command"], *self.container["args"]], self._environment(scratch.name)
        if command[:2] == ["python", "-m"]:
            self.process = Program(*command[2:], env=environment)
        else:
            self.process = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
        self._container_state({"running": {"startedAt": _now()}})
        self.status["phase"] = "Running"
        threading.Thread(target=self._follow, args=(self.process, scratch), daemon=True).start()

    def _follow(self, process: Program | subprocess.Popen[str], scratch: "tempfile.TemporaryDirectory[str]") -> None:
        assert process.stdout is not None
        with scratch, process.stdout:
            for line in process.stdout:
                self.lines.append((_stamp(), line.rstrip("\n")))
            self._ended(process.wait())

    def _ended(self, code: int) -> None:
        if self.lost:
            return
        code = code if code >= 0 else 128 - code
        last = "\n".join(line for _, line in self.lines[-80:])[-2048:] if code else ""
        reason = self.killed_for or ("Error" if code else "Completed")
        state = {"exitCode": code, "reason": reason, "message": last, "finishedAt": _now()}
        with self.cluster._lock:
            self._container_state({"terminated": state})
            self.status["phase"] = "Failed" if code or self.status.get("reason") else "Succeeded"
            if "deletionTimestamp" in self.manifest["metadata"]:
                self.cluster.collect(self.name)

    def _secret_names(self) -> list[str]:
        return [one["secretRef"]["name"] for one in self.container.get("envFrom", [])]

    def _environment(self, scratch: str) -> dict[str, str]:
        """What the pod says, and of this machine's what an image would have."""
        image = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        secrets = {key: value for name in self._secret_names() for key, value in self.cluster.secrets[name].items()}
        own = {one["name"]: one["value"].replace("/scratch", scratch) for one in self.container["env"]}
        return image | {"NO_PROXY": "127.0.0.1"} | secrets | own

    def _waiting(self, reason: str, message: str) -> None:
        self._container_state({"waiting": {"reason": reason, "message": message}})

    def _container_state(self, state: Json) -> None:
        container = {"name": self.container["name"], "image": self.container["image"], "imageID": "", "state": state}
        self.status["containerStatuses"] = [container | {"ready": "running" in state, "restartCount": 0}]

    def _condition(self, kind: str, status: str, reason: str, message: str) -> None:
        self.status["conditions"].append({"type": kind, "status": status, "reason": reason, "message": message})

    def _event(self, reason: str, message: str, seconds_ago: int = 0) -> None:
        name, moment = f"{self.name}.{len(self.cluster.events)}", _now(-seconds_ago)
        metadata = {"name": name, "namespace": "training", "creationTimestamp": moment}
        involved = {"kind": "Pod", "name": self.name}
        what = {"type": "Warning", "reason": reason, "message": message, "lastTimestamp": moment}
        self.cluster.events.append({"metadata": metadata, "involvedObject": involved} | what)


def _handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(self._get)

        def do_POST(self) -> None:
            self._answer(lambda path, _, body: (201, cluster.create(body)))

        def do_DELETE(self) -> None:
            self._answer(lambda path, _, body: (200, cluster.delete(path[-1], body)))

        def _get(self, path: list[str], query: dict[str, str], body: Json) -> tuple[int, Json | str]:
            if path[-1] == "events":
                name = query["fieldSelector"].removeprefix("involvedObject.name=")
                items = [event for event in cluster.events if event["involvedObject"]["name"] == name]
                return 200, {"kind": "EventList", "apiVersion": "v1", "metadata": {}, "items": items}
            if path[-1] == "pods":
                label, value = query["labelSelector"].split("=")
                items = [pod for pod in cluster.pods if pod["metadata"].get("labels", {}).get(label) == value]
                return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}
            if path[-1] == "log":
                pod = cluster.read(path[-2])
                if pod.process is None:
                    raise Refused(400, "container is waiting to start")
                since = _stamp(-int(query["sinceSeconds"])) if "sinceSeconds" in query else ""
                return 200, "".join(f"{stamp} {line}\n" for stamp, line in list(pod.lines) if stamp >= since)
            return 200, cluster.read(path[-1]).manifest

        def _answer(self, method: Any) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
            try:
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    raise Refused(401, "Unauthorized")
                if cluster.failing_requests > 0:
                    cluster.failing_requests -= 1
                    raise Refused(500, "etcdserver: request timed out")
                code, content = method(parts.path.split("/"), query, body)
            except Refused as refused:
                code, content = refused.code, {"kind": "Status", "status": "Failure", "message": str(refused)}
            text = content if isinstance(content, str) else json.dumps(content)
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            """Tests have logs enough."""

    return Handler


def _now(seconds: float = 0) -> str:
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def _stamp(seconds: int = 0) -> str:
    """As kubelet writes it before each line of a log."""
    whole, fraction = divmod(time.time_ns(), 10**9)
    return f"{datetime.fromtimestamp(whole + seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
