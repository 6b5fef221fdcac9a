// The recordings on the map: where they lie, their colours, which are shown and which are selected.

export const MISSING = 255;
export const OTHER = 254;

/** As many recordings as there are; everything about each is in typed arrays. */
export class Points {
  constructor(n) {
    this.n = n;
    this.places = new Uint16Array(2 * n);
    this.codes = new Uint8Array(n);
    this.shown = new Uint8Array(n).fill(1);
    this.selected = new Uint8Array(n);
    this.nShown = n;
    this.nSelected = 0;
  }

  /** Show those of which a bit is set; all without bits. */
  show(bits) {
    this.nShown = bits ? unpack(bits, this.shown) : this.n;
    if (!bits) this.shown.fill(1);
  }

  /** Select those for which a function of the row is true, among those shown: "new", "add" to it or "take" away. */
  select(holds, how = "new") {
    const { n, shown, selected } = this;
    let nSelected = 0;
    for (let row = 0; row < n; row++) {
      const hit = shown[row] === 1 && holds(row);
      if (how === "new") selected[row] = hit ? 1 : 0;
      else if (hit) selected[row] = how === "add" ? 1 : 0;
      nSelected += selected[row];
    }
    this.nSelected = nSelected;
  }

  /** Select what is not selected, among those shown. */
  invert() {
    this.select((row) => this.selected[row] === 0);
  }

  /** A bit for each recording that is selected. */
  bits() {
    const bits = new Uint8Array((this.n + 7) >> 3);
    for (let row = 0; row < this.n; row++) if (this.selected[row]) bits[row >> 3] |= 1 << (row & 7);
    return bits;
  }

  /** The recording nearest to a place, no further than a distance; -1 if there is none. */
  nearest(x, y, distance) {
    const { n, places, shown } = this;
    let best = distance * distance, found = -1;
    for (let row = 0; row < n; row++) {
      if (!shown[row]) continue;
      const dx = places[2 * row] - x, dy = places[2 * row + 1] - y, square = dx * dx + dy * dy;
      if (square <= best) {
        best = square;
        found = row;
      }
    }
    return found;
  }

  /** Low and high ends of x and y that hold nearly all recordings: a few far ones do not make the others small. */
  extent() {
    const step = Math.max(1, Math.floor(this.n / 50000));
    const ends = [];
    for (const axis of [0, 1]) {
      const values = [];
      for (let row = 0; row < this.n; row += step) values.push(this.places[2 * row + axis]);
      values.sort((one, other) => one - other);
      const cut = Math.floor(values.length * 0.001);
      ends.push([values[cut] ?? 0, values[values.length - 1 - cut] ?? 65535]);
    }
    return ends;
  }
}

/** Write bits into bytes of 0 and 1; the number of ones. */
function unpack(bits, into) {
  let ones = 0;
  for (let row = 0; row < into.length; row++) {
    into[row] = (bits[row >> 3] >> (row & 7)) & 1;
    ones += into[row];
  }
  return ones;
}
