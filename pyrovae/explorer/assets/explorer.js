// What a hand on the page does, and the start.

function makeSliders() {
  const first = 8;
  page.order.forEach((l, k) => {
    const row = document.createElement("label");
    row.className = "slider";
    const name = document.createElement("span");
    name.textContent = `z[${l}]`;
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: page.ranges[l][0], max: page.ranges[l][1], step: "any" });
    slider.dataset.l = l;
    slider.addEventListener("input", () => {
      const z = Float64Array.from(state.z);
      z[l] = +slider.value;
      move(z);
    });
    slider.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (!way) return;
      event.preventDefault();
      const z = Float64Array.from(state.z);
      z[l] = Math.min(+slider.max, Math.max(+slider.min, z[l] + (way * (slider.max - slider.min)) / 100));
      move(z);
    });
    row.append(name, slider, document.createElement("output"));
    byId(k < first ? "first-sliders" : "more-sliders").append(row);
  });
  byId("more").hidden = L <= first;
  byId("more").firstElementChild.textContent = `${L - first} more, whose codes vary less`;
}

function listen(id, event, action) {
  byId(id).addEventListener(event, action);
}

function start() {
  makeSliders();
  for (const [id, k] of [["axis-x", 0], ["axis-y", 1]]) {
    page.order.forEach((l) => byId(id).add(new Option(`z[${l}]`, l, false, l === state.axes[k])));
    listen(id, "change", () => {
      if (+byId(id).value === state.axes[1 - k]) state.axes.reverse(); // two different ones
      else state.axes[k] = +byId(id).value;
      [byId("axis-x").value, byId("axis-y").value] = state.axes;
      drawMap();
    });
  }
  byId("axes").hidden = L <= 2;
  byId("map-note").textContent =
    (L > 2 ? `Two of ${L} dimensions, seen from above: the other coordinates of codes and draws are their own, ` +
      "those of what is decoded are the sliders'. " : "") +
    `Codes are the means of q(z | x) of the ${N} images${draws.length ? `; ${draws.length} draws from p(z) in grey` : ""}.`;
  if (!draws.length) for (const id of ["to-prior", "show-prior"]) (byId(id).closest("label") ?? byId(id)).hidden = true;
  byId("own-width").hidden = !widths;
  page.graphs.forEach((graph, i) => byId("graph").add(new Option(graph.name, i)));
  byId("graph-choice").hidden = page.graphs.length < 2;
  byId("posterior").hidden = !page.posterior;
  byId("number").max = byId("goal").max = N - 1;
  byId("goal").value = Math.min(1, N - 1);
  byId("walk").hidden = N < 2;

  listen("number", "change", () => choose(Math.round(byId("number").valueAsNumber)));
  listen("to-code", "click", () => choose(state.chosen));
  listen("to-prior", "click", () => move(draws[state.draw++ % draws.length]));
  listen("graph", "change", () => {
    setGraph(+byId("graph").value);
    forgetPath();
    move(state.z);
  });
  for (const id of ["show-codes", "show-prior", "show-tiles"]) listen(id, "change", () => drawMap());
  listen("spread", "input", drawPerturbed);
  listen("of-q", "change", drawPerturbed);
  listen("redraw", "click", () => {
    state.noise = [];
    state.seed++;
    drawPerturbed();
  });
  neighbours.forEach(({ item }) => item.addEventListener("click", () => choose(+item.dataset.index)));
  directions.forEach(({ item }, l) => {
    item.addEventListener("click", () => pick(l));
    item.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
      if (!way) return;
      event.preventDefault();
      const next = (l + way + directions.length) % directions.length;
      pick(next);
      directions[next].item.focus();
    });
  });
  listen("distance", "input", () => {
    const t = byId("distance").value;
    if (!state.plane) takePlane();
    byId("distance").value = t;
    walkPlane();
  });
  listen("recentre", "click", takePlane);
  listen("goal", "change", () => {
    byId("goal").value = goal();
    forgetPath();
  });
  listen("find", "click", findGeodesic);
  listen("measure", "click", () => measure());
  for (const radio of document.querySelectorAll('input[name="path"]')) {
    radio.addEventListener("change", () => {
      drawStops();
      move(along(curveNow(), +byId("share").value));
    });
  }
  listen("share", "input", () => {
    const t = +byId("share").value;
    byId("share-value").value = t.toFixed(2);
    move(along(curveNow(), t));
  });
  steer(map, () => state.axes);
  steer(cloud, () => [0, 1]);
  let width = 0;
  new ResizeObserver(() => {
    if (width !== byId("map").clientWidth) drawAll();
    width = byId("map").clientWidth;
  }).observe(byId("map"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  checkDecoder();
  choose(0);
}

// What is in the page beside PyTorch's own result at the first codes.
function checkDecoder() {
  const z = rowsOf(floats(page.reference.z), L);
  const x = rowsOf(floats(page.reference.x), D);
  let most = 0;
  z.forEach((row, k) => {
    const here = decoders[page.reference.graph[k]](row);
    for (let i = 0; i < D; i++) most = Math.max(most, Math.abs(here[i] - x[k][i]) / (high - low));
  });
  const good = most <= 1e-4; // not where it is NaN
  byId("check").className = good ? "" : "wrong";
  byId("check").textContent = good
    ? `Checked as it was opened: the decoder of this page gives PyTorch's images to ${most.toExponential(0)} of their range.`
    : `Do not trust this page: its decoder is off PyTorch's by ${most.toExponential(0)} of the range of the images.`;
  return most;
}

// Decodes a second, and whole frames a second while z moves, with the milliseconds that one takes: here and now.
async function measure(frames = 120) {
  byId("measure").disabled = true;
  const z = Float64Array.from(state.z);
  const begin = performance.now();
  let count = 0;
  while (performance.now() - begin < 200) {
    z[count % L] += 1e-3;
    f(z);
    count++;
  }
  const decodes = (1000 * count) / (performance.now() - begin);
  const before = Float64Array.from(state.z);
  const work = [];
  let first = 0;
  for (let i = -20; i < frames; i++) { // the browser compiles during the first
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    if (i === 0) first = now;
    state.z[0] = before[0] + Math.sin(i / 10) * 0.5;
    drawHere();
    if (i >= 0) work.push(performance.now() - now);
  }
  await new Promise(requestAnimationFrame);
  const rate = (1000 * frames) / (performance.now() - first);
  const milliseconds = work.sort((a, b) => a - b)[Math.floor(frames / 2)];
  move(before);
  byId("measure").disabled = false;
  byId("speed").textContent =
    `Here this decoder runs ${decodes.toFixed(0)} times a second, and the page shows ${rate.toFixed(0)} frames a second, ` +
    `each of ${milliseconds.toFixed(1)} ms of work.`;
  return { decodes, frames: rate, milliseconds };
}

start();
