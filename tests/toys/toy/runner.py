"""The runner of the toy task, as small as possible. Runs inside the sandbox; trains nothing."""

import json
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from candidate import Link  # noqa: E402


def main() -> int:
    config = json.loads(Path(sys.argv[1]).read_text())
    link = Link.connect(config["paths"]["socket"])
    source = (Path(config["paths"]["submission"]) / "model.py").read_text()
    module: dict = {"link": link, "config": config, "__name__": "model"}
    try:
        exec(compile(source, "model.py", "exec"), module)  # noqa: S102 (this runs in the sandbox)
        for step in range(config["settings"]["steps"]):
            link.progress(step, config["settings"]["steps"], 1.0, every_s=0.0)
            time.sleep(module.get("STEP_S", 0.0))
        link.serve(module["predict"], claim={"parameters": 0})
    except SyntaxError as error:
        link.fail("syntax_error", str(error))
        return 1
    except Exception:
        text = traceback.format_exc()
        print(text, file=sys.stderr)
        link.fail("runtime_error", text)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
