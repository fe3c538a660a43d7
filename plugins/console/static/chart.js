/* A few lines in a box, drawn as SVG. */
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const [WIDTH, HEIGHT, MARGIN] = [600, 160, 8];
  const make = (name, attributes) => {
    const made = document.createElementNS(SVG, name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    return made;
  };

  /** Each line has a scale of its own, unless a threshold is drawn, which they share. */
  window.drawLines = (place, lines, threshold = null) => {
    const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    lines.forEach(({ values }, at) => {
      const there = values.filter((value) => Number.isFinite(value));
      if (!there.length) return;
      const all = threshold === null ? there : [...there, threshold];
      const [low, high] = [Math.min(...all), Math.max(...all)];
      const x = (index) => MARGIN + (index * (WIDTH - 2 * MARGIN)) / Math.max(values.length - 1, 1);
      const y = (value) => HEIGHT - MARGIN - ((value - low) * (HEIGHT - 2 * MARGIN)) / (high - low || 1);
      const points = values.map((value, index) => [index, value]).filter(([, value]) => Number.isFinite(value));
      svg.append(make("polyline", { class: `line line-${at}`, points: points.map(([i, v]) => `${x(i)},${y(v)}`).join(" ") }));
      points.forEach(([i, v]) => svg.append(make("path", { class: `dot dot-${at}`, d: `M${x(i)} ${y(v)}h0` })));
      if (threshold !== null) {
        svg.append(make("line", { class: "threshold", x1: 0, x2: WIDTH, y1: y(threshold), y2: y(threshold) }));
      }
    });
    const legend = document.createElement("p");
    legend.className = "legend";
    lines.filter((line) => line.name).forEach(({ name }, at) => {
      const entry = document.createElement("span");
      entry.className = `key key-${at}`;
      entry.textContent = name.replaceAll("_", " ");
      legend.append(entry);
    });
    place.replaceChildren(svg, legend);
  };
})();
