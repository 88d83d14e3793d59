// The theme, and which node is chosen: by a click in the list or on the map, by keys, by #0/12.
const theme = document.getElementById("theme");
const isDark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const label = () => {
  theme.textContent = isDark() ? "light" : "dark";
  theme.setAttribute("aria-label", `switch to ${theme.textContent} colours`);
};
theme.hidden = false;
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  label();
});
label();

const block = document.getElementById("payload");
const kept = { tab: "" };
let data = null;

const select = (key, focus) => {
  const row = document.querySelector(`li[data-node="${CSS.escape(key)}"]`);
  if (!row || !data) return;
  const [run, number] = key.split("/").map(Number);
  const nodes = data.byNumber[run];
  const node = nodes.get(number);
  if (!node) return;
  const tree = row.closest(".tree");
  tree.open = true;
  for (const other of tree.querySelectorAll('[role="treeitem"]')) {
    other.setAttribute("aria-selected", other === row);
    other.tabIndex = other === row ? 0 : -1;
  }
  for (const mark of tree.querySelectorAll("circle[data-node]")) mark.classList.toggle("on", mark.dataset.node === key);
  let path = "";
  for (let at = node; at && at.parents.length; at = nodes.get(at.parents[0])) {
    const parent = nodes.get(at.parents[0]);
    if (parent) path += `M${parent.x} ${parent.y}L${at.x} ${at.y}`;
  }
  tree.querySelector(".edge.chosen").setAttribute("d", path);
  if (focus) row.focus();
  // Only the list scrolls, never the page.
  const list = row.parentElement;
  const top = row.offsetTop - list.offsetTop;
  if (top < list.scrollTop || top + row.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top - list.clientHeight / 2;
  show(tree.querySelector(".detail"), node, nodes.get(node.parents[0]), (ranges) => joined(data.lines, ranges), kept);
};

const level = (row) => Number(row.getAttribute("aria-level"));
const target = (row, key) => {
  const rows = [...row.parentElement.children];
  const at = rows.indexOf(row);
  switch (key) {
    case "ArrowDown": return rows[at + 1];
    case "ArrowUp": return rows[at - 1];
    case "Home": return rows[0];
    case "End": return rows.at(-1);
    case "ArrowRight": return rows[at + 1] && level(rows[at + 1]) > level(row) ? rows[at + 1] : undefined;
    case "ArrowLeft": return rows.slice(0, at).reverse().find((other) => level(other) < level(row));
    case "Enter": case " ": return row;
  }
};

const follow = () => {
  const found = /^#(\d+\/\d+)$/.exec(location.hash);
  if (found) select(found[1], false);
  return Boolean(found);
};

if (block) {
  for (const tree of document.querySelectorAll(".tree")) {
    tree.addEventListener("click", (event) => {
      const key = event.target.closest("[data-node]")?.dataset.node;
      if (key) select(key, Boolean(event.target.closest("li")));
    });
    tree.querySelector('[role="tree"]').addEventListener("keydown", (event) => {
      const row = event.target.closest("li");
      const next = row && !event.ctrlKey && !event.metaKey && !event.altKey ? target(row, event.key) : undefined;
      if (!next) return;
      event.preventDefault();
      select(next.dataset.node, true);
    });
  }
  unpack(block).then((found) => {
    data = found;
    data.byNumber = data.runs.map((run) => new Map(run.nodes.map((node) => [node.n, node])));
    document.documentElement.dataset.ready = "yes";
    addEventListener("hashchange", follow);
    const best = document.querySelector("circle.node.best[data-node]") ?? document.querySelector("circle[data-node]");
    if (!follow() && best) select(best.dataset.node, false);
  });
}
