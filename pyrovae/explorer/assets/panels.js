// The panels: what each shows, and when it is drawn again.

// ---- what follows each change of z, in each frame, and what may wait until the hand rests

let frame = 0;
let rest = 0;

function move(z, keepPlane = false) {
  state.z = Float64Array.from(z);
  if (!keepPlane) {
    byId("distance").value = 0;
    state.plane = null;
  }
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    drawHere();
  });
  clearTimeout(rest);
  rest = setTimeout(drawRest, 120);
}

function drawHere() {
  const x = Float64Array.from(f(state.z)); // f writes its next result over this one
  drawImage(byId("picture"), x, page.event, low, high);
  drawNearest(x);
  for (const slider of document.querySelectorAll(".slider input")) {
    const l = +slider.dataset.l;
    slider.value = state.z[l];
    slider.parentElement.querySelector("output").value = state.z[l].toFixed(2);
  }
  drawMap(false);
  if (state.plane) drawMoved(x);
  if (page.posterior) drawCloud();
}

function drawAll() {
  map.kept = cloud.kept = null;
  drawHere();
}

function drawRest() {
  if (byId("show-tiles").checked) drawMap();
  if (!state.plane) takePlane();
  drawPerturbed();
}

// ---- the image and its neighbours

const strip = (id, count, tag = "button") =>
  Array.from({ length: count }, () => {
    const item = document.createElement(tag);
    const canvas = document.createElement("canvas");
    const name = document.createElement("span");
    item.append(canvas, name);
    byId(id).append(item);
    return { item, canvas, name };
  });

const neighbours = strip("nearest", Math.min(4, N));

function drawNearest(x) {
  nearest(x, neighbours.length).forEach(([i, distance], k) => {
    const { item, canvas, name } = neighbours[k];
    drawImage(canvas, images[i], page.event, low, high);
    name.textContent = `${page.labels ? `${classOf(i)}, ` : ""}${short(distance)}`;
    item.title = `${nameOf(i)}, at distance ${short(distance)}: choose it`;
    item.setAttribute("aria-label", item.title);
    item.dataset.index = i;
  });
}

function choose(i) {
  if (!(i in images)) {
    byId("number").value = state.chosen;
    byId("said").textContent = `The images of this page are numbered 0 to ${N - 1}.`;
    return;
  }
  state.chosen = i;
  byId("number").value = i;
  byId("said").textContent = "";
  drawImage(byId("chosen"), images[i], page.event, low, high);
  byId("chosen-name").textContent = nameOf(i);
  if (page.of) setGraph(page.of[i]);
  forgetPath();
  move(codes[i]);
}

function setGraph(index) {
  state.graph = index;
  byId("graph").value = index;
}

// ---- the map

// All but the cross is drawn when it changes, and kept for the frames in between.
function drawMap(whole = true) {
  const [a, b] = state.axes;
  const flat = L === 1;
  if (whole || !map.kept) drawLayers(a, b, flat);
  else map.restore();
  map.cross(state.z[a], flat ? 0 : state.z[b], colour("--strong"));
}

function drawLayers(a, b, flat) {
  map.begin(page.ranges[a], flat ? [-1, 1] : page.ranges[b], [`z[${a}]`, flat ? "" : `z[${b}]`]);
  const up = (z) => (flat ? 0 : z[b]);
  if (byId("show-tiles").checked) {
    const tiles = makeTiles(flat);
    const side = (map.side - map.edge - 6) / tiles.count;
    map.context.imageSmoothingEnabled = false;
    map.context.drawImage(tiles.canvas, map.edge, 6, side * tiles.count, side * tiles.count);
  }
  if (byId("show-prior").checked) for (const z of draws) map.dot(z[a], up(z), colour("--line"), 2);
  if (byId("show-codes").checked) {
    codes.forEach((z, i) => {
      const name = classOf(i);
      if (name !== null && name.length <= 2) map.mark(z[a], up(z), tint(i), name);
      else map.dot(z[a], up(z), tint(i), 3);
    });
  }
  if (state.path?.curve) {
    map.line([state.path.curve[0], state.path.curve.at(-1)].map((z) => [z[a], up(z)]), colour("--text"), [6, 5]);
    map.line(state.path.curve.map((z) => [z[a], up(z)]), colour("--strong"));
  }
  map.axes();
  map.keep();
}

