"""Exports a run as a log of Inspect (inspect_ai), for its viewer and its data frames.

An evaluation is a run. A sample is a node: the prompts, the responses, and the judge's score on
the search split. The run's own score, on the hidden test split, is the evaluation's metric.
The format is inspect_ai's log format of version 2 (``inspect_ai/log/_log.py``, release 0.3.285).
The package is not imported here; its ``read_eval_log`` reads the file.
"""

import json
import re
from collections import Counter, defaultdict
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness import __version__
from harness.base.errors import ConfigError
from harness.base.files import write_whole
from harness.core.tree import Node
from harness.report.drawing.untrusted import text_of
from harness.report.export.rows import calls_by_node, source_of
from harness.store.journal import Event
from harness.store.loading import load
from harness.store.outcome import Outcome
from harness.store.rundir import Run
from harness.store.state import RunState
from harness.store.tape import CallRecord, Tape

VERSION = 2
SCORER = "harness"
STOPS = {"end": "stop", "length": "max_tokens", "refusal": "content_filter"}
"""Why an answer ended: our word, and Inspect's."""


def as_inspect(paths: list[Path], out: Path) -> tuple[list[Path], dict[str, str]]:
    """Write one log per run into the folder ``out``; return the files, and why runs were skipped.

    Raises ConfigError where ``out`` cannot be written.
    """
    files: list[Path] = []
    skipped: dict[str, str] = {}
    for path in paths:
        try:
            log = log_of(path)
        except (ConfigError, RecursionError) as error:
            skipped[str(path)] = str(error)
            continue
        stamp = re.sub(r"[:+]", "-", log["eval"]["created"])
        task = re.sub(r"[^A-Za-z0-9]+", "-", log["eval"]["task"])
        file = out / f"{stamp}_{task}_{log['eval']['task_id']}.json"
        try:
            write_whole(file, json.dumps(log, indent=1) + "\n", sync=False)
        except OSError as error:
            raise ConfigError(f"{file} cannot be written.", cause=str(error)) from error
        files.append(file)
    return files, skipped


def log_of(path: Path) -> dict[str, Any]:
    """Return a run's log as JSON values. Raises ConfigError where the run is damaged."""
    run, events, state = load(path)
    asked, lock, outcome = run.asked, run.lock, run.outcome
    began, ended = _times(events)
    calls = calls_by_node(path)
    identity = sha256(f"{run.name} {lock.audit_key}".encode()).hexdigest()[:22]
    samples = [_sample(run, state, node, calls.get(node.number, [])) for node in state.tree]
    return {
        "version": VERSION,
        "status": "success" if outcome else "cancelled",
        "eval": {
            "eval_id": identity,
            "run_id": identity,
            "created": began,
            "task": f"{asked.task} {asked.profile}",
            "task_id": identity,
            "task_version": 0,
            "task_args": {"policy": asked.policy, "seed": asked.seed, "steps": asked.steps},
            "dataset": {
                "name": asked.task,
                "samples": len(samples),
                "sample_ids": [s["id"] for s in samples],
                "shuffled": False,
            },
            "model": f"harness/{asked.agent}",
            "model_args": {},
            "config": {"limit": None, "epochs": 1},
            "packages": {"aira-harness": __version__, **lock.versions},
            "metadata": {
                "run": run.name,
                "task_hash": lock.task_hash,
                "data_hash": lock.data_hash,
                "scorer": lock.scorer,
                "sandbox": lock.sandbox,
                "hardware": lock.hardware,
                "direction": lock.direction,
            },
        },
        "plan": {
            "name": asked.policy,
            "steps": [{"solver": asked.policy, "params": lock.policy}],
            "config": {},
        },
        "results": {
            "total_samples": len(samples),
            "completed_samples": len(state.tree.scored()),
            "scores": [_summary(outcome)] if outcome else [],
        },
        "stats": {
            "started_at": began,
            "completed_at": ended,
            "model_usage": _usage([c for found in calls.values() for c in found]),
        },
        "samples": samples,
    }


def _times(events: list[Event]) -> tuple[str, str]:
    """Return the times at which the journal begins and ends, ISO 8601."""
    if not events:
        now = datetime.fromtimestamp(0, UTC).isoformat()
        return now, now
    began, ended = (datetime.fromisoformat(event.at) for event in (events[0], events[-1]))
    return began.isoformat(), ended.isoformat()


def _summary(outcome: Outcome) -> dict[str, Any]:
    values = {"valid": float(outcome.valid)}
    if outcome.score is not None:
        values[outcome.metric] = outcome.score
        if outcome.standard_error is not None:
            values["stderr"] = outcome.standard_error
    return {
        "name": "final, hidden test split",
        "scorer": SCORER,
        "params": {},
        "metrics": {name: {"name": name, "value": v, "params": {}} for name, v in values.items()},
    }


def _sample(run: Run, state: RunState, node: Node, calls: list[CallRecord]) -> dict[str, Any]:
    folder = f"nodes/{node.number:04d}"
    messages = [m for call in calls for m in _messages(run, call)]
    last = calls[-1].reply if calls else None
    answer = last.text if last else source_of(node)
    if not messages:
        # An agent without a model gets no prompt: its submission is exported as the response.
        messages = [
            {"role": "user", "content": f"{node.operator} of {list(node.parents)}"},
            {"role": "assistant", "content": answer, "source": "generate"},
        ]
    return {
        "id": node.number,
        "epoch": 1,
        "input": messages[:-1] if calls else str(messages[0]["content"]),
        "target": "",
        "messages": messages,
        "output": {
            "model": run.asked.agent,
            "choices": [
                {
                    "message": {"role": "assistant", "content": answer, "source": "generate"},
                    "stop_reason": STOPS[last.stop] if last else "stop",
                }
            ],
        },
        "scores": _scores(node) if node.state == "scored" else {},
        "metadata": {
            "operator": node.operator,
            "parents": list(node.parents),
            "note": node.note,
            "knobs": node.knobs,
            "seconds": node.seconds,
            "final": node.number == state.finalist,
            "log": text_of(run.path, f"{folder}/stdout.log"),
        },
        "model_usage": _usage(calls),
        "total_time": node.seconds,
        "uuid": f"{run.name}-{node.number}",
    }


def _scores(node: Node) -> dict[str, Any]:
    return {
        SCORER: {
            "value": "I" if node.score is None else node.score,  # Inspect's letter for incorrect
            "answer": source_of(node),
            "explanation": node.message or node.reason or None,
            "metadata": {"valid": node.valid, "reason": node.reason, "split": "search"},
        }
    }


def _messages(run: Run, call: CallRecord) -> list[dict[str, Any]]:
    prompt = Tape(run.path).prompt(call)
    found: list[dict[str, Any]] = [{"role": "system", "content": prompt.system}]
    found += [{"role": turn.role, "content": turn.text} for turn in prompt.turns]
    if call.reply is not None:
        found.append({"role": "assistant", "content": call.reply.text, "source": "generate"})
    return found


def _usage(calls: list[CallRecord]) -> dict[str, Counter[str]]:
    """Return the tokens of the calls by model, under Inspect's names."""
    usages: dict[str, Counter[str]] = defaultdict(Counter)
    for call in calls:
        if call.reply is None:
            continue
        used = call.reply.usage
        usages[call.reply.model_id].update(
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            total_tokens=used.prompt_tokens + used.output_tokens,
            input_tokens_cache_read=used.cached_tokens,
            input_tokens_cache_write=used.cache_write_tokens,
            reasoning_tokens=used.reasoning_tokens,
        )
    return usages
