// Pixels of slices: fetched raw, kept for a while, and drawn through a window (DICOM PS3.3, C.11.2.1.2).
"use strict";
class Pictures {
  constructor(number, most = 96) { this.number = number; this.most = most; this.kept = new Map(); }
  get(index, copy) {
    const key = `${copy}/${index}`;
    if (!this.kept.has(key)) {
      if (this.kept.size >= this.most) this.kept.delete(this.kept.keys().next().value);
      const promise = fetchPicture(`/api/cases/${this.number}/slices/${index}?copy=${copy}`);
      promise.catch(() => this.kept.delete(key));
      this.kept.set(key, promise);
    }
    return this.kept.get(key);
  }
}
async function fetchPicture(address) {
  const answer = await fetch(address, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail || `error ${answer.status}`);
  const said = (name) => answer.headers.get(`Titer-${name}`);
  const numbers = (name) => said(name).split(",").map(Number);
  const types = { int16: Int16Array, uint16: Uint16Array, uint8: Uint8Array };
  return {
    rows: +said("Rows"), columns: +said("Columns"), samples: +said("Samples"), slope: +said("Slope"),
    intercept: +said("Intercept"), inverted: said("Photometric") === "MONOCHROME1", window: numbers("Window"),
    sides: said("Sides").split(","), spacing: numbers("Spacing"), pixels: new types[said("Type")](await answer.arrayBuffer()),
  };
}
// Grey levels of a picture through centre and width; colour pictures through the same line for each channel.
function windowed(picture, center, width, invert) {
  const out = new ImageData(picture.columns, picture.rows), data = out.data, pixels = picture.pixels;
  const low = center - width / 2, scale = 255 / Math.max(width, 1e-6), flip = picture.inverted !== invert;
  const grey = (value) => {
    const level = Math.min(Math.max((value * picture.slope + picture.intercept - low) * scale, 0), 255);
    return flip ? 255 - level : level;
  };
  for (let i = 0, n = picture.rows * picture.columns; i < n; i++) {
    if (picture.samples === 3) for (let c = 0; c < 3; c++) data[4 * i + c] = grey(pixels[3 * i + c]);
    else data[4 * i] = data[4 * i + 1] = data[4 * i + 2] = grey(pixels[i]);
    data[4 * i + 3] = 255;
  }
  return out;
}
// The absolute difference of two pictures, its largest value white; returns the image and that value.
function difference(one, other) {
  const out = new ImageData(one.columns, one.rows), data = out.data, n = one.rows * one.columns, s = one.samples;
  const found = new Float32Array(n);
  let most = 0;
  for (let i = 0; i < n; i++) {
    for (let c = 0; c < s; c++) found[i] = Math.max(found[i], Math.abs(one.pixels[s * i + c] - other.pixels[s * i + c]));
    most = Math.max(most, found[i]);
  }
  for (let i = 0; i < n; i++) {
    data[4 * i] = data[4 * i + 1] = data[4 * i + 2] = most ? (255 * found[i]) / most : 0;
    data[4 * i + 3] = 255;
  }
  return { image: out, most: most * Math.abs(one.slope) };
}
