// Colours of recordings: a code for each, and a table of colours by code.

import { MISSING, OTHER } from "./points.js";

const CATEGORIES = {
  light: ["#0072b2", "#d55e00", "#009e73", "#a6468a", "#b8860b", "#56a0d3", "#7a3b10", "#5b4ba8", "#6b6b00", "#c2185b"],
  dark: ["#56b4e9", "#f0975f", "#2fc79a", "#e08fc6", "#f0e442", "#9fd0f5", "#c99a6b", "#b3a5f2", "#cfcf5a", "#f47fa8"],
};
const RAMPS = {
  light: ["#432371", "#31688e", "#1f968b", "#6cae3e", "#d9b310"],
  dark: ["#7b5cc9", "#4f93d0", "#2fbfa5", "#9bd93c", "#fde725"],
};
const GREYS = { light: { none: "#00606f", other: "#8a8a8a", missing: "#c4c4c4", dim: "#b9b9b9" },
  dark: { none: "#5cc5d6", other: "#8f8f8f", missing: "#5c5c5c", dim: "#5a5d60" } };
export const N_COLOURS = CATEGORIES.light.length;
const STEPS = 253;

/** Whether the page is dark. */
export function isDark() {
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function scheme() {
  return isDark() ? "dark" : "light";
}

/** Red, green and blue of "#rrggbb". */
export function rgb(text) {
  return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
}

/** The colour of points that are not selected while others are. */
export function dimmed() {
  return rgb(GREYS[scheme()].dim);
}

function ramp(share) {
  const stops = RAMPS[scheme()];
  const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const at = Math.min(Math.floor(place), stops.length - 2);
  const [low, high] = [rgb(stops[at]), rgb(stops[at + 1])];
  return low.map((value, axis) => Math.round(value + (place - at) * (high[axis] - value)));
}

/** Uint8Array [3 * 256], the colour of each code of a column; of one colour without a column. */
export function tableOf(column) {
  const { none, other, missing } = GREYS[scheme()];
  const colours = new Uint8Array(3 * 256);
  for (let code = 0; code < 256; code++) {
    let colour;
    if (!column) colour = rgb(none);
    else if (code === MISSING) colour = rgb(missing);
    else if (column.kind !== "category") colour = ramp(code / STEPS);
    else colour = rgb(code < N_COLOURS ? CATEGORIES[scheme()][code] : other);
    colours.set(colour, 3 * code);
  }
  return colours;
}

/** Give each recording the code of its value; numbers between the 1st and 99th percentile use all of the colours. */
export function encode(column, codes) {
  if (!column) {
    codes.fill(0);
  } else if (column.kind === "category") {
    codes.set(column.values);
  } else {
    const [low, high] = ends(column);
    const scale = high > low ? STEPS / (high - low) : 0;
    const { values } = column;
    for (let row = 0; row < codes.length; row++) {
      const value = values[row];
      codes[row] = value === value ? Math.min(Math.max((value - low) * scale, 0), STEPS) : MISSING;
    }
  }
}

/** The values with the first and the last colour. */
export function ends(column) {
  const [low, first, last, high] = column.range;
  return last > first ? [first, last] : [low, high];
}

/** A colour of the ramp, or of a code, for styles. */
export function styleOf(colours, code) {
  return `rgb(${colours[3 * code]} ${colours[3 * code + 1]} ${colours[3 * code + 2]})`;
}

/** The codes of a legend's entries for a column of categories: names and counts, then what has no colour of its own. */
export function entriesOf(column) {
  const entries = column.categories.slice(0, N_COLOURS)
    .map((name, code) => ({ name, n: column.counts[code], code, holds: (each) => each === code }));
  const rest = column.counts.slice(N_COLOURS).reduce((sum, n) => sum + n, 0) + column.n_other;
  if (rest) {
    entries.push({ name: "other values", n: rest, code: OTHER, holds: (each) => each >= N_COLOURS && each !== MISSING });
  }
  if (column.n_missing) {
    entries.push({ name: "missing", n: column.n_missing, code: MISSING, holds: (each) => each === MISSING });
  }
  return entries;
}
