"use strict";
// Every text here was written by models or strangers: it is only ever set as textContent.
const HEIGHT = 60, DEEPEST = 9, MOST_WORDS = 1500;
const SEGMENTER = new Intl.Segmenter(undefined, { granularity: "word" });
const $ = (id) => document.getElementById(id);
let data, chains, shown = [], current = -1, hits, lower;

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

async function unpack() {
  const packed = atob($("data").textContent), bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
  $("data").remove();
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

function group() {
  const bySeed = new Map();
  data.seed.forEach((seed, row) => {
    if (!bySeed.has(seed)) bySeed.set(seed, { seed, text: data.start[row], rows: [] });
    bySeed.get(seed).rows.push(row);
  });
  return [...bySeed.values()];
}

function choices(select, all, names) {
  select.append(new Option(all, ""));
  for (const [value, name] of names) select.append(new Option(name, value));
}

function findTexts(wanted) {
  hits = null;
  if (!wanted) return;
  lower ??= data.texts.map((text) => text.toLowerCase());
  hits = new Uint8Array(lower.length);
  lower.forEach((text, i) => { if (text.includes(wanted)) hits[i] = 1; });
}

function matches(row) {
  const operation = $("operation").value, verdict = $("verdict").value, outcome = $("outcome").value;
  if (operation && data.operation[row] !== +operation) return false;
  if (verdict && data.verdict[row] !== +verdict) return false;
  if (outcome && data.outcome[row] !== +outcome) return false;
  return !hits || !!(hits[data.rewrite[row]] || hits[data.response[row]] || hits[data.edit[row]] || hits[data.start[row]]);
}

function filter() {
  findTexts($("search").value.trim().toLowerCase());
  shown = [];
  let steps = 0, rows = 0;
  chains.forEach((chain, i) => {
    const found = chain.rows.filter(matches);
    if (!found.length) return;
    shown.push(i);
    steps += found.length;
    rows += found.filter((row) => data.outcome[row] === 0).length;
  });
  const count = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
  $("told").textContent = `${count(shown.length, "chain")}, ${count(steps, "step")}, ${count(rows, "row")} accepted` +
    (data.left_out ? ` (${count(data.left_out, "step")} of later chains are not on this page)` : "");
  $("list").scrollTop = 0;
  draw();
  if (!shown.includes(current)) open(shown.length ? shown[0] : -1); else open(current);
}

function draw() {
  const list = $("list"), first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - 5);
  const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + 5);
  const spacer = element("div");
  spacer.style.height = `${shown.length * HEIGHT}px`;
  const rows = [spacer];
  for (let i = first; i < last; i++) {
    const chain = chains[shown[i]], row = element("button", "row");
    const kept = chain.rows.filter((r) => data.outcome[r] === 0).length;
    row.type = "button";
    row.tabIndex = -1;
    row.style.top = `${i * HEIGHT}px`;
    row.setAttribute("aria-current", shown[i] === current);
    row.append(element("b", "", plain(data.texts[chain.text].slice(0, 200))));
    row.append(element("span", "", `${chain.rows.length} steps, ${kept} accepted`));
    row.firstChild.dir = "auto";
    row.onclick = () => open(shown[i]);
    rows.push(row);
  }
  if (!shown.length) rows.push(element("div", "empty", "No chain fits the filters."));
  list.replaceChildren(...rows);
}

