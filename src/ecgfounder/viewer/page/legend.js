// What the colours mean; each value is a button that selects the recordings with it.

import { encode, ends, entriesOf, styleOf, tableOf } from "./colours.js";
import { button, count, element, figure } from "./dom.js";

/** Fill an element with the legend of a column; `select` gets a function of a recording's row. */
export function showLegend(place, column, points, select) {
  if (!column) {
    place.replaceChildren();
  } else if (column.kind === "category") {
    place.replaceChildren(legendOfCategories(column, points, select));
  } else {
    place.replaceChildren(legendOfNumbers(column));
  }
}

function swatch(colour) {
  const made = element("span", { class: "swatch" });
  made.style.backgroundColor = colour;
  return made;
}

function legendOfCategories(column, points, select) {
  const colours = tableOf(column);
  return element("ul", { class: "legend", "aria-label": `Colours of ${column.name}; a value selects its recordings` },
    ...entriesOf(column).map(({ name, n, code, holds }) => {
      const made = button("", () => select((row) => holds(points.codes[row])), { title: `Select: ${name}` });
      made.append(swatch(styleOf(colours, code)), element("span", { class: "name" }, name),
        element("span", { class: "soft" }, count(n)));
      return element("li", null, made);
    }));
}

function legendOfNumbers(column) {
  const colours = tableOf(column), [low, high] = ends(column);
  const stops = Array.from({ length: 12 }, (_, at) => styleOf(colours, Math.round((at * 253) / 11)));
  const ramp = element("span", { class: "ramp" });
  ramp.style.backgroundImage = `linear-gradient(to right, ${stops.join(", ")})`;
  const missing = column.n_missing ? element("span", { class: "soft" }, `${count(column.n_missing)} missing`) : null;
  return element("p", { class: "legend" }, element("span", null, figure(low, column.kind)), ramp,
    element("span", null, figure(high, column.kind)), missing);
}

/** Colour points by a column, and say what the colours mean; the table of colours. */
export function colourBy(column, points) {
  encode(column, points.codes);
  return tableOf(column);
}
