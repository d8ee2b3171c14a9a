// Pictures: images as pixels, the map of two latent dimensions, and densities on a grid.

const byId = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// [C, H, W] numbers as pixels, black at `low` and white at `high`.
function drawImage(canvas, x, [channels, height, width], low, high) {
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const plane = height * width;
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) {
      pixels.data[4 * i + c] = (255 * (x[channels === 3 ? c * plane + i : i] - low)) / (high - low);
    }
    pixels.data[4 * i + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
}

// A direction: blue where it takes ink away, white where it leaves it, orange where it adds.
function drawDirection(canvas, u, [channels, height, width]) {
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const plane = height * width;
  const shade = (i) => {
    let sum = 0;
    for (let c = 0; c < channels; c++) sum += u[c * plane + i] / channels;
    return sum;
  };
  let most = 1e-12;
  for (let i = 0; i < plane; i++) most = Math.max(most, Math.abs(shade(i)));
  for (let i = 0; i < plane; i++) {
    const t = shade(i) / most;
    const end = t < 0 ? [0, 114, 178] : [213, 94, 0];
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = 255 + Math.abs(t) * (end[c] - 255);
    pixels.data[4 * i + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
}

// A square canvas with axes in the units of the latents.
class Plane {
  constructor(canvas) {
    this.canvas = canvas;
    this.x = [-3, 3];
    this.y = [-3, 3];
  }

  begin(x, y, names) {
    const sharp = window.devicePixelRatio || 1;
    this.side = Math.max(200, this.canvas.clientWidth);
    this.canvas.style.height = `${this.side}px`;
    this.canvas.width = this.canvas.height = Math.round(this.side * sharp);
    this.context = this.canvas.getContext("2d");
    this.context.scale(sharp, sharp);
    this.context.clearRect(0, 0, this.side, this.side);
    this.edge = 34;
    [this.x, this.y] = [x, y];
    this.names = names;
  }

  // What is drawn so far, for later frames.
  keep() {
    this.kept ??= document.createElement("canvas");
    [this.kept.width, this.kept.height] = [this.canvas.width, this.canvas.height];
    this.kept.getContext("2d").drawImage(this.canvas, 0, 0);
  }

  restore() {
    this.context.clearRect(0, 0, this.side, this.side);
    this.context.drawImage(this.kept, 0, 0, this.side, this.side);
  }

  px(v) {
    return this.edge + ((v - this.x[0]) / (this.x[1] - this.x[0])) * (this.side - this.edge - 6);
  }

  py(v) {
    return this.side - this.edge - ((v - this.y[0]) / (this.y[1] - this.y[0])) * (this.side - this.edge - 6);
  }

  // the latents under a pointer
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const inner = this.side - this.edge - 6;
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    const clip = (t) => Math.min(1, Math.max(0, t));
    return [
      this.x[0] + clip((px - this.edge) / inner) * (this.x[1] - this.x[0]),
      this.y[0] + clip((this.side - this.edge - py) / inner) * (this.y[1] - this.y[0]),
    ];
  }

  axes() {
    const c = this.context;
    c.fillStyle = c.strokeStyle = colour("--quiet");
    c.font = "12px system-ui, sans-serif";
    c.lineWidth = 1;
    c.strokeRect(this.edge, 6, this.side - this.edge - 6, this.side - this.edge - 6);
    for (const [range, horizontal] of [[this.x, true], [this.y, false]]) {
      const gap = tick(range[1] - range[0]);
      for (let v = Math.ceil(range[0] / gap) * gap; v <= range[1]; v += gap) {
        const text = String(+v.toFixed(6));
        c.textAlign = horizontal ? "center" : "right";
        c.textBaseline = horizontal ? "top" : "middle";
        if (horizontal) c.fillText(text, this.px(v), this.side - this.edge + 4);
        else if (this.py(v) > 22) c.fillText(text, this.edge - 4, this.py(v)); // above it is the name
      }
    }
    c.fillStyle = colour("--text");
    c.textAlign = "right";
    c.textBaseline = "bottom";
    c.fillText(this.names[0], this.side - 8, this.side - 2);
    c.textAlign = "left";
    c.textBaseline = "top";
    c.fillText(this.names[1], 2, 4);
  }

  dot(x, y, fill, radius) {
    const c = this.context;
    c.fillStyle = fill;
    c.beginPath();
    c.arc(this.px(x), this.py(y), radius, 0, 2 * Math.PI);
    c.fill();
  }

  mark(x, y, fill, text) {
    const c = this.context;
    c.fillStyle = fill;
    c.textAlign = "center";
    c.textBaseline = "middle";
    c.font = "600 12px system-ui, sans-serif";
    c.lineWidth = 0.4; // pale colours stand out from what is behind them
    c.strokeStyle = colour("--text");
    c.fillText(text, this.px(x), this.py(y));
    c.strokeText(text, this.px(x), this.py(y));
  }

  cross(x, y, stroke) {
    const c = this.context;
    const [px, py] = [this.px(x), this.py(y)];
    for (const [width, style] of [[5, colour("--ground")], [2.5, stroke]]) {
      c.lineWidth = width;
      c.strokeStyle = style;
      c.beginPath();
      c.arc(px, py, 8, 0, 2 * Math.PI);
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        c.moveTo(px + 8 * dx, py + 8 * dy);
        c.lineTo(px + 14 * dx, py + 14 * dy);
      }
      c.stroke();
    }
  }

  line(points, stroke, dashes = []) {
    const c = this.context;
    c.strokeStyle = stroke;
    c.lineWidth = 2;
    c.setLineDash(dashes);
    c.beginPath();
    for (const [x, y] of points) c.lineTo(this.px(x), this.py(y));
    c.stroke();
    c.setLineDash([]);
  }

  // A density on a grid, the stronger the more it is: `share` in [0, 1], rows along y from below.
  area(share, xs, ys, fill) {
    const dots = document.createElement("canvas");
    [dots.width, dots.height] = [xs.length, ys.length];
    const context = dots.getContext("2d");
    context.fillStyle = fill;
    for (let i = 0; i < ys.length; i++) {
      for (let j = 0; j < xs.length; j++) {
        context.globalAlpha = share[i * xs.length + j];
        context.fillRect(j, ys.length - 1 - i, 1, 1);
      }
    }
    const [dx, dy] = [(xs[1] - xs[0]) / 2, (ys[1] - ys[0]) / 2];
    const [left, top] = [this.px(xs[0] - dx), this.py(ys.at(-1) + dy)];
    this.context.imageSmoothingEnabled = true;
    this.context.drawImage(dots, left, top, this.px(xs.at(-1) + dx) - left, this.py(ys[0] - dy) - top);
  }

  // The line where a function on a grid has a level: marching squares.
  contour(values, xs, ys, level, stroke) {
    const c = this.context;
    const n = xs.length;
    c.strokeStyle = stroke;
    c.lineWidth = 1.8;
    c.beginPath();
    for (let i = 0; i + 1 < ys.length; i++) {
      for (let j = 0; j + 1 < n; j++) {
        const corners = [[i, j], [i, j + 1], [i + 1, j + 1], [i + 1, j]];
        const cuts = [];
        corners.forEach(([r, s], k) => {
          const [r2, s2] = corners[(k + 1) % 4];
          const [a, b] = [values[r * n + s] - level, values[r2 * n + s2] - level];
          if (a < 0 === b < 0) return;
          const t = a / (a - b);
          cuts.push([this.px(xs[s] + t * (xs[s2] - xs[s])), this.py(ys[r] + t * (ys[r2] - ys[r]))]);
        });
        for (let k = 0; k + 1 < cuts.length; k += 2) {
          c.moveTo(...cuts[k]);
          c.lineTo(...cuts[k + 1]);
        }
      }
    }
    c.stroke();
  }
}

// A round distance for some six ticks.
function tick(range) {
  const rough = range / 6;
  const unit = 10 ** Math.floor(Math.log10(rough));
  return unit * (rough < 1.5 * unit ? 1 : rough < 3.5 * unit ? 2 : rough < 7.5 * unit ? 5 : 10);
}

// The value of a log density below which the rest of its mass lies.
function levelOf(logs, mass) {
  const most = Math.max(...logs);
  const sorted = Float64Array.from(logs, (v) => Math.exp(v - most)).sort().reverse();
  const whole = sorted.reduce((a, b) => a + b, 0);
  let sum = 0;
  for (const v of sorted) if ((sum += v) >= mass * whole) return most + Math.log(v);
  return most;
}