function makeTiles(flat) {
  const count = 12;
  const gap = 1; // pixel between two
  const [, height, width] = page.event;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [count * (width + gap), count * (height + gap)];
  const one = document.createElement("canvas");
  const [a, b] = state.axes;
  const z = Float64Array.from(state.z);
  for (let i = 0; i < count; i++) {
    for (let j = 0; j < count; j++) {
      z[a] = map.x[0] + ((j + 0.5) / count) * (map.x[1] - map.x[0]);
      if (!flat) z[b] = map.y[1] - ((i + 0.5) / count) * (map.y[1] - map.y[0]);
      drawImage(one, f(z), page.event, low, high);
      canvas.getContext("2d").drawImage(one, j * (width + gap), i * (height + gap));
    }
  }
  return { canvas, count };
}

function steer(plane, axes) {
  const go = (event) => {
    const [x, y] = plane.at(event);
    const z = Float64Array.from(state.z);
    z[axes()[0]] = x;
    if (axes()[1] !== axes()[0]) z[axes()[1]] = y;
    move(z);
  };
  plane.canvas.addEventListener("pointerdown", (event) => {
    plane.canvas.setPointerCapture(event.pointerId);
    go(event);
  });
  plane.canvas.addEventListener("pointermove", (event) => event.buttons && go(event));
  plane.canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] }[event.key];
    if (!way) return;
    event.preventDefault();
    const z = Float64Array.from(state.z);
    axes().forEach((l, k) => (z[l] += (way[k] * ([plane.x, plane.y][k][1] - [plane.x, plane.y][k][0])) / 40));
    move(z);
  });
}

// ---- perturbing

const clouds = strip("perturbed", 8, "div");

function drawPerturbed() {
  const s = +byId("spread").value;
  byId("spread-value").value = s.toFixed(2);
  if (state.noise.length === 0) {
    const draw = normals(state.seed);
    state.noise = clouds.map(() => Float64Array.from({ length: L }, () => draw.next().value));
  }
  const own = widths && byId("of-q").checked;
  const width = (l) => (own ? widths[state.chosen][l] : 1);
  const here = Float64Array.from(f(state.z));
  let moved = 0;
  clouds.forEach(({ canvas }, k) => {
    const x = f(state.z.map((v, l) => v + s * width(l) * state.noise[k][l]));
    drawImage(canvas, x, page.event, low, high);
    moved += norm(Float64Array.from(x, (v, i) => v - here[i])) / clouds.length;
  });
  byId("perturb-note").textContent =
    `ε ~ N(0, I)${own ? `, in units of the width of q(z | x) of ${nameOf(state.chosen)}` : ""}: ` +
    `the image moves by ${short(moved)} in the mean; its nearest in this page is ${short(nearest(here, 1)[0][1])} away.`;
}

// ---- tangent directions

const directions = strip("directions", Math.min(6, L));

function takePlane() {
  const z = Float64Array.from(state.z);
  state.plane = { z, x: Float64Array.from(f(z)), directions: tangents(f, z) };
  byId("distance").value = 0;
  directions.forEach(({ item, canvas, name }, l) => {
    const { u, s } = state.plane.directions[l];
    drawDirection(canvas, u, page.event);
    name.textContent = `s = ${short(s)}`;
    item.setAttribute("role", "radio");
    item.setAttribute("aria-checked", String(l === state.pick));
    item.tabIndex = l === state.pick ? 0 : -1;
    item.title = `direction ${l + 1}: a unit step of z moves the image by ${short(s)}`;
    item.setAttribute("aria-label", item.title);
  });
  drawMoved(state.plane.x);
}

function pick(l) {
  state.pick = l;
  directions.forEach(({ item }, k) => {
    item.setAttribute("aria-checked", String(k === l));
    item.tabIndex = k === l ? 0 : -1;
  });
  byId("distance").value = 0;
  if (state.plane) walkPlane();
}

function walkPlane() {
  const t = +byId("distance").value;
  const { z, directions: found } = state.plane;
  move(z.map((v, k) => v + t * found[state.pick].v[k]), true);
}

function drawMoved(x) {
  const t = +byId("distance").value;
  const { x: start, directions: found } = state.plane;
  const { u, s } = found[state.pick];
  byId("distance-value").value = t.toFixed(2);
  const forecast = start.map((v, i) => v + t * s * u[i]);
  drawImage(byId("linear"), forecast, page.event, low, high);
  drawImage(byId("moved"), x, page.event, low, high);
  const off = norm(forecast.map((v, i) => v - x[i]));
  byId("tangent-note").textContent =
    `Along direction ${state.pick + 1} a unit step of z moves the image by ${short(s)}; at t = ${t.toFixed(2)} ` +
    `the linear forecast is off by ${short(off)}.`;
}

// ---- from image to image

const stops = strip("stops", 8, "div");

