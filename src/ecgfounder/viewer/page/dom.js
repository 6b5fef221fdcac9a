// Elements of the page. Text of the run is only ever text: nothing here takes markup.

/** An element with attributes ("on" has listeners by event) and children: elements, texts, or null for none. */
export function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    } else if (value === true) {
      made.setAttribute(name, "");
    } else if (value !== false && value !== null && value !== undefined) {
      made.setAttribute(name, value);
    }
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** An element of the page by its id. */
export function byId(id) {
  return document.getElementById(id);
}

/** A button that does something. */
export function button(text, does, attributes) {
  return element("button", { type: "button", on: { click: does }, ...attributes }, text);
}

/** A table: a caption, the header's texts, rows of cells (texts or elements); columns from `numbers` on are numbers. */
export function table(caption, header, rows, numbers = header.length) {
  const kind = (at) => (at >= numbers ? "number" : null);
  const head = header.map((text, at) => element("th", { scope: "col", class: kind(at) }, text));
  const body = rows.map((cells) =>
    element("tr", null, ...cells.map((cell, at) =>
      at === 0 ? element("th", { scope: "row" }, cell) : element("td", { class: kind(at) }, cell))));
  return element("div", { class: "wide" },
    element("table", null, element("caption", null, caption),
      element("thead", null, element("tr", null, ...head)), element("tbody", null, ...body)));
}

/** Say something to everybody: on the page's last line, which screen readers read aloud. */
export function tell(text) {
  byId("told").textContent = text;
}

/** A count with separators, 12,000. */
export function count(number) {
  return number.toLocaleString("en-US");
}

/** A number and what it counts. */
export function counted(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** A number with four digits that matter; a day if it is one. */
export function figure(value, kind) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "";
  if (kind === "time") return new Date(value * 86400000).toISOString().slice(0, 10);
  return Number.isInteger(value) && Math.abs(value) < 1e6 ? count(value) : String(Number(value.toPrecision(4)));
}

/** A share in percent. */
export function percent(share, signed = false) {
  const text = `${(100 * share).toFixed(1)} %`;
  return signed && share > 0 ? `+${text}` : text;
}
