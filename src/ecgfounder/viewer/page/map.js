// The map on the page: sizes, frames, marks over the points, and what is done to it by mouse, touch and keys.

import { Painter } from "./painter.js";
import { View } from "./view.js";

const NEAR = 12; // pixels of the page
const STEP = 60;
const BOX_STEP = 12;
const MOST_PIXELS = 2_500_000;
const HOVER_WAIT = 120;

/** Shows points, and tells what was clicked, pointed to and enclosed by its listeners. */
export class Chart {
  /** `listeners`: open(row), select(holds, how), hover(row, done). */
  constructor(stage, canvas, marks, listeners) {
    this.stage = stage;
    this.canvas = canvas;
    this.marks = marks;
    this.pen = marks.getContext("2d");
    this.painter = new Painter(canvas);
    this.view = new View();
    this.listeners = listeners;
    this.tool = "move";
    this.points = null;
    this.colours = new Uint8Array(768);
    this.current = -1;
    this.others = [];
    this.path = []; // of a lasso, in pixels of the canvas
    this.box = null; // left, top, width, height, in pixels of the canvas
    this.pointers = new Map();
    this.isStale = false;
    new ResizeObserver(() => this.resize()).observe(stage);
    this.listen();
  }

  /** Show points in colours by code, all of them in view. */
  show(points, colours) {
    this.points = points;
    this.colours = colours;
    this.resize();
    this.fit();
  }

  /** Take other colours. */
  colour(colours) {
    this.colours = colours;
    this.redraw();
  }

  /** Mark a recording and others around it; none with -1. */
  mark(row, others = []) {
    [this.current, this.others] = [row, others];
    if (row >= 0) this.bring(row);
    this.redraw();
  }

  fit() {
    if (this.points) this.view.fit(this.points.extent());
    this.redraw();
  }

  resize() {
    const { clientWidth, clientHeight } = this.stage;
    if (!clientWidth || !clientHeight) return;
    const ratio = Math.min(devicePixelRatio || 1, Math.sqrt(MOST_PIXELS / (clientWidth * clientHeight)));
    const width = Math.round(clientWidth * ratio), height = Math.round(clientHeight * ratio);
    if (width === this.canvas.width && height === this.canvas.height && this.painter.image) return;
    this.painter.resize(width, height);
    [this.marks.width, this.marks.height] = [width, height];
    this.view.resize(width, height, ratio);
    this.redraw();
  }

  /** Draw in the next frame. */
  redraw() {
    if (this.isStale) return;
    this.isStale = true;
    requestAnimationFrame(() => {
      this.isStale = false;
      if (this.points && this.painter.image) this.painter.draw(this.points, this.view, this.colours);
      this.drawMarks();
    });
  }

  // --- marks over the points ---------------------------------------------------------------------------------------

  drawMarks() {
    const { pen, view } = this, style = getComputedStyle(this.stage);
    const [ink, accent] = [style.getPropertyValue("--ink"), style.getPropertyValue("--accent")];
    pen.clearRect(0, 0, this.marks.width, this.marks.height);
    pen.lineWidth = 2 * view.ratio;
    pen.strokeStyle = accent;
    for (const row of this.others) this.ring(row, 6);
    pen.strokeStyle = ink;
    if (this.current >= 0) this.ring(this.current, 9);
    if (this.path.length > 1) {
      pen.setLineDash([6 * view.ratio, 4 * view.ratio]);
      pen.beginPath();
      this.path.forEach(([x, y]) => pen.lineTo(x, y));
      pen.closePath();
      pen.stroke();
      pen.setLineDash([]);
    }
    if (this.box) pen.strokeRect(...this.box);
    else if (document.activeElement === this.stage && this.stage.matches(":focus-visible")) this.cross();
  }

