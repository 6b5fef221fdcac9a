// A page that was opened from disk: its data is in it, in blocks of base64 that are read when they are needed.

import { composed } from "./compose.js";

const PAGE = 100;
const NEIGHBOURS = 10;

/** The bytes of a block, from its beginning in a buffer of their own. */
function bytesOf(name) {
  const block = document.getElementById(`data-${name}`);
  return block && Uint8Array.from(atob(block.textContent), (letter) => letter.charCodeAt(0));
}

function jsonOf(name) {
  const bytes = bytesOf(name);
  return bytes && JSON.parse(new TextDecoder().decode(bytes));
}

/** Answers the same questions as the program does, as far as the page's data goes. */
export class Disk {
  constructor() {
    this.told = jsonOf("about");
    this.names = this.told.has_names ? jsonOf("names") : null;
    this.columns = new Map();
    this.selections = [];
  }

  async about() {
    return { ...this.told, is_on_disk: true };
  }

  async places() {
    const state = (kind) => ({ state: this.told.maps.includes(kind) ? "ready" : "absent", phase: "", share: 0 });
    return { pca: state("pca"), umap: state("umap"), explained: this.told.explained };
  }

  async startUmap() {
    throw new Error("this page has no map by UMAP");
  }

  async map(kind) {
    return new Uint16Array(bytesOf(`map-${kind}`).buffer);
  }

  async column(name) {
    if (!this.columns.has(name)) {
      const at = this.told.columns.findIndex((each) => each.name === name);
      const about = jsonOf(`column-${at}`), bytes = bytesOf(`values-${at}`);
      const values = new { 1: Uint8Array, 4: Float32Array, 8: Float64Array }[about.n_bytes](bytes.buffer);
      this.columns.set(name, { ...about, ...this.told.columns[at], values });
    }
    return this.columns.get(name);
  }

  async search(text) {
    const found = [], wanted = text.toLowerCase();
    let total = 0;
    for (let row = 0; row < this.told.n; row++) {
      const record = this.nameOf(row);
      if (!record.toLowerCase().includes(wanted)) continue;
      total++;
      if (found.length < 50) found.push({ row, record, by: "record", text: record });
    }
    return { found, total };
  }

  nameOf(row) {
    return this.names ? this.names[row] : `recording ${row + 1}`;
  }

  async select(bits) {
    const selected = (row) => (bits[row >> 3] >> (row & 7)) & 1;
    const columns = await Promise.all(this.told.columns.map((each) => this.column(each.name)));
    const rows = [];
    for (let row = 0; row < this.told.n; row++) if (selected(row)) rows.push(row);
    this.selections.push(rows);
    return { selection: this.selections.length - 1, n: rows.length, columns: composed(columns, selected, this.told.n) };
  }

  async rows(selection, first) {
    const rows = this.selections[selection];
    return { rows: rows.slice(first, first + PAGE).map((row) => ({ row, record: this.nameOf(row) })), total: rows.length };
  }

  async name(row) {
    return { row, record: this.nameOf(row) };
  }

  async recording(row) {
    const columns = await Promise.all(this.told.columns.map((each) => this.column(each.name)));
    const facts = columns.map((column) => [column.name, textOf(column, row)]);
    return { row, record: this.nameOf(row), facts, flags: null, statements: [], probabilities: [], others: [], n_others: 0 };
  }

  async neighbours(row) {
    const near = bytesOf("near");
    if (!near) return { reason: "this page has no neighbours" };
    const rows = new Int32Array(near.buffer), similarity = new Float32Array(bytesOf("similarity").buffer);
    const k = Math.min(NEIGHBOURS, rows.length / this.told.n);
    const found = [];
    for (let at = row * k; at < (row + 1) * k; at++) {
      if (rows[at] >= 0) found.push({ row: rows[at], record: this.nameOf(rows[at]), similarity: similarity[at] });
    }
    return { neighbours: found, exact: false };
  }

  async ecg(row) {
    return jsonOf(`ecg-${row}`) ?? { reason: "this page has no ECGs" };
  }

  async failures() {
    return { rows: [], total: 0, reasons: this.told.reasons, n_reasons: this.told.reasons.length, several: false };
  }
}

function textOf(column, row) {
  const value = column.values[row];
  if (column.kind === "category") return column.categories[value] ?? (value === 255 ? "" : "other");
  if (column.kind === "time") return Number.isFinite(value) ? new Date(value * 86400000).toISOString().slice(0, 10) : "";
  if (Number.isInteger(value)) return String(value);
  return Number.isFinite(value) ? String(Number(value.toPrecision(6))) : "";
}
