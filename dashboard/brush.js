// A brush over one image: the reader paints which pixels are unknown, with mouse, finger or keys.
//
// data: {image: "rrggbb" for each pixel row by row, unknown: hexadecimal digits as dashboard/masks.py writes them,
//        height, width, colour, label, stroke}
// state "painted": {unknown, stroke}, sent after every stroke. `stroke` counts them: what the page says of an earlier
// stroke than the last one is out of date, and does not undo what was painted since.

const SIDE = 560; // dots of the canvas, shown at half that size so that it is sharp on dense screens

export default function (component) {
  const { data, parentElement, setStateValue } = component;
  const root = parentElement.querySelector(".brush");
  if (!root.brush) root.brush = new Brush(root, data);
  root.brush.send = (value) => setStateValue("painted", value);
  root.brush.take(data);
}

class Brush {
  constructor(root, data) {
    this.root = root;
    this.canvas = root.querySelector("canvas");
    this.stroke = data.stroke;
    this.hides = true;
    this.size = 1;
    this.cursor = null; // the pixel under mouse or keys, [row, column]
    this.painting = null; // what the stroke under way sets pixels to
    this.listen();
  }

  take(data) {
    const resized = !this.data || data.height !== this.data.height || data.width !== this.data.width;
    this.data = data;
    if (resized || (this.painting === null && data.stroke >= this.stroke)) {
      this.unknown = bits(data.unknown, data.height * data.width);
      this.stroke = data.stroke;
      clearTimeout(this.timer);
    }
    this.cell = Math.max(4, Math.floor(SIDE / Math.max(data.height, data.width)));
    this.canvas.width = this.cell * data.width;
    this.canvas.height = this.cell * data.height;
    this.canvas.style.width = `${this.canvas.width / 2}px`;
    this.canvas.setAttribute("aria-label", data.label);
    this.draw();
    this.say();
  }

  draw() {
    const { height, width, image, colour } = this.data;
    const context = this.canvas.getContext("2d");
    const cell = this.cell;
    for (let i = 0; i < height * width; i++) {
      context.fillStyle = this.unknown[i] ? colour : `#${image.slice(6 * i, 6 * i + 6)}`;
      context.fillRect((i % width) * cell, Math.floor(i / width) * cell, cell, cell);
    }
    if (cell >= 8) this.drawGrid(context);
    if (this.cursor) {
      const [top, left, bottom, right] = this.footprint(...this.cursor);
      context.lineWidth = 3;
      context.strokeStyle = this.hides ? "#f08c2e" : "#2fb98d";
      context.strokeRect(left * cell + 1.5, top * cell + 1.5, (right - left) * cell - 3, (bottom - top) * cell - 3);
    }
  }

  drawGrid(context) {
    context.strokeStyle = "rgba(128, 128, 128, 0.35)";
    context.lineWidth = 1;
    context.beginPath();
    for (let x = this.cell; x < this.canvas.width; x += this.cell) {
      context.moveTo(x, 0);
      context.lineTo(x, this.canvas.height);
    }
    for (let y = this.cell; y < this.canvas.height; y += this.cell) {
      context.moveTo(0, y);
      context.lineTo(this.canvas.width, y);
    }
    context.stroke();
  }

  footprint(row, column) {
    const { height, width } = this.data;
    const before = Math.floor((this.size - 1) / 2);
    const top = Math.max(0, row - before), left = Math.max(0, column - before);
    return [top, left, Math.min(height, row - before + this.size), Math.min(width, column - before + this.size)];
  }

  paint(row, column) {
    const [top, left, bottom, right] = this.footprint(row, column);
    for (let r = top; r < bottom; r++)
      for (let c = left; c < right; c++) this.unknown[r * this.data.width + c] = this.painting;
  }

