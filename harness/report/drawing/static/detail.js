// One node: its head, and a tab for each thing that is known of it.
const words = (text) => make("div", { class: "code words", tabindex: "0", role: "region", "aria-label": "text" }, make("pre", {}, text));

const facts = (rows) => {
  const list = make("dl", { class: "facts" });
  for (const [name, value] of rows) list.append(make("dt", {}, name), make("dd", { class: name }, String(value)));
  return list;
};

const audits = (rows) => {
  const head = make("tr", {}, ...["audit", "verdict", "value", "limit", "what it would see"].map((t) => make("th", { scope: "col" }, t)));
  const body = rows.map(([name, passed, value, limit, power]) =>
    make("tr", {}, make("td", {}, name), make("td", { class: passed ? "good" : "bad" }, passed ? "passed" : "FAILED"),
      make("td", { class: "n" }, value), make("td", { class: "n" }, limit), make("td", {}, power)));
  return make("div", { class: "scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
};

const evidence = (found) => {
  const box = make("div");
  if (found.audits.length) box.append(audits(found.audits));
  box.append(facts(found.facts));
  if (found.claims.length) box.append(make("h3", {}, "What the submission says of itself; nothing is decided by it"), facts(found.claims));
  return box;
};

const parts = (node, parent, text) => {
  const found = [];
  for (const [name, ranges] of Object.entries(node.files)) found.push([name, () => numbered(text(ranges))]);
  if (parent) {
    found.push(["diff to " + parent.n, () => {
      const box = make("div");
      for (const name of new Set([...Object.keys(parent.files), ...Object.keys(node.files)])) {
        const seen = difference(text(parent.files[name] ?? []), text(node.files[name] ?? []));
        if (seen) box.append(make("h3", {}, name), seen);
      }
      return box.childElementCount ? box : make("p", {}, "no difference");
    }]);
  }
  for (const name of ["prompt", "answer", "log"]) if (node[name]) found.push([name, () => words(text(node[name]))]);
  if (node.evidence) found.push(["evidence", () => evidence(node.evidence)]);
  if (node.final) found.push(["evidence, hidden test split", () => evidence(node.final)]);
  return found;
};

const show = (place, node, parent, text, kept) => {
  const tabs = make("div", { class: "tabs", role: "tablist", "aria-label": `node ${node.n}` });
  const panel = make("div", { role: "tabpanel" });
  const all = parts(node, parent, text);
  const choose = (index, focus) => {
    [...tabs.children].forEach((tab, i) => {
      tab.setAttribute("aria-selected", i === index);
      tab.tabIndex = i === index ? 0 : -1;
    });
    if (focus) tabs.children[index].focus();
    kept.tab = all[index][0].replace(/ \d+$/, "");
    panel.replaceChildren(all[index][1]());
  };
  all.forEach(([name], index) => {
    const tab = make("button", { type: "button", role: "tab" }, name);
    tab.addEventListener("click", () => choose(index));
    tabs.append(tab);
  });
  tabs.addEventListener("keydown", (event) => {
    const here = [...tabs.children].indexOf(document.activeElement);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined || here < 0) return;
    event.preventDefault();
    choose((here + step + all.length) % all.length, true);
  });
  const about = [["seconds", node.seconds]];
  if (node.parents.length) about.unshift([node.parents.length > 1 ? "parents" : "parent", node.parents.join(", ")]);
  if (node.note && !node.knobs) about.push(["note", node.note]);
  if (node.knobs) about.push(["knobs", Object.entries(node.knobs).map(([k, v]) => `${k}=${v}`).join(", ")]);
  if (node.analysis) about.push(["analysis", node.analysis]);
  if (node.message) about.push(["message", node.message]);
  const outcome = make("span", { class: node.state === "invalid" ? "bad" : "good" }, node.outcome);
  place.replaceChildren(make("h3", {}, `${node.n} ${node.op}: `, outcome), facts(about), tabs, panel);
  const same = all.findIndex(([name]) => name.replace(/ \d+$/, "") === kept.tab);
  if (all.length) choose(Math.max(same, 0));
};
