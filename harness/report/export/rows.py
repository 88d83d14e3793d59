"""Exports runs as flat rows for data frames, one row per node, also as a Parquet file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.base.errors import ConfigError
from harness.base.files import replacing
from harness.base.text import encodable
from harness.core.tree import Node
from harness.report.drawing.untrusted import text_of
from harness.store.loading import load
from harness.store.state import RunState
from harness.store.tape import CallRecord, Tape

COLUMNS: dict[str, str] = {
    "run": "string",
    "task": "string",
    "profile": "string",
    "agent": "string",
    "policy": "string",
    "seed": "int64",
    "task_hash": "string",
    "data_hash": "string",
    "scorer": "string",
    "hardware": "string",
    "maximize": "bool",
    "final_score": "float64",
    "final_node": "bool",
    "node": "int64",
    "operator": "string",
    "parents": "list<int64>",
    "state": "string",
    "valid": "bool",
    "score": "float64",
    "reason": "string",
    "message": "string",
    "seconds": "float64",
    "note": "string",
    "calls": "int64",
    "input_tokens": "int64",
    "output_tokens": "int64",
    "dollars": "float64",
    "source": "string",
    "prompt": "string",
    "answer": "string",
    "log": "string",
}
"""Name and type of each column. ``dollars`` is null where a price is unknown."""


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a run. Raises ConfigError where it is damaged."""
    run, _, state = load(path)
    asked, lock = run.asked, run.lock
    calls = calls_by_node(path)
    about = {
        "run": run.name,
        "task": asked.task,
        "profile": asked.profile,
        "agent": asked.agent,
        "policy": asked.policy,
        "seed": asked.seed,
        "task_hash": lock.task_hash,
        "data_hash": lock.data_hash,
        "scorer": lock.scorer,
        "hardware": " ".join(map(str, lock.hardware.values())),
        "maximize": lock.maximize,
        "final_score": state.final["score"] if state.final else None,
    }
    for node in state.tree:
        yield {**about, **_node(path, state, node, calls.get(node.number, []))}


def _node(path: Path, state: RunState, node: Node, calls: list[CallRecord]) -> dict[str, Any]:
    folder = f"nodes/{node.number:04d}"
    costs = [call.dollars for call in calls]
    usages = [call.reply.usage for call in calls if call.reply]
    return {
        "final_node": node.number == state.finalist,
        "node": node.number,
        "operator": node.operator,
        "parents": list(node.parents),
        "state": node.state,
        "valid": node.valid,
        "score": node.score,
        "reason": node.reason,
        "message": node.message,
        "seconds": node.seconds,
        "note": node.note,
        "calls": len(calls),
        "input_tokens": sum(u.prompt_tokens for u in usages),
        "output_tokens": sum(u.output_tokens for u in usages),
        "dollars": None if None in costs else sum(c for c in costs if c is not None),
        "source": source_of(node),
        "prompt": text_of(path, f"{folder}/prompt.md"),
        "answer": text_of(path, f"{folder}/completion.md"),
        "log": text_of(path, f"{folder}/stdout.log"),
    }


def source_of(node: Node) -> str:
    """Return a submission as one text; each of several files follows a line with its name."""
    if len(node.files) == 1:
        return next(iter(node.files.values()))
    return "\n".join(f"# {name}\n{text}" for name, text in sorted(node.files.items()))


def calls_by_node(path: Path) -> dict[int, list[CallRecord]]:
    """Return a run's answered calls by node. Raises ConfigError naming a damaged file."""
    found: dict[int, list[CallRecord]] = {}
    for record in Tape(path):
        if record.reply is not None:
            found.setdefault(record.node, []).append(record)
    return found


def as_parquet(paths: list[Path], out: Path) -> tuple[int, dict[str, str]]:
    """Write all runs' nodes into one file; return their number, and why runs were skipped.

    Raises ConfigError where pyarrow is missing, or ``out`` cannot be written.
    """
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError(
            "Parquet needs the package pyarrow.", remedy="pip install 'aira-harness[export]'"
        ) from error
    lists = {"list<int64>": pa.list_(pa.int64())}  # pyarrow knows all other types by name
    schema = pa.schema([(name, lists.get(kind, kind)) for name, kind in COLUMNS.items()])
    count, skipped = 0, {}
    try:
        with (
            replacing(out) as part,
            pq.ParquetWriter(part, schema, compression="zstd") as writer,
        ):
            for path in paths:
                try:
                    found = [
                        {k: encodable(v) if isinstance(v, str) else v for k, v in row.items()}
                        for row in rows(path)
                    ]
                except (ConfigError, RecursionError) as error:
                    skipped[str(path)] = str(error)
                    continue
                writer.write_table(pa.Table.from_pylist(found, schema=schema))
                count += len(found)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{out} cannot be written.", cause=str(error)) from error
    return count, skipped
