// The nodes' texts: base64, deflated, each line once.
const unpack = async (block) => {
  const bytes = Uint8Array.from(atob(block.textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
};

const joined = (lines, ranges) => {
  const parts = [];
  for (let i = 0; i < ranges.length; i += 2) {
    parts.push(lines.slice(ranges[i], ranges[i] + ranges[i + 1]).join("\n"));
  }
  return parts.join("\n");
};

// Only text nodes are ever made of what came from a run.
const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
