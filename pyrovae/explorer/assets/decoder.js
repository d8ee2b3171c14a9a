// The decoder z -> E[x | z] as pyrovae exported it: steps between arrays, run in double precision.
// The operations are torch's, by torch's names; a tensor is {shape, data} with its last dimension changing fastest.

const UNARY = {
  relu: (x) => (x < 0 ? 0 : x),
  tanh: Math.tanh,
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  exp: Math.exp,
  expm1: Math.expm1,
  log: Math.log,
  log1p: Math.log1p,
  neg: (x) => -x,
  abs: Math.abs,
  sqrt: Math.sqrt,
  rsqrt: (x) => 1 / Math.sqrt(x),
  reciprocal: (x) => 1 / x,
  sin: Math.sin,
  cos: Math.cos,
  erf: erf,
  sign: Math.sign,
  isnan: (x) => +Number.isNaN(x),
  logical_not: (x) => +!x,
};
const BINARY = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  maximum: Math.max,
  minimum: Math.min,
  pow: Math.pow,
  le: (a, b) => +(a <= b),
  lt: (a, b) => +(a < b),
  ge: (a, b) => +(a >= b),
  gt: (a, b) => +(a > b),
  eq: (a, b) => +(a === b),
  ne: (a, b) => +(a !== b),
  logical_and: (a, b) => +(a && b),
  logical_or: (a, b) => +(a || b),
};
// Operations that take numbers beside their input.
const WITH = {
  clamp: (s) => {
    const low = s.min ?? -Infinity;
    const high = s.max ?? Infinity;
    return (x) => Math.min(Math.max(x, low), high);
  },
  leaky_relu: (s) => (x) => (x < 0 ? s.negative_slope * x : x),
  elu: (s) => (x) => (x < 0 ? s.alpha * s.scale * Math.expm1(s.input_scale * x) : s.scale * x),
  gelu: (s) =>
    s.approximate === "tanh"
      ? (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))
      : (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
};

