// What a selection is made of beside the rest, on a page without a program: as composition.py computes it.

import { MISSING, OTHER } from "./points.js";

const Z = 1.959963984540054;
const VALUES_SHOWN = 12;

/** Each column in the selection and in the rest, those that differ most first; none of identifiers. */
export function composed(columns, selected, n) {
  return columns.filter((column) => !column.names_few).map((column) => (column.kind === "category" ? shares(column, selected, n) : spreads(column, selected, n)))
    .sort((one, other) => other.distance - one.distance);
}

function shares(column, selected, n) {
  const inside = new Float64Array(256), outside = new Float64Array(256);
  let nInside = 0;
  for (let row = 0; row < n; row++) {
    const isInside = selected(row);
    (isInside ? inside : outside)[column.values[row]]++;
    nInside += isInside;
  }
  const names = [...column.categories.map((name, code) => [code, name]), [OTHER, "other values"], [MISSING, null]];
  const found = names.filter(([code]) => inside[code] + outside[code] > 0).map(([code, value]) => ({
    value, selected: inside[code], rest: outside[code], ...difference(inside[code], nInside, outside[code], n - nInside),
  }));
  const distance = found.reduce((sum, each) => sum + Math.abs(each.difference), 0) / 2;
  found.sort((one, other) => Math.abs(other.difference) - Math.abs(one.difference));
  return { ...aboutOf(column), distance: Math.min(1, distance), shares: found.slice(0, VALUES_SHOWN), spread: null };
}

function spreads(column, selected, n) {
  const inside = [], outside = [];
  for (let row = 0; row < n; row++) {
    if (Number.isFinite(column.values[row])) (selected(row) ? inside : outside).push(column.values[row]);
  }
  const [one, other] = [inside, outside].map((values) => Float64Array.from(values).sort());
  const spread = { selected: quartiles(one), rest: quartiles(other), n_selected: one.length, n_rest: other.length };
  return { ...aboutOf(column), distance: distanceOf(one, other), shares: [], spread };
}

function aboutOf({ name, group, kind }) {
  return { name, group, kind };
}

/** The difference of two shares and its interval of 95 % (Newcombe 1998, method 10). */
function difference(one, ofOne, other, ofOther) {
  if (!ofOne || !ofOther) return { difference: 0, low: -1, high: 1 };
  const p = one / ofOne, q = other / ofOther;
  const [pLow, pHigh] = wilson(p, ofOne), [qLow, qHigh] = wilson(q, ofOther);
  return { difference: p - q, low: p - q - Math.hypot(p - pLow, qHigh - q), high: p - q + Math.hypot(pHigh - p, q - qLow) };
}

function wilson(share, n) {
  const centre = share + Z ** 2 / (2 * n), half = Z * Math.sqrt((share * (1 - share)) / n + Z ** 2 / (4 * n ** 2));
  return [(centre - half) / (1 + Z ** 2 / n), (centre + half) / (1 + Z ** 2 / n)];
}

function quartiles(sorted) {
  if (!sorted.length) return null;
  return [0.25, 0.5, 0.75].map((share) => {
    const place = share * (sorted.length - 1), at = Math.floor(place);
    return sorted[at] + (place - at) * ((sorted[at + 1] ?? sorted[at]) - sorted[at]);
  });
}

/** The largest difference of two distribution functions. */
function distanceOf(one, other) {
  if (!one.length || !other.length) return 0;
  let largest = 0, at = 0, there = 0;
  while (at < one.length && there < other.length) {
    const value = Math.min(one[at], other[there]);
    while (at < one.length && one[at] === value) at++;
    while (there < other.length && other[there] === value) there++;
    largest = Math.max(largest, Math.abs(at / one.length - there / other.length));
  }
  return largest;
}
