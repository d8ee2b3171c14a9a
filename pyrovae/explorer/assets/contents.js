// What the page holds, read; where it stands; and what both say of an image.

const page = JSON.parse(byId("contents").textContent);

function bytes(text) {
  const raw = atob(text);
  const found = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) found[i] = raw.charCodeAt(i);
  return found;
}

function floats(text) {
  return Float64Array.from(new Float32Array(bytes(text).buffer));
}

const rowsOf = (numbers, width) =>
  Array.from({ length: numbers.length / width }, (_, i) => numbers.subarray(i * width, (i + 1) * width));

const L = page.latent;
const D = size(page.event);
const [low, high] = page.span;
const numbers = floats(page.weights);
let used = 0;
const weights = page.shapes.map((shape) => ({ shape, data: numbers.subarray(used, (used += size(shape))) }));
const decoders = page.graphs.map((graph) => compile(graph.steps, weights, L));
const images = rowsOf(Float64Array.from(bytes(page.images), (v) => page.offset + v * page.unit), D);
const codes = rowsOf(floats(page.codes), L);
const widths = page.widths && rowsOf(floats(page.widths), L);
const draws = page.prior ? rowsOf(floats(page.prior), L) : [];
const N = images.length;

const state = {
  z: Float64Array.from(codes[0]),
  chosen: 0,
  graph: page.of ? page.of[0] : 0,
  axes: page.order.slice(0, 2).sort((a, b) => a - b),
  noise: [],
  seed: 1,
  draw: 0,
  plane: null, // {z, x, directions}: where the tangent plane was taken
  pick: 0, // one of its directions
  path: null, // {from, to, curve}: the geodesic between two images
};
if (L === 1) state.axes = [0, 0];

const f = (z) => decoders[state.graph](z);
const map = new Plane(byId("plane"));
const cloud = new Plane(byId("cloud"));
const short = (v) => (Math.abs(v) >= 100 ? v.toFixed(0) : v.toFixed(2));
const classOf = (i) => (page.labels ? String(page.labels[i]) : null);
const nameOf = (i) => `image ${i}${page.labels ? `, class ${classOf(i)}` : ""}`;
const tint = (i) => (page.labels ? page.palette[page.labels[i] % page.palette.length] : colour("--accent"));

// A reproducible normal draw, by Marsaglia's polar method over a linear congruential generator.
function* normals(seed) {
  let s = (seed * 2654435761 + 12345) % 4294967296;
  const uniform = () => (s = (s * 1664525 + 1013904223) % 4294967296) / 4294967296;
  for (;;) {
    const [u, v] = [2 * uniform() - 1, 2 * uniform() - 1];
    const r = u * u + v * v;
    if (r === 0 || r >= 1) continue;
    const scale = Math.sqrt((-2 * Math.log(r)) / r);
    yield u * scale;
    yield v * scale;
  }
}

function nearest(x, count) {
  const distance = images.map((image) => {
    let sum = 0;
    for (let i = 0; i < D; i++) sum += (image[i] - x[i]) ** 2;
    return Math.sqrt(sum);
  });
  return [...distance.keys()].sort((a, b) => distance[a] - distance[b]).slice(0, count).map((i) => [i, distance[i]]);
}