  ring(row, radius) {
    const [x, y] = this.view.pixelOf(this.points.places[2 * row], this.points.places[2 * row + 1]);
    this.pen.beginPath();
    this.pen.arc(x, y, radius * this.view.ratio, 0, 2 * Math.PI);
    this.pen.stroke();
  }

  cross() {
    const { pen } = this, x = this.marks.width / 2, y = this.marks.height / 2, arm = 9 * this.view.ratio;
    pen.beginPath();
    pen.moveTo(x - arm, y);
    pen.lineTo(x + arm, y);
    pen.moveTo(x, y - arm);
    pen.lineTo(x, y + arm);
    pen.stroke();
  }

  /** Move the view if a recording is not in it. */
  bring(row) {
    const [x, y] = [this.points.places[2 * row], this.points.places[2 * row + 1]];
    const [px, py] = this.view.pixelOf(x, y);
    if (px < 0 || py < 0 || px > this.view.width || py > this.view.height) [this.view.x, this.view.y] = [x, y];
  }

  // --- what encloses recordings ------------------------------------------------------------------------------------

  /** Select what a path encloses, as it is drawn: a picture of it says for each pixel whether it is inside. */
  selectPath(how) {
    const { width, height } = this.canvas;
    const picture = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    picture.beginPath();
    this.path.forEach(([x, y]) => picture.lineTo(x, y));
    picture.closePath();
    picture.fill("evenodd");
    const inside = new Uint32Array(picture.getImageData(0, 0, width, height).data.buffer);
    this.selectPixels((x, y) => x >= 0 && y >= 0 && x < width && y < height && inside[y * width + x] >>> 24 > 127, how);
  }

  selectBox([left, top, width, height], how) {
    this.selectPixels((x, y) => x >= left && y >= top && x <= left + width && y <= top + height, how);
  }

  selectPixels(isInside, how) {
    const { view } = this, { places } = this.points;
    const left = view.width / 2 - view.x * view.scale, top = view.height / 2 + view.y * view.scale;
    this.listeners.select((row) =>
      isInside(Math.floor(places[2 * row] * view.scale + left), Math.floor(top - places[2 * row + 1] * view.scale)), how);
  }

  /** The recording at a pixel; -1 if there is none near. */
  rowAt(px, py, near = NEAR) {
    if (!this.points) return -1;
    const [x, y] = this.view.placeOf(px, py);
    return this.points.nearest(x, y, (near * this.view.ratio) / this.view.scale);
  }

  // --- mouse and touch ---------------------------------------------------------------------------------------------

  listen() {
    const { stage } = this;
    stage.addEventListener("pointerdown", (event) => this.press(event));
    stage.addEventListener("pointermove", (event) => this.drag(event));
    stage.addEventListener("pointerup", (event) => this.release(event));
    stage.addEventListener("pointercancel", (event) => this.cancel(event));
    stage.addEventListener("pointerleave", () => this.hover(-1));
    stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    stage.addEventListener("keydown", (event) => this.key(event));
    stage.addEventListener("focus", () => this.redraw());
    stage.addEventListener("blur", () => this.redraw());
  }

  pixel(event) {
    const { left, top } = this.stage.getBoundingClientRect();
    return [(event.clientX - left) * this.view.ratio, (event.clientY - top) * this.view.ratio];
  }