// Characters that turn the direction of text, or show nothing, are shown by their number.
const ODD = /([\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff])/;
const named = (c) => `U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
const plain = (text) => text.split(ODD).map((part, i) => (i % 2 ? named(part) : part)).join("");

function put(into, text) {
  const wanted = $("search").value.trim().toLowerCase();
  text.split(ODD).forEach((part, i) => {
    if (i % 2) return into.append(element("span", "odd", named(part)));
    const low = part.toLowerCase();
    let at = 0, next;
    while (wanted && low.length === part.length && (next = low.indexOf(wanted, at)) >= 0) {
      into.append(part.slice(at, next), element("mark", "", part.slice(next, next + wanted.length)));
      at = next + wanted.length;
    }
    into.append(part.slice(at));
  });
  return into;
}

// Words by the rules of Unicode, where scripts need no spaces; a space belongs to the word before it.
function words(text) {
  const found = [];
  for (const { segment } of SEGMENTER.segment(text)) {
    if (found.length && !segment.trim()) found[found.length - 1] += segment; else found.push(segment);
  }
  return found;
}

// The longest common subsequence of words; null where too little stayed, or it would take too long.
function changes(before, after) {
  const a = words(before), b = words(after), same = (x, y) => x.trim() === y.trim();
  if (a.length > MOST_WORDS || b.length > MOST_WORDS) return null;
  const width = b.length + 1, best = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      best[i * width + j] = same(a[i], b[j]) ? best[(i + 1) * width + j + 1] + 1 : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
  if (best[0] < 0.3 * Math.min(a.length, b.length)) return null;
  const parts = [];
  let i = 0, j = 0, gone = "", come = "";
  const flush = () => { if (gone) parts.push(["del", gone]); if (come) parts.push(["ins", come]); gone = come = ""; };
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && same(a[i], b[j])) { flush(); parts.push(["same", b[j]]); i++; j++; }
    else if (j === b.length || (i < a.length && best[(i + 1) * width + j] >= best[i * width + j + 1])) gone += a[i++];
    else come += b[j++];
  }
  flush();
  return parts;
}

function body(row) {
  const box = element("div", "text"), before = data.texts[data.instruction[row]], after = data.texts[data.rewrite[row]];
  box.dir = "auto";
  const parts = $("diff").checked && before !== after ? changes(before, after) : null;
  if (!parts) return put(box, after);
  // Words that stayed are joined, so that a search may span them.
  for (let i = parts.length - 1; i > 0; i--)
    if (parts[i][0] === "same" && parts[i - 1][0] === "same") parts[i - 1][1] += parts.splice(i, 1)[0][1];
  for (const [kind, text] of parts) put(kind === "same" ? box : box.appendChild(element(kind)), text);
  return box;
}

function step(row) {
  const node = element("div", matches(row) ? "node" : "node off"), head = element("div", "head");
  head.append(element("span", "", `step ${data.step[row] + 1}`), element("b", "", data.names[data.operation[row]]));
  head.append(element("span", "tag", `verdict: ${data.names[data.verdict[row]]}`));
  const outcome = data.outcome[row];
  head.append(element("span", outcome === 0 ? "tag yes" : "tag no", data.outcomes[outcome]));
  node.append(head, body(row));
  const wrote = data.texts[data.edit[row]];
  if (wrote) {
    const line = element("div", "edit"), text = element("span");
    text.dir = "auto";
    line.append(element("span", "", "the model wrote: "), put(text, wrote));
    node.append(line);
  }
  const answer = data.texts[data.response[row]];
  if (answer) {
    const details = element("details"), text = element("div", "text");
    text.dir = "auto";
    details.append(element("summary", "", "answer"), put(text, answer));
    if (hits && hits[data.response[row]]) details.open = true;
    node.append(details);
  }
  return node;
}

function grow(under, children, parent, depth) {
  for (const row of children.get(parent) || []) {
    const node = step(row);
    under.append(node);
    if (!children.has(row)) continue;
    const kids = element("div", depth < DEEPEST ? "kids" : "kids deep");
    // Deep chains go on at the same indent, else their texts would have no width left.
    (depth < DEEPEST ? node : under).append(kids);
    grow(kids, children, row, depth + 1);
  }
}

function open(i) {
  current = i;
  const pane = $("chain");
  pane.replaceChildren();
  pane.scrollTop = 0;
  if (i >= 0) {
    const chain = chains[i], children = new Map();
    for (const row of chain.rows) {
      const parent = data.parent[row];
      children.set(parent, [...(children.get(parent) || []), row]);
    }
    const root = element("div", "node"), head = element("div", "head"), text = element("div", "text");
    head.append(element("b", "", "seed"), element("span", "", plain(data.names[chain.seed])));
    text.dir = "auto";
    root.append(head, put(text, data.texts[chain.text]));
    const kids = root.appendChild(element("div", "kids"));
    grow(kids, children, -1, 1);
    pane.append(root);
  }
  for (const row of $("list").querySelectorAll(".row"))
    row.setAttribute("aria-current", shown[Math.round(parseFloat(row.style.top) / HEIGHT)] === current);
}

function move(by) {
  const at = shown.indexOf(current), next = Math.min(shown.length - 1, Math.max(0, at + by)), list = $("list");
  if (next < 0) return;
  if (next * HEIGHT < list.scrollTop) list.scrollTop = next * HEIGHT;
  if ((next + 1) * HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = (next + 1) * HEIGHT - list.clientHeight;
  draw();
  open(shown[next]);
}

async function main() {
  data = await unpack();
  chains = group();
  const counted = (column) => [...new Set(column)].map((i) => [i, data.names[i]]).sort((a, b) => (a[1] < b[1] ? -1 : 1));
  choices($("operation"), "all operations", counted(data.operation));
  choices($("verdict"), "all verdicts", counted(data.verdict));
  choices($("outcome"), "all outcomes", data.outcomes.map((name, i) => [i, name]));
  let waiting;
  $("search").oninput = () => { clearTimeout(waiting); waiting = setTimeout(filter, 150); };
  for (const id of ["operation", "verdict", "outcome"]) $(id).onchange = filter;
  $("diff").onchange = () => open(current);
  $("list").onscroll = draw;
  $("list").onkeydown = (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key];
    if (by) { event.preventDefault(); move(by); }
  };
  window.onresize = draw;
  filter();
  document.documentElement.dataset.ready = Math.round(performance.now());
}

main().catch((error) => { $("told").textContent = `This page can't be shown: ${error.message}`; });