  // Every pixel on the straight way from the last place to this one: a quick mouse leaves no gaps.
  paintTo(row, column) {
    const [fromRow, fromColumn] = this.cursor || [row, column];
    const steps = Math.max(Math.abs(row - fromRow), Math.abs(column - fromColumn), 1);
    for (let i = 0; i <= steps; i++)
      this.paint(
        Math.round(fromRow + ((row - fromRow) * i) / steps),
        Math.round(fromColumn + ((column - fromColumn) * i) / steps),
      );
  }

  finish() {
    this.painting = null;
    this.stroke += 1;
    clearTimeout(this.timer);
    this.send({ unknown: text(this.unknown), stroke: this.stroke });
    this.say();
  }

  finishSoon() {
    this.stroke += 1; // what the page says meanwhile is out of date
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.finish(), 350);
    this.say();
  }

  say() {
    const hidden = this.unknown.reduce((sum, bit) => sum + bit, 0);
    const [row, column] = this.cursor || [null, null];
    const place = row === null ? "" : `row ${row}, column ${column}: ${this.isUnknown(row, column) ? "un" : ""}known; `;
    this.root.querySelector(".said").textContent = `${place}${hidden} of ${this.unknown.length} pixels unknown`;
  }

  isUnknown(row, column) {
    return this.unknown[row * this.data.width + column];
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * this.data.height);
    const column = Math.floor(((event.clientX - box.left) / box.width) * this.data.width);
    return [clamp(row, this.data.height), clamp(column, this.data.width)];
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.painting = this.hides ? 1 : 0;
      this.cursor = this.place(event);
      this.paintTo(...this.cursor);
      this.draw();
    });
    canvas.addEventListener("pointermove", (event) => {
      const place = this.place(event);
      if (this.painting !== null) this.paintTo(...place);
      this.cursor = place;
      this.draw();
    });
    for (const kind of ["pointerup", "pointercancel"])
      canvas.addEventListener(kind, () => {
        if (this.painting !== null) this.finish();
      });
    for (const kind of ["pointerleave", "blur"])
      canvas.addEventListener(kind, () => {
        if (this.painting !== null) return;
        this.cursor = null;
        this.draw();
      });
    canvas.addEventListener("keydown", (event) => this.press(event));
    this.root.querySelector(".tools").addEventListener("click", (event) => this.choose(event.target.closest("button")));
  }

  press(event) {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const move = moves[event.key];
    if (!move && event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    const [row, column] = this.cursor || [0, 0];
    if (move && this.cursor) this.cursor = [clamp(row + move[0], this.data.height), clamp(column + move[1], this.data.width)];
    else this.cursor = [row, column];
    if (!move || event.shiftKey) {
      this.painting = move ? Number(this.hides) : Number(!this.isUnknown(...this.cursor));
      this.paint(...this.cursor);
      this.painting = null;
      this.finishSoon();
    } else this.say();
    this.draw();
  }

  choose(button) {
    if (!button) return;
    const { tool, size, fill } = button.dataset;
    if (tool) this.hides = tool === "hide";
    if (size) this.size = Number(size);
    for (const other of this.root.querySelectorAll(tool ? "[data-tool]" : size ? "[data-size]" : ".none"))
      other.setAttribute("aria-pressed", String(other === button));
    if (fill) {
      this.unknown = this.unknown.map((bit) => (fill === "swap" ? 1 - bit : Number(fill === "hide")));
      this.draw();
      this.finish();
    }
  }
}

const clamp = (place, size) => Math.min(size - 1, Math.max(0, place));

function bits(digits, count) {
  const found = new Uint8Array(count);
  for (let i = 0; i < count; i++) found[i] = (parseInt(digits[i >> 2], 16) >> (3 - (i & 3))) & 1;
  return found;
}

function text(unknown) {
  let digits = "";
  for (let i = 0; i < unknown.length; i += 4) {
    let digit = 0;
    for (let j = 0; j < 4; j++) digit = 2 * digit + (unknown[i + j] || 0);
    digits += digit.toString(16);
  }
  return digits;
}