  press(event) {
    if (!this.points || event.button > 0) return;
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.pixel(event));
    this.start = this.pixel(event);
    this.moved = false;
    this.doing = event.shiftKey ? "lasso" : this.tool;
    this.path = this.doing === "lasso" ? [this.start] : [];
    this.box = null;
  }

  drag(event) {
    const at = this.pixel(event), before = this.pointers.get(event.pointerId);
    if (!before) {
      this.point(at);
      return;
    }
    if (Math.hypot(at[0] - this.start[0], at[1] - this.start[1]) > 4 * this.view.ratio) this.moved = true;
    if (this.pointers.size === 2) {
      this.pinch(event.pointerId, at);
    } else if (this.doing === "move") {
      this.view.move(at[0] - before[0], at[1] - before[1]);
    } else if (this.doing === "lasso") {
      this.path.push(at);
    } else {
      const [x, y] = this.start;
      this.box = [Math.min(x, at[0]), Math.min(y, at[1]), Math.abs(at[0] - x), Math.abs(at[1] - y)];
    }
    this.pointers.set(event.pointerId, at);
    this.redraw();
  }

  pinch(pointer, at) {
    const other = [...this.pointers.entries()].find(([each]) => each !== pointer)[1];
    const before = this.pointers.get(pointer);
    const far = (place) => Math.max(1, Math.hypot(place[0] - other[0], place[1] - other[1]));
    this.view.zoom(far(at) / far(before), (at[0] + other[0]) / 2, (at[1] + other[1]) / 2);
    [this.path, this.box, this.doing] = [[], null, "move"];
  }

  release(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (!this.moved) {
      const row = this.rowAt(...this.pixel(event));
      if (row >= 0) this.listeners.open(row);
    } else if (this.path.length > 2) {
      this.selectPath();
    } else if (this.box) {
      this.selectBox(this.box);
    }
    [this.path, this.box] = [[], null];
    this.redraw();
  }

  cancel(event) {
    this.pointers.delete(event.pointerId);
    [this.path, this.box] = [[], null];
    this.redraw();
  }

  wheel(event) {
    event.preventDefault();
    if (!this.points) return;
    const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
    this.view.zoom(Math.exp(-pixels / 400), ...this.pixel(event));
    this.redraw();
  }

  /** Look for what is pointed to, when the pointer rests. */
  point(at) {
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.hover(this.rowAt(...at)), HOVER_WAIT);
  }

  hover(row) {
    clearTimeout(this.resting);
    const place = row < 0 ? null : this.view.pixelOf(this.points.places[2 * row], this.points.places[2 * row + 1]);
    this.listeners.hover(row, place && place.map((each) => each / this.view.ratio));
  }

  // --- keys --------------------------------------------------------------------------------------------------------

  key(event) {
    if (!this.points || event.ctrlKey || event.metaKey || event.altKey) return;
    const does = this.box ? this.keyOfBox(event) : this.keyOfMap(event);
    if (does) {
      event.preventDefault();
      this.redraw();
    }
  }

  keyOfMap(event) {
    const { view } = this, step = STEP * view.ratio;
    const keys = {
      ArrowLeft: () => view.move(step, 0),
      ArrowRight: () => view.move(-step, 0),
      ArrowUp: () => view.move(0, step),
      ArrowDown: () => view.move(0, -step),
      "+": () => view.zoom(1.4),
      "=": () => view.zoom(1.4),
      "-": () => view.zoom(1 / 1.4),
      0: () => this.fit(),
      b: () => this.beginBox(),
      B: () => this.beginBox(),
      Enter: () => this.openMiddle(),
    };
    keys[event.key]?.();
    return event.key in keys;
  }

  openMiddle() {
    const row = this.rowAt(this.view.width / 2, this.view.height / 2, 1e6);
    if (row >= 0) this.listeners.open(row);
  }

  beginBox() {
    const { width, height } = this.view;
    this.box = [0.375 * width, 0.375 * height, 0.25 * width, 0.25 * height];
  }

  keyOfBox(event) {
    const step = BOX_STEP * this.view.ratio, box = this.box;
    const steps = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key in steps) {
      const [dx, dy] = steps[event.key];
      if (event.shiftKey) {
        box[2] = Math.max(step, box[2] + dx);
        box[3] = Math.max(step, box[3] + dy);
      } else {
        box[0] += dx;
        box[1] += dy;
      }
      return true;
    }
    if (event.key === "Enter") this.selectBox(box);
    if (event.key === "Enter" || event.key === "Escape") this.box = null;
    return event.key === "Enter" || event.key === "Escape";
  }
}
