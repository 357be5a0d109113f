"""OpenAI's form of batches: a file of requests goes up, a file of answers and one of errors come down.

Azure, Groq, vLLM's and SGLang's gateways and others speak it, and Together in a variant: other upload, statuses in
capitals, no metadata, the job inside `job` (docs.together.ai/reference/batch-create).
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import quote

from .job import Form, Job, Json, Result, State, Upload, number

URL = "/v1/chat/completions"
# The name of our entry in `metadata`.
SHARD = "teamsrl_shard"
_STATES = dict.fromkeys(
    ("validating", "queued", "pending", "running", "in_progress", "finalizing", "cancelling"), State.RUNNING
)
_STATES |= {"completed": State.COMPLETED, "expired": State.EXPIRED, "failed": State.FAILED}
_STATES |= {"cancelled": State.CANCELLED, "canceled": State.CANCELLED}
# Codes of lines that were not run.
_NOT_RUN = ("batch_expired", "batch_cancelled", "batch_canceled")


def _line(name: str, body: Json) -> dict[str, Any]:
    return {"custom_id": name, "method": "POST", "url": URL, "body": body}


def _creation(shard: str, file_id: str | None, requests: Sequence[Json]) -> dict[str, Any]:
    window = {"endpoint": URL, "completion_window": "24h"}
    return {"input_file_id": file_id, **window, "metadata": {SHARD: shard}}


def _creation_without_metadata(shard: str, file_id: str | None, requests: Sequence[Json]) -> dict[str, Any]:
    return {name: value for name, value in _creation(shard, file_id, requests).items() if name != "metadata"}


def read_job(answer: Json) -> Job:
    """The job in a provider's answer.

    >>> job = read_job({"job": {"id": "b1", "status": "IN_PROGRESS", "input_file_id": "f1"}, "warning": ""})
    >>> job.state, job.file_id, job.results
    (<State.RUNNING: 1>, 'f1', ())
    """
    job = answer.get("job") or answer
    status, counts = str(job["status"]).lower(), job.get("request_counts") or {}
    files = [job.get(f"{kind}_file_id") for kind in ("output", "error")]
    done = number(counts.get("completed")) + number(counts.get("failed"))
    return Job(
        str(job["id"]),
        status,
        _STATES.get(status, State.UNKNOWN),
        done,
        number(counts.get("total")),
        (job.get("metadata") or {}).get(SHARD),
        job.get("input_file_id"),
        tuple(f"files/{quote(str(file), safe='')}/content" for file in files if file),
        _problem(job),
        timestamp(job.get("created_at")),
    )


def _problem(job: Json) -> str:
    errors = job.get("errors") or job.get("error") or ""
    said = errors.get("data") if isinstance(errors, dict) else errors
    if not isinstance(said, list):
        return str(said or "")
    parts = [" ".join(str(one[name]) for name in ("code", "message") if one.get(name)) for one in said]
    return "; ".join(dict.fromkeys(parts))


def _read_result(line: Json) -> Result:
    response, error = line.get("response"), line.get("error")
    name = str(line.get("custom_id"))
    if isinstance(response, dict) and isinstance(response.get("body"), dict):
        return Result(name, number(response.get("status_code")) or 200, response["body"])
    code = error.get("code") if isinstance(error, dict) else None
    return Result(name, 0 if code in _NOT_RUN else 500, {"error": error})


def timestamp(value: object) -> float:
    """Seconds since 1970 of a number or of a time as text; 0 where it is neither.

    >>> timestamp(1_700_000_000), timestamp("2024-08-20T18:37:24.100435Z"), timestamp(None)
    (1700000000.0, 1724179044.100435, 0.0)
    """
    try:
        return float(value) if isinstance(value, int | float) else datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        return 0.0


FILES = Form(
    "files",
    "batches",
    Upload("files", {"purpose": "batch"}),
    {},
    None,
    "after",
    True,
    dict,
    _line,
    _creation,
    read_job,
    _read_result,
)
TOGETHER = replace(
    FILES,
    upload=Upload("files/upload", {"purpose": "batch-api", "file_type": "jsonl"}, "file_name"),
    creation=_creation_without_metadata,
)