// A series of positive terms: no cancellation, and as many of them as double precision takes.
function erf(x) {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

const size = (shape) => shape.reduce((a, b) => a * b, 1);

function strides(shape) {
  const found = new Array(shape.length).fill(1);
  for (let d = shape.length - 2; d >= 0; d--) found[d] = found[d + 1] * shape[d + 1];
  return found;
}

// Where in its source each element of a shape is read from, given the source's stride along each dimension.
function places(shape, step, start = 0) {
  const found = new Int32Array(size(shape));
  const at = new Array(shape.length).fill(0);
  let place = start;
  for (let i = 0; i < found.length; i++) {
    found[i] = place;
    for (let d = shape.length - 1; d >= 0; d--) {
      place += step[d];
      if (++at[d] < shape[d]) break;
      place -= step[d] * shape[d];
      at[d] = 0;
    }
  }
  return found;
}

function broadcast(from, shape) {
  const own = strides(from);
  const lead = shape.length - from.length;
  return places(shape, shape.map((_, d) => (d < lead || from[d - lead] === 1 ? 0 : own[d - lead])));
}

// Each maker gives a function that fills `out` from inputs whose arrays stay where they are.
const MAKERS = {
  reshape: (s, [x], out) => () => out.set(x.data),
  expand: (s, [x], out) => gather(x, broadcast(x.shape, s.shape), out),
  permute: (s, [x], out) => {
    const own = strides(x.shape);
    return gather(x, places(s.shape, s.dims.map((d) => own.at(d))), out);
  },
  slice: (s, [x], out) => {
    const own = strides(x.shape);
    const dim = s.dim < 0 ? s.dim + x.shape.length : s.dim;
    const n = x.shape[dim];
    const first = Math.min(n, Math.max(0, (s.start ?? 0) + (s.start < 0 ? n : 0)));
    return gather(x, places(s.shape, own.map((n, d) => (d === dim ? n * s.step : n)), first * own[dim]), out);
  },
  select: (s, [x], out) => {
    const own = strides(x.shape);
    const dim = s.dim < 0 ? s.dim + x.shape.length : s.dim;
    const index = s.index < 0 ? s.index + x.shape[dim] : s.index;
    return gather(x, places(s.shape, own.filter((_, d) => d !== dim), index * own[dim]), out);
  },
  cat: (s, inputs, out) => {
    const dim = s.dim < 0 ? s.dim + s.shape.length : s.dim;
    const inner = size(s.shape.slice(dim + 1));
    const outer = size(s.shape.slice(0, dim));
    const whole = s.shape[dim] * inner;
    return () => {
      let start = 0;
      for (const x of inputs) {
        const part = x.shape[dim] * inner;
        for (let o = 0; o < outer; o++) out.set(x.data.subarray(o * part, (o + 1) * part), o * whole + start);
        start += part;
      }
    };
  },
  mm: (s, [x, w], out) => () => product(x, w, out.fill(0)),
  addmm: (s, [b, x, w], out) => {
    const start = gather(b, broadcast(b.shape, s.shape), out);
    return () => {
      start();
      product(x, w, out);
    };
  },
  convolution: (s, [x, w, b], out) => convolution(s, x, w, b, out),
  sum: (s, [x], out) => reduce(s, x, out, 0, (a, v) => a + v),
  mean: (s, [x], out) => {
    const sum = reduce(s, x, out, 0, (a, v) => a + v);
    const share = out.length / x.data.length;
    return () => {
      sum();
      for (let i = 0; i < out.length; i++) out[i] *= share;
    };
  },
  amax: (s, [x], out) => reduce(s, x, out, -Infinity, Math.max),
  softmax: (s, [x], out) => softmax(s, x, out, (v, sum) => Math.exp(v) / sum),
  log_softmax: (s, [x], out) => softmax(s, x, out, (v, sum) => v - Math.log(sum)),
  where: (s, inputs, out) => {
    const [c, a, b] = inputs.map((x) => [x.data, broadcast(x.shape, s.shape)]);
    return () => {
      for (let i = 0; i < out.length; i++) out[i] = c[0][c[1][i]] ? a[0][a[1][i]] : b[0][b[1][i]];
    };
  },
};

function gather(x, from, out) {
  return () => {
    for (let i = 0; i < out.length; i++) out[i] = x.data[from[i]];
  };
}

function product(x, w, out) {
  const [n, m] = w.shape;
  for (let r = 0; r < x.shape[0]; r++) {
    const row = out.subarray(r * m, (r + 1) * m);
    for (let i = 0; i < n; i++) {
      const v = x.data[r * n + i];
      if (v === 0) continue; // half of them, after a relu
      const own = i * m;
      for (let j = 0; j < m; j++) row[j] += v * w.data[own + j];
    }
  }
}

function convolution(s, x, w, b, out) {
  const [, channels, height, width] = s.shape;
  const [, inputs, h, l] = x.shape;
  const [kh, kw] = w.shape.slice(2);
  const [sy, sx] = s.stride;
  const [py, px] = s.padding;
  return () => {
    for (let o = 0; o < channels; o++) {
      const plane = out.subarray(o * height * width, (o + 1) * height * width).fill(b ? b.data[o] : 0);
      for (let c = 0; c < inputs; c++) {
        const kernel = (s.transposed ? c * channels + o : o * inputs + c) * kh * kw;
        for (let ky = 0; ky < kh; ky++) {
          for (let kx = 0; kx < kw; kx++) {
            const v = w.data[kernel + ky * kw + kx];
            if (s.transposed) {
              spread(x.data, c * h * l, h, l, plane, height, width, ky - py, kx - px, sy, sx, v);
            } else {
              collect(x.data, c * h * l, h, l, plane, height, width, ky - py, kx - px, sy, sx, v);
            }
          }
        }
      }
    }
  };
}

// plane[y, x] += v source[y sy + dy, x sx + dx], wherever that is in the source
function collect(source, start, h, l, plane, height, width, dy, dx, sy, sx, v) {
  const x0 = Math.max(0, Math.ceil(-dx / sx));
  const x1 = Math.min(width, Math.ceil((l - dx) / sx));
  for (let y = Math.max(0, Math.ceil(-dy / sy)); y < height && y * sy + dy < h; y++) {
    const row = start + (y * sy + dy) * l + dx;
    for (let x = x0; x < x1; x++) plane[y * width + x] += v * source[row + x * sx];
  }
}

// plane[y sy + dy, x sx + dx] += v source[y, x], wherever that is in the plane
function spread(source, start, h, l, plane, height, width, dy, dx, sy, sx, v) {
  const x0 = Math.max(0, Math.ceil(-dx / sx));
  const x1 = Math.min(l, Math.ceil((width - dx) / sx));
  for (let y = Math.max(0, Math.ceil(-dy / sy)); y < h && y * sy + dy < height; y++) {
    const row = (y * sy + dy) * width + dx;
    for (let x = x0; x < x1; x++) plane[row + x * sx] += v * source[start + y * l + x];
  }
}

function reduce(s, x, out, start, fold) {
  const gone = new Set((s.dim ?? []).map((d) => (d < 0 ? d + x.shape.length : d)));
  const over = gone.size ? gone : new Set(x.shape.keys());
  const kept = strides(x.shape.map((n, d) => (over.has(d) ? 1 : n)));
  const into = places(x.shape, kept.map((n, d) => (over.has(d) ? 0 : n)));
  return () => {
    out.fill(start);
    for (let i = 0; i < into.length; i++) out[into[i]] = fold(out[into[i]], x.data[i]);
  };
}

function softmax(s, x, out, finish) {
  const dim = s.dim < 0 ? s.dim + x.shape.length : s.dim;
  const n = x.shape[dim];
  const inner = size(x.shape.slice(dim + 1));
  return () => {
    for (let first = 0; first < x.data.length; first += first % inner === inner - 1 ? (n - 1) * inner + 1 : 1) {
      let most = -Infinity;
      let sum = 0;
      for (let i = 0; i < n; i++) most = Math.max(most, x.data[first + i * inner]);
      for (let i = 0; i < n; i++) sum += Math.exp(x.data[first + i * inner] - most);
      for (let i = 0; i < n; i++) out[first + i * inner] = finish(x.data[first + i * inner] - most, sum);
    }
  };
}

function pointwise(s, inputs, out) {
  const own = UNARY[s.op] ?? WITH[s.op]?.(s);
  if (own) {
    const x = inputs[0].data;
    return () => {
      for (let i = 0; i < out.length; i++) out[i] = own(x[i]);
    };
  }
  const both = BINARY[s.op];
  const [a, b] = inputs;
  const [at, bt] = [broadcast(a.shape, s.shape), broadcast(b.shape, s.shape)];
  return () => {
    for (let i = 0; i < out.length; i++) out[i] = both(a.data[at[i]], b.data[bt[i]]);
  };
}

// The function of a list of steps: from z, L numbers, to an array that the next call overwrites.
function compile(steps, weights, length) {
  const values = [{ shape: [1, length], data: new Float64Array(length) }];
  const runs = steps.map((step) => {
    const inputs = step.in.map((a) =>
      typeof a === "number" ? { shape: [], data: Float64Array.of(a) } : "v" in a ? values[a.v] : weights[a.w],
    );
    const out = new Float64Array(size(step.shape));
    values.push({ shape: step.shape, data: out });
    return (MAKERS[step.op] ?? pointwise)(step, inputs, out);
  });
  const result = values[values.length - 1].data;
  return (z) => {
    values[0].data.set(z);
    for (const run of runs) run();
    return result;
  };
}
