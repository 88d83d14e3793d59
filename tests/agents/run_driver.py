"""Does a whole run of the scripted agent; test_replay.py starts it and may kill it.

python run_driver.py RUNS PORT (starts a run in RUNS, or resumes the one that is there)
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from agents import scripted
from agents.lives import serve
from harness.agents import AGENTS
from harness.core.asked import Asked
from harness.launch.run import resume, start
from harness.search import local

runs, scripted.Scripted.port = Path(sys.argv[1]), int(sys.argv[2])
AGENTS.ours["scripted"], local.judge = scripted.Scripted, scripted.judge
asked = Asked(task="toy", agent="scripted", profile="test", steps=6, sandbox="process")
quiet = {"progress": lambda *_: None, "observe": lambda *_: None}


def work() -> None:
    begun = [path for path in runs.glob("*") if (path / "run.toml").exists()]
    result = resume(begun[0], **quiet) if begun else start(asked, runs, **quiet)
    assert result["nodes"]["scored"] == 6


serve(work)
