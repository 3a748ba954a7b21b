"use strict";

const $ = (id) => document.getElementById(id);
const canvas = $("canvas");
const pen = canvas.getContext("2d", { willReadFrequently: true });
// The side of the digits that can be drawn, by the number of pixels.
const SIDES = new Map([[64, 8], [784, 28]]);
const SHOWN_ROWS = 10;
let model = null;
let busy = false;
let provider = true;

// Asking.

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The gateway does not answer. Does it still run?");
  }
  const told = await response.json();
  if (!response.ok) throw new Error(told.detail || told.title);
  return told;
}

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

async function during(text, work) {
  if (busy) return;
  busy = true;
  for (const id of ["send", "file", "model"]) $(id).disabled = true;
  say(text);
  try {
    await work();
    say("");
  } catch (error) {
    say(error.message, true);
  } finally {
    busy = false;
    for (const id of ["send", "file", "model"]) $(id).disabled = false;
  }
}

const predict = (type, body) =>
  ask(`v1/models/${encodeURIComponent(model.name)}/predict?details=true`, {
    method: "POST", headers: { "Content-Type": type }, body,
  });

// Models.

async function start() {
  const told = await ask("v1/models");
  $("me").textContent = told.me;
  provider = told.provider;
  const helper = provider ? ["the crypto provider"] : [];
  $("parties").textContent = [...told.parties, ...helper].join(", ");
  $("model").replaceChildren(...told.models.map((name) => new Option(name, name)));
  if (told.models.length) await choose();
}

async function choose() {
  model = null;
  $("drawing").hidden = true;
  $("about").textContent = "";
  forget();
  model = await ask(`v1/models/${encodeURIComponent($("model").value)}`);
  const draws = side() > 0;
  $("drawing").hidden = !draws;
  const names = model.feature_names ? `: ${model.feature_names.slice(0, 8).join(", ")}` : "";
  const more = model.feature_names && model.feature_names.length > 8 ? ", …" : "";
  $("about").textContent = `${model.features} numbers a row${names}${more}` +
    (draws ? ", the pixels of a digit." : ".");
}

// Of the digit that the model takes, 0 if it takes none.
function side() {
  const ten = model && model.classes && model.classes.length === 10;
  return ten ? SIDES.get(model.features) || 0 : 0;
}

// Drawing.

let last = null;

function place(event) {
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}

function stroke(event) {
  if (!last) return;
  const next = place(event);
  pen.strokeStyle = "#fff";
  pen.lineWidth = canvas.width / 12;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...last);
  pen.lineTo(...next);
  pen.stroke();
  last = next;
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  last = place(event);
  stroke(event);
});
canvas.addEventListener("pointermove", stroke);
for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { last = null; });

function clear() {
  pen.clearRect(0, 0, canvas.width, canvas.height);
}

// The ink as the data sets have it: 28x28 fitted into 20x20 and centred by mass, 8x8 filled.
function pixels(size) {
  const { width, height } = canvas;
  const ink = pen.getImageData(0, 0, width, height).data;
  let [left, right, top, bottom] = [width, -1, height, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (ink[4 * (y * width + x) + 3] > 32) {
        left = Math.min(left, x); right = Math.max(right, x);
        top = Math.min(top, y); bottom = Math.max(bottom, y);
      }
    }
  }
  if (right < 0) return null;
  const fit = size === 28 ? 20 : 8;
  const step = Math.max(right - left + 1, bottom - top + 1) / fit;
  const draw = (x0, y0) => {
    const out = new Float64Array(size * size);
    const parts = 6;
    for (let i = 0; i < size * parts; i++) {
      for (let j = 0; j < size * parts; j++) {
        const y = Math.floor(y0 + ((i + 0.5) / parts) * step);
        const x = Math.floor(x0 + ((j + 0.5) / parts) * step);
        if (x < 0 || y < 0 || x >= width || y >= height) continue;
        const at = Math.floor(i / parts) * size + Math.floor(j / parts);
        out[at] += ink[4 * (y * width + x) + 3];
      }
    }
    // A sum of integers: what is full is 1, and not a little more.
    return out.map((sum) => sum / (255 * parts * parts));
  };
  const middle = (a, b) => (a + b + 1) / 2 - (step * size) / 2;
  let [x0, y0] = [middle(left, right), middle(top, bottom)];
  let out = draw(x0, y0);
  if (size === 28) {
    let [mass, down, across] = [0, 0, 0];
    out.forEach((value, k) => {
      mass += value;
      down += value * (Math.floor(k / size) + 0.5);
      across += value * ((k % size) + 0.5);
    });
    x0 += Math.round(across / mass - size / 2) * step;
    y0 += Math.round(down / mass - size / 2) * step;
    out = draw(x0, y0);
  }
  return out;
}

