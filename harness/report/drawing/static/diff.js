// The shortest edit between two texts by lines (Myers 1986), with three lines of context.
const MOST_EDITS = 1500;
const CONTEXT = 3;

const edits = (a, b) => {
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const middle = myers(a.slice(start, a.length - end), b.slice(start, b.length - end));
  const same = (line) => [" ", line];
  return [...a.slice(0, start).map(same), ...middle, ...a.slice(a.length - end).map(same)];
};

const myers = (a, b) => {
  const most = Math.min(a.length + b.length, MOST_EDITS);
  const offset = most + 1;
  const reach = new Int32Array(2 * most + 3);
  const trace = [];
  for (let d = 0; d <= most; d++) {
    trace.push(reach.slice(offset - d - 1, offset + d + 2));
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && reach[offset + k - 1] < reach[offset + k + 1]);
      let x = down ? reach[offset + k + 1] : reach[offset + k - 1] + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      reach[offset + k] = x;
      if (x >= a.length && x - k >= b.length) return walked(a, b, trace);
    }
  }
  return [...a.map((line) => ["-", line]), ...b.map((line) => ["+", line])];
};

const walked = (a, b, trace) => {
  const found = [];
  let x = a.length;
  let y = b.length;
  for (let d = trace.length - 1; d >= 0; d--) {
    const at = (k) => trace[d][k + d + 1];
    const k = x - y;
    const down = k === -d || (k !== d && at(k - 1) < at(k + 1));
    const before = down ? k + 1 : k - 1;
    const oldX = d === 0 ? 0 : at(before);
    const oldY = d === 0 ? 0 : oldX - before;
    while (x > oldX && y > oldY) {
      x--;
      y--;
      found.push([" ", a[x]]);
    }
    if (d > 0) found.push(down ? ["+", b[--y]] : ["-", a[--x]]);
  }
  return found.reverse();
};

const difference = (before, after) => {
  const all = edits(before.split("\n"), after.split("\n"));
  const near = new Uint8Array(all.length);
  all.forEach(([mark], i) => {
    if (mark !== " ") near.fill(1, Math.max(0, i - CONTEXT), i + CONTEXT + 1);
  });
  const pre = make("pre");
  let skipped = false;
  all.forEach(([mark, line], i) => {
    if (near[i]) pre.append(make("span", { class: mark === "+" ? "add" : mark === "-" ? "del" : "same" }, `${mark} ${line}`));
    else if (!skipped) pre.append(make("span", { class: "hunk" }, "⋯"));
    skipped = !near[i];
  });
  return near.includes(1) ? make("div", { class: "code lines", tabindex: "0", role: "region", "aria-label": "diff" }, pre) : null;
};
