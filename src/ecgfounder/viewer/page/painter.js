// Draws the map: how many recordings lie in each pixel is how dense its colour is, and their mean colour is its colour.

import { dimmed } from "./colours.js";

// Diameters of a point in pixels, by how many recordings there are at most.
const SIZES = [[300, 9], [2000, 7], [10000, 5], [40000, 3], [150000, 2], [Infinity, 1]];
const SELECTED_WEIGHT = 16;
const LARGEST_SUM = 2 ** 32 / 255;
const FAINTEST = [0.45, 0.95]; // with many recordings in a pixel, and with one at most

/** Draws points on a canvas. */
export class Painter {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { willReadFrequently: true }); // in memory, as its pixels are made there
    this.nSeen = Infinity; // recordings in view in the last frame
    this.heaviest = 1;
  }

  /** Take the canvas's size in pixels. */
  resize(width, height) {
    [this.canvas.width, this.canvas.height] = [width, height];
    this.image = this.context.createImageData(width, height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.sums = new Uint32Array(4 * width * height); // of each pixel: weight, red, green, blue
  }

  /** Draw points as a view shows them, in colours by code. */
  draw(points, view, colours) {
    performance.mark("draw");
    const size = sizeOf(this.nSeen, view);
    this.collect(points, view, colours, size);
    const better = sizeOf(this.nSeen, view); // the last frame may have had many more or fewer recordings in view
    if (better !== size) this.collect(points, view, colours, better);
    this.shade();
    this.context.putImageData(this.image, 0, 0);
    performance.measure("draw", "draw");
  }

  collect(points, view, colours, size) {
    this.sums.fill(0);
    const disc = discOf(size);
    const { n, places, codes, shown, selected } = points;
    const { sums } = this, { width, height } = this.canvas;
    const choice = points.nSelected > 0;
    const heavy = Math.max(1, Math.min(SELECTED_WEIGHT, Math.floor(LARGEST_SUM / n)));
    const [dimRed, dimGreen, dimBlue] = dimmed();
    const scale = view.scale, left = width / 2 - view.x * scale, top = height / 2 + view.y * scale;
    const margin = size, nDisc = disc.length;
    let heaviest = 1, nSeen = 0;
    for (let row = 0; row < n; row++) {
      if (shown[row] === 0) continue;
      const x = Math.floor(places[2 * row] * scale + left), y = Math.floor(top - places[2 * row + 1] * scale);
      if (x < -margin || y < -margin || x >= width + margin || y >= height + margin) continue;
      nSeen++;
      let weight = 1, red = dimRed, green = dimGreen, blue = dimBlue;
      if (!choice || selected[row] === 1) {
        const code = 3 * codes[row];
        weight = choice ? heavy : 1;
        red = colours[code];
        green = colours[code + 1];
        blue = colours[code + 2];
      }
      for (let at = 0; at < nDisc; at += 2) {
        const px = x + disc[at], py = y + disc[at + 1];
        if (px < 0 || py < 0 || px >= width || py >= height) continue;
        const place = 4 * (py * width + px);
        const sum = (sums[place] += weight);
        sums[place + 1] += weight * red;
        sums[place + 2] += weight * green;
        sums[place + 3] += weight * blue;
        if (sum > heaviest) heaviest = sum;
      }
    }
    this.heaviest = heaviest;
    this.nSeen = nSeen;
  }

  shade() {
    const { sums, pixels, heaviest } = this;
    const faintest = Math.max(FAINTEST[0], FAINTEST[1] - 0.12 * Math.log(heaviest));
    const scale = (1 - faintest) / Math.max(Math.log(heaviest), 1e-9);
    const opaque = new Uint8Array(1024);
    for (let weight = 1; weight < 1024; weight++) opaque[weight] = 255 * Math.min(1, faintest + scale * Math.log(weight));
    for (let at = 0, place = 0; at < pixels.length; at++, place += 4) {
      const weight = sums[place];
      if (weight === 0) {
        pixels[at] = 0;
        continue;
      }
      const alpha = weight < 1024 ? opaque[weight] : 255 * Math.min(1, faintest + scale * Math.log(weight));
      const red = sums[place + 1] / weight, green = sums[place + 2] / weight, blue = sums[place + 3] / weight;
      pixels[at] = (alpha << 24) | (blue << 16) | (green << 8) | red; // of a machine with the lowest byte first
    }
  }
}

/** The diameter of a point in pixels, with so many recordings in view. */
function sizeOf(n, view) {
  return Math.max(1, Math.round(SIZES.find(([most]) => n <= most)[1] * Math.min(2, view.ratio)));
}

/** Where the pixels of a point are, x and y one after the other. */
function discOf(size) {
  const places = [], middle = (size - 1) / 2, radius = size / 2;
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const dx = x - middle, dy = y - middle;
      if (size < 3 || dx * dx + dy * dy <= radius * radius) places.push(Math.round(x - middle), Math.round(y - middle));
    }
  }
  return Int32Array.from(places);
}
