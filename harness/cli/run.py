"""``harness run``: turns options into a request. ``harness.launch.run`` starts the run."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harness.base.durations import parse_duration
from harness.base.errors import ConfigError
from harness.cli.common import (
    RUNS_DIR,
    AgentsFile,
    AsJson,
    ByteCountsOption,
    Data,
    RunsDir,
    TasksDir,
    absolute,
    chosen_data,
    guarded,
    print_json,
)
from harness.cli.names import EXECUTORS, SANDBOXES, one_of
from harness.cli.screen import Screen
from harness.core.asked import Asked
from harness.core.writing import Writing
from harness.launch.run import start
from harness.operators.literature import shipped
from harness.report.summary import summarize
from harness.store.reading import read_as
from tasks.spec import Task, find_task

budget = partial(typer.Option, rich_help_panel="Budgets")
model = partial(typer.Option, rich_help_panel="Agents with a model")

OPTIONS = {
    "time_s": "time",
    "workers": "parallel",
    "settings": "setting",
    "dollars": "max_dollars",
    "input_tokens": "max_input_tokens",
    "output_tokens": "max_output_tokens",
}
"""Field of the request -> name of its option, where the two differ."""


@guarded
def command(
    context: typer.Context,
    task: Annotated[str, typer.Option(help="What is to be written, e.g. lra/listops.")] = "",
    agent: Annotated[
        str, typer.Option(help="Who writes: a model (harness agents), reference, replay:RUN …")
    ] = "reference",
    policy: Annotated[str, typer.Option(help="The search (harness policies).")] = "greedy",
    profile: Annotated[
        str, typer.Option(help="The size: smoke (2 CPU cores), short (a GPU), paper, test.")
    ] = "smoke",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Nodes to evaluate (default: the profile's).")
    ] = None,
    time: Annotated[str, typer.Option(help="Start no node after this long.")] = "24h",
    seed: Annotated[int, typer.Option(min=0, help="Decides everything random.")] = 0,
    parallel: Annotated[
        int, typer.Option(min=1, max=64, help="Nodes written and evaluated at once.")
    ] = 1,
    sandbox: Annotated[
        str, one_of(SANDBOXES, help="Where submissions run; process does not isolate.")
    ] = "auto",
    executor: Annotated[
        str, one_of(EXECUTORS, help="Who finds a place for each evaluation: local is this machine.")
    ] = "local",
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="POLICY.NAME=VALUE", help="A policy parameter: greedy.num_drafts=3."
        ),
    ] = None,
    max_dollars: Annotated[
        float | None, budget(min=0.0001, help="Send no call that could cost more in all.")
    ] = None,
    max_input_tokens: Annotated[
        int | None, budget(min=1, help="The same for tokens in, cached ones included.")
    ] = None,
    max_output_tokens: Annotated[
        int | None, budget(min=1, help="The same for tokens out, reasoning included.")
    ] = None,
    gpu_hours: Annotated[
        float | None, budget(min=0.0001, help="Start no node after this much evaluation.")
    ] = None,
    charge_waiting: Annotated[
        bool, budget("--charge-waiting", help="Waiting for GPUs and providers is time too.")
    ] = False,
    on_divergence: Annotated[
        Literal["stop", "live"],
        typer.Option(help="Where a replay differs: stop, or ask the real model from there on."),
    ] = "stop",
    base_url: Annotated[
        str | None, model(help="A server of your own: http://127.0.0.1:8000/v1.")
    ] = None,
    effort: Annotated[str | None, model(help="How hard the model thinks (harness agents).")] = None,
    temperature: Annotated[float | None, model(help="Where the model takes one.")] = None,
    max_answer_tokens: Annotated[
        int | None, model(min=1, help="Tokens of one answer, reasoning included.")
    ] = None,
    agents_file: AgentsFile = None,
    prompts: Annotated[
        Path | None, model(help="A folder with prompt templates of your own.")
    ] = None,
    literature: Annotated[
        str | None,
        model(metavar="DIR|shipped", help="Notes on papers that the model may draw from."),
    ] = None,
    answer_format: Annotated[
        Literal["whole", "edits"], model(help="How files are improved and debugged.")
    ] = "whole",
    analyze: Annotated[
        bool, model("--analyze", help="One more short call a node: what it teaches.")
    ] = False,
    complexity: Annotated[
        bool, model("--complexity", help="Ask for simple ideas first, then for richer ones.")
    ] = False,
    blind: Annotated[
        bool,
        model("--blind", help="Tell it no name of the task and its layers (compose tasks)."),
    ] = False,
    data: Data = None,
    byte_counts: ByteCountsOption = None,
    asked: Annotated[
        Path | None,
        typer.Option(
            metavar="run.toml",
            help="Ask what this file asks; options given beside it go before.",
        ),
    ] = None,
    tasks_dir: TasksDir = None,
    runs_dir: RunsDir = RUNS_DIR,
    name: Annotated[
        str, typer.Option(help="The run directory's name (default: date, task, agent …).")
    ] = "",
    json: AsJson = False,
) -> int:
    """Search: an agent writes submissions, a blind judge scores them, the best is tested once."""
    from_file = read_as(Asked, asked, follow=True) if asked else None
    if not task and from_file is None:
        raise ConfigError("No task was named.", remedy="--task TASK (harness tasks)")
    chosen = find_task(task or (from_file.task if from_file else ""))
    wanted = Asked(
        task=chosen.name,
        agent=agent,
        policy=policy,
        profile=profile,
        steps=steps or 0,
        time_s=parse_duration(time),
        seed=seed,
        workers=parallel,
        sandbox=sandbox,
        executor=executor,
        settings=tuple(setting or ()),
        data=chosen_data(chosen, data, byte_counts),
        gpu_hours=gpu_hours,
        input_tokens=max_input_tokens,
        output_tokens=max_output_tokens,
        dollars=max_dollars,
        charge_waiting=charge_waiting,
        on_divergence=on_divergence,
        writing=Writing(
            base_url=base_url,
            effort=effort,
            temperature=temperature,
            max_answer_tokens=max_answer_tokens,
            agents_file=_absolute(agents_file),
            prompts=_absolute(prompts),
            literature=_notes(literature, chosen),
            answer_format=answer_format,
            analyze=analyze,
            complexity=complexity,
            blind=blind,
        ),
    )
    if from_file is not None and asked is not None:
        wanted = _over(_placed(from_file, absolute(asked).parent, chosen), wanted, context)
    with Screen() as screen:
        result = start(
            wanted, runs_dir, name=name, progress=screen.progress, observe=screen.observe
        )
    return report(result, as_json=json)


def _placed(from_file: Asked, beside: Path, task: Task) -> Asked:
    """Return a file's request with its folders made absolute, relative to ``beside``."""
    data = from_file.data | chosen_data(task, from_file.data.get("source"), None, beside=beside)
    folders = {n: absolute(beside / v) for n, v in from_file.writing if isinstance(v, Path)}
    writing = from_file.writing.model_copy(update=folders)
    return from_file.model_copy(update={"data": data, "writing": writing})


def _over(from_file: Asked, typed: Asked, context: typer.Context) -> Asked:
    """Return a file's request, with the options given as arguments or in the environment."""

    def given(field: str) -> bool:
        source = context.get_parameter_source(OPTIONS.get(field, field))
        return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")

    values = {name: value for name, value in typed if given(name)}
    writing = {name: value for name, value in typed.writing if given(name)}
    return from_file.model_copy(
        update={
            **values,
            "data": from_file.data | typed.data,
            "writing": from_file.writing.model_copy(update=writing),
        }
    )


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else absolute(path)


def _notes(literature: str | None, task: Task) -> Path | None:
    """Return the folder with notes on papers; ``shipped`` means the task's own notes."""
    if literature != "shipped":
        return _absolute(Path(literature)) if literature else None
    found = shipped(task)
    if found is None:
        raise ConfigError(f"Task {task.name} comes with no notes.", remedy="--literature DIR")
    return found


def report(result: dict[str, Any], *, as_json: bool) -> int:
    """Print how a run ended; return the exit code."""
    if as_json:
        print_json(result)
    else:
        typer.echo(summarize(result))
    return 0 if result["valid"] else 1
