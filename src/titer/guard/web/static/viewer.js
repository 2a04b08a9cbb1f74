// The viewer of a case: four panes of one slice, under one window; keys for the slice, the window and the decision.
"use strict";
const root = document.getElementById("viewer"), count = +root.dataset.slices;
const el = (id) => document.getElementById(id);
const pictures = new Pictures(+root.dataset.case), heats = new Map(), refused = new Set();
// SHAP asks the model 162 times, in the process that judges: a slice that is scrolled past asks for none (ms at rest).
const REST = { gradcam: 0, shap: 400 };
const state = { index: 0, center: null, width: null, invert: false, first: null, drawn: 0 };

// A map, or an Error that says why there is none: kept, so that a drag of the window does not ask again and again.
function heatOf(index, method) {
  const key = `${method}/${index}`;
  if (!heats.has(key)) {
    if (heats.size > 32) heats.delete(heats.keys().next().value);
    heats.set(key, fetchHeat(`/api/cases/${root.dataset.case}/heatmaps/${index}?method=${method}`).catch((error) => { refused.add(key); return error; }));
  }
  return heats.get(key);
}
async function fetchHeat(address) {
  const answer = await fetch(address, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail || `error ${answer.status}`);
  return createImageBitmap(await answer.blob());
}
function raster(image) {
  const canvas = document.createElement("canvas");
  canvas.width = image.width; canvas.height = image.height;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
// Fits the picture into its pane without distortion, by the size of its pixels, and writes the patient's directions.
function paint(name, picture, sources) {
  const canvas = el(name), box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(Math.round(box.width * ratio), 1); canvas.height = Math.max(Math.round(box.height * ratio), 1);
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#000"; pen.fillRect(0, 0, canvas.width, canvas.height);
  const wide = picture.columns * picture.spacing[1], high = picture.rows * picture.spacing[0];
  const zoom = Math.min(canvas.width / wide, canvas.height / high), w = wide * zoom, h = high * zoom;
  const x = (canvas.width - w) / 2, y = (canvas.height - h) / 2;
  for (const [source, opacity] of sources) { pen.globalAlpha = opacity; pen.drawImage(source, x, y, w, h); }
  pen.globalAlpha = 1;
  pen.font = `600 ${13 * ratio}px sans-serif`; pen.fillStyle = "#ffd75e"; pen.strokeStyle = "#000"; pen.lineWidth = 3 * ratio;
  pen.textAlign = "center"; pen.textBaseline = "middle";
  const edge = 12 * ratio, places = [[edge, canvas.height / 2], [canvas.width - edge, canvas.height / 2], [canvas.width / 2, edge], [canvas.width / 2, canvas.height - edge]];
  picture.sides.forEach((side, i) => { pen.strokeText(side, ...places[i]); pen.fillText(side, ...places[i]); });
}
const note = (name, said) => { el(`note-${name}`).textContent = said; };

async function draw() {
  const index = state.index, turn = ++state.drawn;
  el("slice").value = index + 1; el("slice-at").textContent = index + 1;
  let picture;
  try { picture = await pictures.get(index, "original"); } catch (error) { note("original", error.message); root.dataset.shown = "error"; return; }
  if (turn !== state.drawn) return;
  if (state.center === null) { [state.center, state.width] = picture.window; state.first = [...picture.window]; }
  el("window-at").textContent = `W ${Math.round(state.width)} L ${Math.round(state.center)}`;
  const base = raster(windowed(picture, state.center, state.width, state.invert));
  paint("original", picture, [[base, 1]]);
  note("original", "");
  const other = await pictures.get(index, "sanitized").catch((error) => error);
  if (turn !== state.drawn) return;
  if (other instanceof Error) note("sanitized", other.message);
  else {
    paint("sanitized", picture, [[raster(windowed(other, state.center, state.width, state.invert)), 1]]);
    const found = difference(picture, other);
    paint("difference", picture, [[raster(found.image), 1]]);
    note("difference", `white = ${found.most.toPrecision(3)}`);
  }
  if (!await drawHeat(index, turn, picture, base)) return;
  root.dataset.shown = `${index}/${Math.round(state.width)}/${Math.round(state.center)}`;
  for (const next of [index + 1, index - 1]) if (next >= 0 && next < count) for (const copy of ["original", "sanitized"]) pictures.get(next, copy).catch(() => {});
}
// Says whether it drew, as another slice, window or method may have been asked for meanwhile.
async function drawHeat(index, turn, picture, base) {
  const choice = el("method"), method = choice.value, name = choice.selectedOptions[0].textContent;
  if (!heats.has(`${method}/${index}`)) {
    paint("heatmap", picture, [[base, 0.35]]);
    note("heatmap", `${name}: asked for …`);
    if (REST[method]) await new Promise((done) => setTimeout(done, REST[method]));
    if (turn !== state.drawn) return false;
  }
  const heat = await heatOf(index, method);
  if (turn !== state.drawn) return false;
  const missing = heat instanceof Error;
  paint("heatmap", picture, missing ? [[base, 0.35]] : [[base, 1], [heat, el("heat").value / 100]]);
  note("heatmap", missing ? `${name}: ${heat.message}` : name);
  root.dataset.heat = missing ? "" : `${method}/${index}`;
  return true;
}
let waiting = false;
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}
function turn(to) { state.index = Math.min(Math.max(to, 0), count - 1); redraw(); }
function level(width, center) {
  if (state.center === null) return;
  state.width = Math.max(state.width + width, state.first[1] / 500); state.center += center; redraw();
}
function reset() { state.center = null; state.invert = false; el("invert").setAttribute("aria-pressed", "false"); redraw(); }
function invert() { state.invert = !state.invert; el("invert").setAttribute("aria-pressed", String(state.invert)); redraw(); }
// What could not be drawn before is asked for once more.
function chosen() {
  for (const key of refused) heats.delete(key);
  refused.clear(); redraw();
}
function otherHeat() { const choice = el("method"); choice.selectedIndex = (choice.selectedIndex + 1) % choice.length; chosen(); }
function enlarge(pane) {
  const panes = el("panes"), now = panes.dataset.only === pane ? "" : pane;
  panes.dataset.only = now;
  for (const figure of panes.children) figure.hidden = Boolean(now) && figure.dataset.pane !== now;
  redraw();
}
if (count) {
  el("slice").addEventListener("input", (event) => turn(event.target.value - 1));
  el("heat").addEventListener("input", redraw);
  el("method").addEventListener("change", chosen);
  el("reset").addEventListener("click", reset);
  el("invert").addEventListener("click", invert);
  window.addEventListener("resize", redraw);
  for (const canvas of root.querySelectorAll("canvas")) {
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); turn(state.index + Math.sign(event.deltaY)); }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
      if (!event.buttons || state.first === null) return;
      const step = state.first[1] / 300;
      level(event.movementX * step, event.movementY * step);
    });
    canvas.addEventListener("dblclick", () => enlarge(canvas.id));
  }
  draw();
}
const keys = {
  ArrowUp: () => turn(state.index - 1), ArrowDown: () => turn(state.index + 1), PageUp: () => turn(state.index - 10),
  PageDown: () => turn(state.index + 10), Home: () => turn(0), End: () => turn(count - 1), 0: reset, i: invert, h: otherHeat,
  "[": () => level(-(state.first?.[1] ?? 0) / 20, 0), "]": () => level((state.first?.[1] ?? 0) / 20, 0),
  "-": () => level(0, -(state.first?.[1] ?? 0) / 40), "=": () => level(0, (state.first?.[1] ?? 0) / 40),
  z: () => enlarge(el("panes").dataset.only || "original"),
};
// A letter chooses; only Enter on the button sends: no single key releases a result.
function choose(action) {
  const form = el("decision");
  if (!form) return;
  form.querySelector(`[value="${action}"]`).checked = true;
  el("comment").required = action === "reject" || action === "override";
  el("label").required = action === "override";
  (action === "accept" ? el("confirm") : action === "override" ? el("label") : el("comment")).focus();
}
const actions = { a: "accept", o: "override", r: "reject", c: "comment" };
document.addEventListener("keydown", (event) => {
  const typing = /^(TEXTAREA|SELECT)$/.test(event.target.tagName) || (event.target.tagName === "INPUT" && event.target.type === "text");
  if (event.key === "Escape") { event.target.blur(); root.focus(); return; }
  if (typing || event.ctrlKey || event.altKey || event.metaKey) return;
  if (actions[event.key]) { event.preventDefault(); choose(actions[event.key]); return; }
  if (event.target.tagName === "INPUT" && /^(Arrow|Page|Home|End)/.test(event.key)) return;
  if (keys[event.key] && count) { event.preventDefault(); keys[event.key](); }
});