function forgetPath() {
  const drawn = state.path?.curve;
  state.path = null;
  if (drawn) drawMap();
  byId("share").value = 0;
  byId("share-value").value = "0.00";
  byId("bent").disabled = true;
  document.querySelector('input[value="straight"]').checked = true;
  byId("walk-note").textContent = "";
  drawStops();
}

const under = () => (page.graphs.length > 1 ? `, both decoded under the label ${page.graphs[state.graph].name},` : "");
const goal = () => Math.min(N - 1, Math.max(0, Math.round(+byId("goal").value) || 0));

function curveNow() {
  return byId("bent").checked && state.path?.curve ? state.path.curve : [codes[state.chosen], codes[goal()]];
}

function drawStops() {
  const curve = curveNow();
  stops.forEach(({ canvas }, k) => drawImage(canvas, f(along(curve, k / (stops.length - 1))), page.event, low, high));
}

// One step of the search in each turn, so that the page stays alive; resolves to the lengths.
function findGeodesic() {
  const run = { from: state.chosen, to: goal(), graph: state.graph };
  state.path = run;
  byId("find").disabled = true;
  const search = geodesic(f, codes[run.from], codes[run.to]);
  const straight = lengthOf(f, [...Array(17).keys()].map((t) => between(codes[run.from], codes[run.to], t / 16)));
  return new Promise((resolve) => {
    let count = 0;
    const turn = () => {
      if (state.path !== run) {
        byId("find").disabled = false;
        return resolve(null); // another image was chosen meanwhile
      }
      const { value, done } = search.next();
      if (value?.curve) {
        run.curve = value.curve;
        byId("walk-note").textContent = `Step ${++count} of the search.`;
        drawMap();
      }
      if (!done && !value.done) return setTimeout(turn);
      let length = run.curve ? lengthOf(f, run.curve) : straight;
      if (!(length < straight)) [run.curve, length] = [[codes[run.from], codes[run.to]], straight];
      byId("find").disabled = byId("bent").disabled = false;
      byId("bent").checked = true;
      byId("walk-note").textContent =
        `From ${nameOf(run.from)} to ${nameOf(run.to)}${under()} the image travels ${short(straight)} on the straight line ` +
        `and ${short(length)} on the geodesic.`;
      drawStops();
      drawMap();
      resolve({ straight, length });
    };
    setTimeout(turn);
  });
}

// ---- the exact posterior of the chosen image

function drawCloud() {
  const found = page.posterior[state.chosen];
  byId("cloud").hidden = !found;
  if (!found) {
    cloud.kept = null; // and its words with it
    const last = Math.max(...Object.keys(page.posterior));
    byId("posterior-note").textContent = `${nameOf(state.chosen)} has none in this page; images up to ${last} have.`;
    return;
  }
  if (!found.logs) {
    const read = (text) => Float64Array.from(bytes(text), (v) => (v ? -page.depth * (1 - (v - 1) / 254) : -1.5 * page.depth));
    found.logs = { exact: read(found.exact), q: found.q && read(found.q) };
    for (const axis of ["xs", "ys"]) {
      const [first, last, count] = found[axis];
      found.logs[axis] = Float64Array.from({ length: count }, (_, i) => first + (i * (last - first)) / (count - 1));
    }
  }
  if (cloud.kept && cloud.of === found) cloud.restore();
  else drawDensities(found);
  const [x, y] = state.z;
  if (x >= cloud.x[0] && x <= cloud.x[1] && y >= cloud.y[0] && y <= cloud.y[1]) cloud.cross(x, y, colour("--accent"));
}

function drawDensities(found) {
  const { exact, q, xs, ys } = found.logs;
  const wide = (a) => [a[0] - (a[1] - a[0]) / 2, a.at(-1) + (a[1] - a[0]) / 2];
  cloud.begin(wide(xs), wide(ys), ["z[0]", "z[1]"]);
  cloud.area(exact.map((v) => Math.exp(v)), xs, ys, colour("--cloud"));
  if (q) for (const mass of [0.5, 0.9, 0.99]) cloud.contour(q, xs, ys, levelOf(q, mass), colour("--strong"));
  cloud.axes();
  cloud.keep();
  cloud.of = found;
  byId("posterior-note").textContent =
    `${nameOf(state.chosen)}: area, the exact p(z | x); ` +
    (q
      ? `lines, q(z | x) with 50, 90 and 99 % of its mass. log p(x) ${found.log_evidence.toFixed(2)} = ` +
        `ELBO ${found.elbo.toFixed(2)} + KL(q ‖ p(z | x)) ${found.kl.toFixed(2)} nats.`
      : `q(z | x) is too far from it for one grid. log p(x) ${found.log_evidence.toFixed(2)} nats.`);
}
