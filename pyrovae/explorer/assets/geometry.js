// What the decoder f does to latent space: tangent planes and shortest curves.

const STEP = 1e-4; // of central differences, whose error is of the order of its square

// ∂f/∂z at z: its L columns.
function jacobian(f, z) {
  return Array.from(z, (_, l) => {
    const at = Float64Array.from(z);
    at[l] = z[l] + STEP;
    const column = Float64Array.from(f(at));
    at[l] = z[l] - STEP;
    const before = f(at);
    for (let i = 0; i < column.length; i++) column[i] = (column[i] - before[i]) / (2 * STEP);
    return column;
  });
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

const norm = (a) => Math.sqrt(dot(a, a));

// Eigenvalues of a symmetric matrix, greatest first, and their vectors: Jacobi's rotations.
function eigen(matrix) {
  const n = matrix.length;
  const a = matrix.map((row) => Float64Array.from(row));
  const v = a.map((_, i) => Float64Array.from(a, (_, j) => +(i === j)));
  const scale = Math.max(...a.map((row, i) => Math.abs(row[i])), 1e-300);
  for (let sweep = 0; sweep < 60; sweep++) {
    let rest = 0;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        rest = Math.max(rest, Math.abs(a[p][q]));
        if (Math.abs(a[p][q]) <= 1e-16 * scale) continue;
        const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
        const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1));
        const c = 1 / Math.hypot(t, 1);
        const s = t * c;
        for (let k = 0; k < n; k++) [a[k][p], a[k][q]] = [c * a[k][p] - s * a[k][q], s * a[k][p] + c * a[k][q]];
        for (let k = 0; k < n; k++) [a[p][k], a[q][k]] = [c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]];
        for (let k = 0; k < n; k++) [v[k][p], v[k][q]] = [c * v[k][p] - s * v[k][q], s * v[k][p] + c * v[k][q]];
      }
    }
    if (rest <= 1e-15 * scale) break;
  }
  const order = [...a.keys()].sort((i, j) => a[j][j] - a[i][i]);
  return { values: order.map((i) => a[i][i]), vectors: order.map((i) => v.map((row) => row[i])) };
}

// J = U S Vᵀ at z: f(z + t v_l) ≈ f(z) + t s_l u_l. Signs are free, and those whose s is 0 have no u.
function tangents(f, z) {
  const columns = jacobian(f, z);
  const { values, vectors } = eigen(columns.map((a) => columns.map((b) => dot(a, b))));
  return vectors.map((v, l) => {
    const s = Math.sqrt(Math.max(values[l], 0));
    const u = new Float64Array(columns[0].length);
    columns.forEach((column, k) => {
      for (let i = 0; i < u.length; i++) u[i] += (v[k] * column[i]) / (s || 1);
    });
    return { v, s, u };
  });
}

// x of A x = b for a symmetric, positive definite A, by Cholesky's factors; null where it is not definite.
function solve(a, b) {
  const n = b.length;
  const g = a.map((row) => Float64Array.from(row));
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = g[i][j];
      for (let k = 0; k < j; k++) sum -= g[i][k] * g[j][k];
      if (i === j && !(sum > 0)) return null;
      g[i][j] = i === j ? Math.sqrt(sum) : sum / g[j][j];
    }
  }
  const x = Float64Array.from(b);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < i; k++) x[i] -= g[i][k] * x[k];
    x[i] /= g[i][i];
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) x[i] -= g[k][i] * x[k];
    x[i] /= g[i][i];
  }
  return x;
}

const between = (a, b, t) => Float64Array.from(a, (v, i) => v + t * (b[i] - v));

// The point at a share t of a curve's pieces.
function along(curve, t) {
  const pieces = curve.length - 1;
  const i = Math.min(Math.floor(t * pieces), pieces - 1);
  return between(curve[i], curve[i + 1], t * pieces - i);
}

// Of f along a curve with straight pieces, measured at four points for each.
function lengthOf(f, curve) {
  const points = 4 * (curve.length - 1);
  let before = Float64Array.from(f(curve[0]));
  let length = 0;
  for (let i = 1; i <= points; i++) {
    const here = Float64Array.from(f(along(curve, i / points)));
    length += norm(here.map((v, k) => v - before[k]));
    before = here;
  }
  return length;
}

// A curve from z0 to z1 along which f changes least: Σ_t ‖f(z_{t+1}) − f(z_t)‖² lowered by Levenberg and Marquardt's
// steps from the straight line on. Yields the curve after each step, and {} on the way to it; a local minimum.
function* geodesic(f, z0, z1, pieces = 16, most = 60) {
  const L = z0.length;
  let curve = Array.from({ length: pieces + 1 }, (_, t) => between(z0, z1, t / pieces));
  let x = curve.map((z) => Float64Array.from(f(z)));
  const energy = (x) => x.slice(1).reduce((sum, here, t) => sum + norm(here.map((v, i) => v - x[t][i])) ** 2, 0);
  let least = energy(x);
  let damping = 1e-3;
  const inner = [...Array(pieces - 1).keys()].map((t) => t + 1);
  for (let step = 0; step < most && damping < 1e8; step++) {
    const J = [null];
    for (const t of inner) {
      J.push(jacobian(f, curve[t]));
      yield {};
    }
    const n = inner.length * L;
    const A = Array.from({ length: n }, () => new Float64Array(n));
    const b = new Float64Array(n);
    for (const t of inner) {
      const pull = x[t].map((v, i) => x[t - 1][i] + x[t + 1][i] - 2 * v);
      for (let k = 0; k < L; k++) {
        const row = (t - 1) * L + k;
        b[row] = dot(J[t][k], pull);
        for (let l = 0; l <= k; l++) A[row][(t - 1) * L + l] = 2 * dot(J[t][k], J[t][l]);
        if (t > 1) for (let l = 0; l < L; l++) A[row][(t - 2) * L + l] = -dot(J[t][k], J[t - 1][l]);
      }
    }
    const scale = A.reduce((sum, row, i) => sum + row[i], 0) / n || 1;
    let lowered = false;
    while (!lowered && damping < 1e8) {
      const move = solve(A.map((row, i) => { const r = Float64Array.from(row); r[i] += damping * scale; return r; }), b);
      const next = move && curve.map((z, t) => (J[t] ? z.map((v, k) => v + move[(t - 1) * L + k]) : z));
      const there = next && next.map((z) => Float64Array.from(f(z)));
      const found = there ? energy(there) : Infinity;
      if (found < least) {
        lowered = true;
        const gain = (least - found) / least;
        [curve, x, least, damping] = [next, there, found, damping / 10];
        yield { curve, done: gain < 1e-6 };
        if (gain < 1e-6) return;
      } else {
        damping *= 10;
      }
    }
  }
  yield { curve, done: true };
}
