"""Makes one model call per node, three at a time; test_calls.py starts it and may kill it.

python calls_driver.py RUN PORT NODES
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from agents.lives import serve
from agents.scripted import HttpClient, endpoint, price
from harness.agents.calls import Calls
from harness.core.budget import Budget, BudgetLimits
from harness.core.model import Prompt, Turn

run, port, nodes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])


def work() -> None:
    known = endpoint(HttpClient(port), price, lambda *_: True)
    calls = Calls(run, budget=Budget(BudgetLimits()), endpoint=known, say=lambda _: None)

    def one(node: int) -> str:
        prompt = Prompt("You write code.", (Turn("user", f"node {node}"),))
        return calls.bind(node).complete(prompt, purpose="draft").text

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(one, range(nodes)))


serve(work)
