// Colours for Python: comments, strings, keywords, numbers. A coloured token is a span of text.
const KEYWORDS = new Set(
  ("False None True and as assert async await break class continue def del elif else except finally " +
    "for from global if import in is lambda nonlocal not or pass raise return try while with yield match case").split(" "),
);
const TOKEN =
  /(#[^\n]*)|("""[\s\S]*?(?:"""|$)|'''[\s\S]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?)|(\b\d[\w.]*)|([A-Za-z_]\w*)/g;

const highlighted = (text) => {
  const pre = make("pre");
  let last = 0;
  for (const found of text.matchAll(TOKEN)) {
    const kind = found[1] ? "c" : found[2] ? "t" : found[3] ? "d" : KEYWORDS.has(found[4]) ? "k" : "";
    if (!kind) continue;
    pre.append(text.slice(last, found.index), make("span", { class: kind }, found[0]));
    last = found.index + found[0].length;
  }
  pre.append(text.slice(last));
  return pre;
};

const numbered = (text) => {
  const count = text.split("\n").length;
  const numbers = make("pre", { class: "numbers", "aria-hidden": "true" });
  numbers.append(Array.from({ length: count }, (_, i) => i + 1).join("\n"));
  return make("div", { class: "code", tabindex: "0", role: "region", "aria-label": "source" }, numbers, highlighted(text));
};
