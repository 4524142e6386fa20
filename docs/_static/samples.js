// The page of samples: pictures, scatters and curves from what samples-data.js lists.
(() => {
  "use strict";
  const data = window.REPRO_SAMPLES;
  const $ = (id) => document.getElementById(id);
  const fill = (select, names, keep) => {
    const before = keep ? select.value : null;
    select.replaceChildren(...names.map((n) => new Option(n, n)));
    if (names.includes(before)) select.value = before;
  };
  const element = (tag, text, attributes = {}) => {
    const made = document.createElement(tag);
    if (text) made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };

  // Images
  const ALL = "all models";
  const models = () => data.images[$("image-dataset").value][$("image-observed").value];
  const picture = (row, label) => {
    const line = element("div", "", { class: "strip " + row.role });
    const name = element("div", "", { class: "strip-label" });
    name.append(element("strong", row.role), " " + row.name);
    const image = element("img", "", {
      src: "_files/samples/" + row.src, alt: `${label}: ${row.role} ${row.name}`, width: row.size[0] * 2, height: row.size[1] * 2,
    });
    line.append(name, image);
    return line;
  };
  const drawImages = () => {
    const known = models();
    const chosen = $("image-model").value === ALL ? Object.keys(known) : [$("image-model").value];
    const context = (row) => row.role === "observed" || row.role === "true";
    const blocks = [];
    if (chosen.length > 1) blocks.push(...known[chosen[0]].filter(context).map((r) => picture(r, "test samples")));
    for (const model of chosen) {
      blocks.push(element("h3", model));
      blocks.push(...known[model].filter((r) => chosen.length === 1 || !context(r)).map((r) => picture(r, model)));
    }
    $("image-rows").replaceChildren(...blocks);
  };
  const listModels = () => {
    const names = Object.keys(models());
    fill($("image-model"), names.length > 1 ? [...names, ALL] : names, true);
    drawImages();
  };
  const listObserved = () => {
    fill($("image-observed"), Object.keys(data.images[$("image-dataset").value]), true);
    listModels();
  };
  fill($("image-dataset"), Object.keys(data.images));
  $("image-dataset").addEventListener("change", listObserved);
  $("image-observed").addEventListener("change", listModels);
  $("image-model").addEventListener("change", drawImages);
  listObserved();

  // Scatter
  const pairs = [];
  for (let i = 0; i < 4; i++) for (let j = i + 1; j < 4; j++) pairs.push(`m${i}, m${j}`);
  const drawScatter = () => {
    const found = data.scatter[$("scatter-dataset").value];
    const [i, j] = $("scatter-pair").value.split(", ").map((m) => 2 * Number(m[1]) + Number($("scatter-coordinate").value));
    const canvas = $("scatter-canvas");
    const context = canvas.getContext("2d");
    const ink = getComputedStyle(document.body).getPropertyValue("--r-ink").trim() || "#1b1f24";
    const size = canvas.width;
    const margin = 60;
    const [low, high] = found.range;
    const pad = (high - low) * 0.08;
    const at = (v) => margin + ((v - low + pad) / (high - low + 2 * pad)) * (size - 2 * margin);
    context.clearRect(0, 0, size, size);
    context.strokeStyle = ink;
    context.fillStyle = ink;
    context.lineWidth = 2;
    context.strokeRect(margin, margin, size - 2 * margin, size - 2 * margin);
    context.font = "24px system-ui, sans-serif";
    context.textAlign = "center";
    for (const v of [low, (low + high) / 2, high]) {
      const text = (v / 1000).toFixed(1);
      context.fillText(text, at(v), size - margin + 30);
      context.save();
      context.translate(margin - 14, size - at(v));
      context.rotate(-Math.PI / 2);
      context.fillText(text, 0, 0);
      context.restore();
    }
    let beyond = 0;
    const dots = (points, colour) => {
      context.fillStyle = colour;
      points[i].forEach((x, k) => {
        const [a, b] = [at(x), at(points[j][k])];
        if (Math.min(a, b) < margin || Math.max(a, b) > size - margin) { beyond += 1; return; }
        context.fillRect(a - 2.5, size - b - 2.5, 5, 5);
      });
    };
    const generated = found.models[$("scatter-model").value];
    if ($("scatter-true").checked) dots(found.true, "#d98a00");
    if ($("scatter-generated").checked) dots(generated, "#2a7fd4");
    $("scatter-said").textContent =
      `True samples orange, generated ones blue, ${found.true[0].length} of each. Horizontal: first modality, vertical: second.` +
      (beyond ? ` ${beyond} points lie beyond the axes.` : "");
  };
  const listScatter = () => {
    fill($("scatter-model"), Object.keys(data.scatter[$("scatter-dataset").value].models), true);
    drawScatter();
  };
  fill($("scatter-dataset"), Object.keys(data.scatter));
  fill($("scatter-pair"), pairs);
  $("scatter-dataset").addEventListener("change", listScatter);
  for (const id of ["model", "pair", "coordinate", "true", "generated"]) $("scatter-" + id).addEventListener("change", drawScatter);
  listScatter();
  new MutationObserver(drawScatter).observe(document.body, { attributes: true, attributeFilter: ["data-theme"] });

  // Correlation
  const COLOURS = ["#2a7fd4", "#d98a00", "#2e9d5b", "#b65fc4", "#d4493f"];
  const drawCorrelation = () => {
    const curves = data.correlations[$("correlation-measure").value];
    const at = (v) => 40 + v * 340;
    const up = (v) => 400 - at(v) + 20;
    const parts = ['<svg viewBox="0 0 560 440" role="img" aria-label="Correlation of samples against that of the data">'];
    parts.push(`<path d="M${at(0)} ${up(0)}H${at(1)}M${at(0)} ${up(0)}V${up(1)}" class="axis"/>`);
    parts.push(`<path d="M${at(0)} ${up(0)}L${at(1)} ${up(1)}" class="diagonal"/>`);
    for (const v of [0, 0.5, 1]) {
      parts.push(`<text x="${at(v)}" y="${up(0) + 18}" text-anchor="middle">${v}</text>`);
      parts.push(`<text x="${at(0) - 8}" y="${up(v) + 4}" text-anchor="end">${v}</text>`);
    }
    parts.push(`<text x="${at(0.5)}" y="${up(0) + 36}" text-anchor="middle">correlation of the data</text>`);
    parts.push(`<text x="${at(0) - 28}" y="${up(1) - 14}">of the samples</text>`);
    const rows = [];
    Object.entries(curves).forEach(([model, points], k) => {
      const colour = COLOURS[k % COLOURS.length];
      const line = points.map(([x, y]) => `${at(x)},${up(y)}`).join(" ");
      parts.push(`<polyline points="${line}" fill="none" stroke="${colour}" stroke-width="2"/>`);
      for (const [x, y] of points) parts.push(`<circle cx="${at(x)}" cy="${up(y)}" r="4" fill="${colour}"/>`);
      parts.push(`<circle cx="410" cy="${60 + 24 * k}" r="5" fill="${colour}"/><text x="424" y="${64 + 24 * k}">${model}</text>`);
      rows.push([model, ...points.map(([x, y]) => `${y.toFixed(2)} at ${x.toFixed(2)}`)]);
    });
    $("correlation-plot").innerHTML = parts.join("") + "</svg>";
    const body = element("tbody");
    for (const [model, ...values] of rows) {
      const tr = element("tr");
      tr.append(element("th", model, { scope: "row" }), ...values.map((v) => element("td", v)));
      body.append(tr);
    }
    $("correlation-table").replaceChildren(body);
  };
  fill($("correlation-measure"), Object.keys(data.correlations));
  $("correlation-measure").addEventListener("change", drawCorrelation);
  drawCorrelation();
})();
