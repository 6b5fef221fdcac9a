// Which part of the map is seen, and how large: from coordinates (0 to 65535) to pixels of the canvas and back.

const CLOSEST = 60;
const FURTHEST = 0.4;

/** A part of the map; x and y are the coordinates in the middle, scale is pixels per coordinate. */
export class View {
  constructor() {
    this.width = this.height = 1;
    this.ratio = 1;
    this.x = this.y = 32768;
    this.scale = this.fitted = 1 / 100;
  }

  /** Take the size of the canvas in pixels; what is in the middle stays there. */
  resize(width, height, ratio) {
    const before = Math.min(this.width, this.height);
    [this.width, this.height, this.ratio] = [width, height, ratio];
    this.scale *= Math.min(width, height) / before;
    this.fitted *= Math.min(width, height) / before;
  }

  /** Show all of an extent. */
  fit([[left, right], [low, high]]) {
    const width = Math.max(right - left, 1), height = Math.max(high - low, 1);
    this.scale = this.fitted = 0.9 * Math.min(this.width / width, this.height / height, this.width / 64);
    [this.x, this.y] = [(left + right) / 2, (low + high) / 2];
  }

  /** Move by pixels. */
  move(dx, dy) {
    this.x = Math.min(Math.max(this.x - dx / this.scale, 0), 65535);
    this.y = Math.min(Math.max(this.y + dy / this.scale, 0), 65535);
  }

  /** Zoom by a factor; what is at a pixel stays there. */
  zoom(factor, px = this.width / 2, py = this.height / 2) {
    const [x, y] = this.placeOf(px, py);
    this.scale = Math.min(Math.max(this.scale * factor, FURTHEST * this.fitted), CLOSEST * this.width / 65535);
    const [movedX, movedY] = this.pixelOf(x, y);
    this.move(px - movedX, py - movedY);
  }

  /** The pixel of a place; up is up. */
  pixelOf(x, y) {
    return [(x - this.x) * this.scale + this.width / 2, (this.y - y) * this.scale + this.height / 2];
  }

  /** The place of a pixel. */
  placeOf(px, py) {
    return [(px - this.width / 2) / this.scale + this.x, this.y - (py - this.height / 2) / this.scale];
  }
}