async function askDigit() {
  const drawn = pixels(side());
  if (!drawn) throw new Error("Draw a digit first.");
  const row = Array.from(drawn, (v, k) => model.low[k] + v * (model.high[k] - model.low[k]));
  forget();
  show(await predict("application/json", JSON.stringify({ rows: [row] })), drawn);
}

async function askFile() {
  const [file] = $("file").files;
  if (!file) return;
  $("file").value = "";
  forget();
  show(await predict("text/csv", await file.text()), null, file.name);
}

// What came of it.

function made(name, text, cls) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (cls) element.className = cls;
  return element;
}

function forget() {
  $("answer").replaceChildren(made("p", "Nothing asked yet.", "dim"));
  $("cost").replaceChildren();
  $("saw").hidden = true;
}

const number = (value) => value.toLocaleString("en");

function text(result) {
  const one = (v) => (typeof v === "number" && !Number.isInteger(v) ? v.toPrecision(6) : String(v));
  if (result && result.outputs) {
    return Object.entries(result.outputs).map(([name, part]) => `${name}: ${text(part)}`).join("; ");
  }
  return Array.isArray(result) ? result.map(one).join(", ") : one(result);
}

// An entry a row: of several outputs what each has for the row.
function byRow(told) {
  if (Array.isArray(told.result)) return told.result;
  const outputs = Object.entries(told.result);
  return Array.from({ length: told.rows }, (_, k) => (
    { outputs: Object.fromEntries(outputs.map(([name, part]) => [name, part[k]])) }
  ));
}

function show(told, drawn, name) {
  const results = byRow(told);
  if (told.rows === 1) {
    const label = text(results[0]);
    $("answer").replaceChildren(made("p", label, label.length > 4 ? "label long" : "label"));
  } else {
    const table = made("table");
    const head = made("tr");
    head.append(made("th", "Row"), made("th", told.answer === "labels" ? "Label" : "Value"));
    table.append(head);
    results.slice(0, SHOWN_ROWS).forEach((result, k) => {
      const line = made("tr");
      line.append(made("td", number(k + 1)), made("td", text(result)));
      table.append(line);
    });
    const rest = told.rows - SHOWN_ROWS;
    const word = `${number(told.rows)} rows` + (name ? ` of ${name}` : "");
    $("answer").replaceChildren(
      made("p", rest > 0 ? `${word}; the first ${SHOWN_ROWS}:` : `${word}:`, "dim"), table,
    );
  }
  const details = told.details;
  if (!details) return;
  const sum = (key) => details.parties.reduce((total, party) => total + party[key], 0);
  const facts = [
    ["Rounds between the parties", number(details.rounds)],
    ["Bytes that a party sent the others", number(details.bytes_between_parties)],
    ["Bytes from here to the parties", number(sum("bytes_sent"))],
    ["Bytes back", number(sum("bytes_received"))],
    ["Seconds", details.seconds.toFixed(3)],
  ];
  $("cost").replaceChildren(...facts.flatMap(([what, how]) => [made("dt", what), made("dd", how)]));
  showSeen(details.parties, drawn);
}

function showSeen(parties, drawn) {
  const size = drawn ? side() : 0;
  const items = [];
  if (drawn) {
    items.push(card("You", image(size, (k) => 255 * drawn[k]), "The row, in the clear."));
  }
  for (const party of parties) {
    const how = party.got === "a seed"
      ? "A seed of 16 bytes, which it expands to these random words."
      : "These words: the row less what the others have. As random as theirs.";
    const first = (k) => parseInt(party.share[k].slice(0, 2), 16);
    const shown = size ? image(size, first) : code(party.share);
    items.push(card(party.name, shown, how));
  }
  if (provider) {
    const what = "Keys of the masks, how many rows of how many numbers, and when. No row, no share.";
    items.push(card("crypto provider", made("p", what)));
  }
  $("which").textContent = drawn ? "the digit" : "the first row";
  $("seen").replaceChildren(...items);
  $("saw").hidden = false;
  $("told").scrollIntoView({ block: "nearest" });
}

function card(title, shown, how) {
  const item = made("li");
  item.append(made("h3", title), shown);
  if (how) item.append(made("p", how));
  return item;
}

function image(size, grey) {
  const small = made("canvas");
  small.width = small.height = size;
  const paper = small.getContext("2d");
  const data = paper.createImageData(size, size);
  for (let k = 0; k < size * size; k++) data.data.set([grey(k), grey(k), grey(k), 255], 4 * k);
  paper.putImageData(data, 0, 0);
  return small;
}

function code(share) {
  return made("code", share.slice(0, 6).join(" ") + (share.length > 6 ? " …" : ""));
}

$("send").addEventListener("click", () => during("Asking the parties …", askDigit));
$("clear").addEventListener("click", () => { clear(); forget(); say(""); });
$("file").addEventListener("change", () => during("Asking the parties …", askFile));
$("model").addEventListener("change", () => during("", choose));
during("Looking for the parties …", start);
