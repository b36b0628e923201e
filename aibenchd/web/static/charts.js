// Draws what a page's data describe (aibenchd/web/charts.py says how) with uPlot 1.6.32. A chart is in the tab order: arrows move along
// it, Enter opens what is there, and the line below it says in words what is under the cursor. Dragging zooms, a double click
// shows all again. What is far out is drawn at the edge, until a button, or ?range=all in the address, asks for all.

const HEIGHT = 250;
const REACH = 14; // pixels from the cursor to a point that a click means
const drawn = new Map();

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const OF_VERDICT = { regressed: "regressed", "regressed in the tail": "regressed", slower: "regressed", improved: "improved", faster: "improved", broken: "broken", inconclusive: "unsure", unconfirmed: "unsure", suspect: "accent" };
const INK = { accent: "accent", treatment: "treatment", control: "control" };

function digits(value, unit, signed) {
  const text = unit === "%" ? (signed && value > 0 ? "+" : "") + value.toFixed(2) : Number(value.toPrecision(4)).toString();
  return text.replace("-", "\u2212");
}

const number = (value, unit, signed) => (value === null || value === undefined ? "" : `${digits(value, unit, signed)}\u00a0${unit}`.trim());

function shape(context, verdict, x, y, size) {
  context.beginPath();
  if (OF_VERDICT[verdict] === "regressed") {
    context.moveTo(x, y - size); context.lineTo(x + size, y + size * 0.8); context.lineTo(x - size, y + size * 0.8); context.closePath(); context.fill();
  } else if (OF_VERDICT[verdict] === "improved") {
    context.moveTo(x, y + size); context.lineTo(x + size, y - size * 0.8); context.lineTo(x - size, y - size * 0.8); context.closePath(); context.fill();
  } else if (verdict === "broken") {
    context.moveTo(x - size, y - size); context.lineTo(x + size, y + size); context.moveTo(x + size, y - size); context.lineTo(x - size, y + size); context.stroke();
  } else if (verdict === "inconclusive" || verdict === "unconfirmed") {
    context.moveTo(x, y - size); context.lineTo(x + size, y); context.lineTo(x, y + size); context.lineTo(x - size, y); context.closePath(); context.stroke();
  } else if (verdict === "refuted") {
    context.moveTo(x, y - size); context.lineTo(x + size, y + size * 0.8); context.lineTo(x - size, y + size * 0.8); context.closePath(); context.stroke();
  } else if (verdict === "suspect") {
    context.arc(x, y, size * 0.75, Math.PI / 2, -Math.PI / 2); context.fill(); context.beginPath(); context.arc(x, y, size * 0.75, 0, 7); context.stroke();
  } else if (verdict === "identical") {
    context.moveTo(x - size, y - size / 3); context.lineTo(x + size, y - size / 3); context.moveTo(x - size, y + size / 3); context.lineTo(x + size, y + size / 3); context.stroke();
  } else {
    context.arc(x, y, size * 0.65, 0, 7); context.stroke();
  }
}

function marks(plot, { points, x }) {
  const { ctx: context } = plot;
  const ratio = devicePixelRatio || 1;
  const { left, top, width, height } = plot.bbox;
  const size = Math.max(3, Math.min(5.5, width / ratio / x.length / 1.6)) * ratio;
  context.save();
  context.beginPath();
  context.rect(left - size, top, width + 2 * size, height);
  context.clip();
  x.forEach((place, index) => {
    const at = plot.valToPos(place, "x", true);
    const verdict = points.verdicts[index];
    const ink = colour(OF_VERDICT[verdict] ?? "dim");
    context.strokeStyle = context.fillStyle = ink;
    if (points.low[index] !== null && points.high[index] !== null) {
      context.globalAlpha = OF_VERDICT[verdict] ? 0.9 : 0.45;
      context.lineWidth = 1.25 * ratio;
      context.beginPath();
      context.moveTo(at, plot.valToPos(points.low[index], "y", true));
      context.lineTo(at, plot.valToPos(points.high[index], "y", true));
      context.stroke();
      context.globalAlpha = 1;
    }
    context.lineWidth = 1.6 * ratio;
    const value = points.values[index] ?? plot.scales.y.max - (plot.scales.y.max - plot.scales.y.min) * 0.06; // broken: no time
    const side = beyond(plot, value);
    if (side) arrow(context, plot, at, side, size);
    shape(context, verdict, at, side ? edgeOf(plot, side) + side * 3 * size : plot.valToPos(value, "y", true), size);
  });
  context.restore();
}

// Where a value lies: above what is shown, 1, in it, 0, or below it, -1.
function beyond(plot, value) {
  const { min, max } = plot.scales.y;
  return value > max ? 1 : value < min ? -1 : 0;
}

const edgeOf = (plot, side) => plot.bbox.top + (side > 0 ? 0 : plot.bbox.height);

function arrow(context, plot, x, side, size) {
  const tip = edgeOf(plot, side) + side * 0.3 * size;
  context.beginPath();
  context.moveTo(x - size, tip + side * size);
  context.lineTo(x, tip);
  context.lineTo(x + size, tip + side * size);
  context.stroke();
}

function strays(plot, { lines, x }) {
  const { ctx: context } = plot;
  const ratio = devicePixelRatio || 1;
  context.save();
  context.lineWidth = 1.8 * ratio;
  for (const line of lines.filter((one) => !one.steps)) {
    context.strokeStyle = colour(INK[line.colour] ?? "accent");
    line.values.forEach((value, index) => {
      const side = value === null ? 0 : beyond(plot, value);
      const at = plot.valToPos(x[index], "x", true);
      if (side && at >= plot.bbox.left && at <= plot.bbox.left + plot.bbox.width) arrow(context, plot, at, side, 5 * ratio);
    });
  }
  context.restore();
}

function ends(plot, { breaks, x }) {
  const { ctx: context } = plot;
  const { left, top, width, height } = plot.bbox;
  context.save();
  context.strokeStyle = colour("accent");
  context.lineWidth = 1.5 * (devicePixelRatio || 1);
  context.setLineDash([4, 3].map((length) => length * (devicePixelRatio || 1)));
  for (const { at } of breaks) {
    const place = plot.valToPos((x[at - 1] + x[at]) / 2, "x", true);
    if (place < left || place > left + width) continue;
    context.beginPath();
    context.moveTo(place, top);
    context.lineTo(place, top + height);
    context.stroke();
  }
  context.restore();
}

// Between which pixels no line is drawn: where there is no value, and where something else begins.
function gaps(plot, { breaks, x }, empty) {
  const place = (index) => plot.valToPos(x[index], "x", true);
  return [...empty, ...breaks.map(({ at }) => [place(at - 1), place(at)])].sort(([one], [other]) => one - other);
}

function backdrop(plot, { zone, unit }) {
  const { ctx: context } = plot;
  const { left, width, top, height } = plot.bbox;
  const inside = (y) => Math.max(top, Math.min(top + height, y));
  context.save();
  if (zone) {
    const [low, high] = zone.map((end) => inside(plot.valToPos(end, "y", true)));
    context.fillStyle = colour("zone");
    context.fillRect(left, high, width, low - high);
  }
  if (unit === "%" && plot.scales.y.min < 0 && plot.scales.y.max > 0) {
    const zero = plot.valToPos(0, "y", true);
    context.strokeStyle = colour("strong");
    context.lineWidth = devicePixelRatio || 1;
    context.beginPath();
    context.moveTo(left, zero);
    context.lineTo(left + width, zero);
    context.stroke();
  }
  context.restore();
}

function options(chart, width) {
  const grid = { stroke: colour("line"), width: 1 };
  const axis = { stroke: colour("dim"), grid, ticks: { ...grid, size: 4 }, font: "11px system-ui, sans-serif" };
  const named = chart.labels && !/^block/.test(chart.labels[0] ?? "");
  const series = [{}];
  const bands = [];
  const data = [chart.x];
  for (const line of chart.lines) {
    const ink = colour(INK[line.colour] ?? "accent");
    if (line.low) {
      const first = series.length;
      series.push({ stroke: null, points: { show: false } }, { stroke: null, points: { show: false } });
      data.push(line.high, line.low);
      bands.push({ series: [first, first + 1], fill: colour("band") });
    }
    const dashed = line.colour === "control" ? [5, 4] : undefined;
    series.push({
      stroke: ink,
      width: 1.6,
      dash: line.dots ? undefined : dashed,
      gaps: (plot, _series, _first, _last, empty) => gaps(plot, chart, empty),
      paths: line.steps ? uPlot.paths.stepped({ align: 1 }) : line.dots && chart.lines.length > 1 ? () => null : undefined,
      points: { show: Boolean(line.dots), size: 6, stroke: ink, fill: line.colour === "control" ? colour("sheet") : ink, width: 1.5 },
    });
    data.push(line.values);
  }
  if (chart.points) {
    for (const name of ["low", "high", "values"]) {
      series.push({ stroke: null, points: { show: false }, paths: () => null });
      data.push(chart.points[name]);
    }
  }
  return [
    {
      width,
      height: HEIGHT,
      padding: [10, 12, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: true, y: false } },
      scales: {
        x: { time: false, range: (_, low, high) => (low === high ? [low - 1, high + 1] : chart.steps ? [low, high] : padded(low, high, 0.02)) },
        y: { range: (_, low, high) => extent(chart, low, high) },
      },
      axes: [
        { ...axis, size: 30, grid: { show: false }, space: named ? 72 : 50, incrs: named || chart.labels ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] : undefined, values: (_, splits) => splits.map((at) => (named ? (chart.labels[at] ?? "").slice(0, 7) : Number(at.toPrecision(6)))) },
        { ...axis, size: 58, values: (_, splits) => splits.map((at) => `${Number(at.toPrecision(6))}`.replace("-", "\u2212")) },
      ],
      series,
      bands,
      hooks: {
        drawClear: [(plot) => backdrop(plot, chart), (plot) => ends(plot, chart)],
        draw: [(plot) => strays(plot, chart), (plot) => chart.points && marks(plot, chart)],
      },
    },
    data,
  ];
}

const everything = () => new URLSearchParams(location.search).get("range") === "all";
const padded = (low, high, share) => [low - (high - low) * share, high + (high - low) * share];

function extent(chart, low, high) {
  if (low === null || high === null) return [-1, 1];
  if (chart.edge && !everything()) return [chart.edge.low, chart.edge.high];
  if (chart.lines.some((line) => line.steps)) return [0, high * 1.08 || 1];
  if (chart.zone) [low, high] = [Math.min(low, chart.zone[0] * 1.4), Math.max(high, chart.zone[1] * 1.4)];
  return low === high ? [low - 1, high + 1] : padded(low, high, 0.08);
}

function words(chart, index) {
  if (index === null || index === undefined) return "";
  const at = chart.labels ? chart.labels[index] : number(chart.x[index], chart.x_unit);
  const interval = (of) => (of.low && of.low[index] !== null ? ` (${digits(of.low[index], chart.unit, true)} … ${digits(of.high[index], chart.unit, true)})` : "");
  const said = chart.lines.filter((line) => line.values[index] !== null).map((line) => `${chart.lines.length > 1 ? line.name + " " : ""}${number(line.values[index], chart.unit, !line.steps)}${interval(line)}`);
  if (chart.points) said.push(`${chart.points.words[index]} ${number(chart.points.values[index], chart.unit, true)}${interval(chart.points)}`);
  const begins = chart.breaks.filter((one) => one.at === index).map((one) => `, from here on ${one.text}`);
  return `${at}: ${said.join(", ")}${far(chart, index) ? ", beyond the edge" : ""}${begins.join("")}`;
}

function far(chart, index) {
  if (!chart.edge || everything()) return false;
  const values = [...chart.lines, chart.points].map((one) => one?.values[index] ?? null).filter((value) => value !== null);
  return values.some((value) => value < chart.edge.low || value > chart.edge.high);
}

function draw(figure) {
  const chart = JSON.parse(figure.querySelector("script").textContent);
  const box = figure.querySelector(".plot");
  const readout = figure.querySelector("output");
  drawn.get(figure)?.destroy();
  box.replaceChildren();
  figure.toggleAttribute("data-all", everything());
  for (const button of figure.querySelectorAll("[data-range]")) button.textContent = everything() ? "show the bulk alone" : "show all";
  if (!chart.x.length) return;
  const [setup, data] = options(chart, box.clientWidth || 600);
  const plot = new uPlot(setup, data, box);
  const say = () => (readout.textContent = words(chart, plot.cursor.idx ?? (chart.labels ? chart.x.length - 1 : null)));
  plot.hooks.setCursor = [say];
  say();
  drawn.set(figure, plot);
  const link = () => chart.points?.links?.[plot.cursor.idx];
  plot.over.addEventListener("click", (event) => {
    const index = plot.cursor.idx;
    if (index === null || !link() || Math.abs(plot.valToPos(chart.x[index], "x") - event.offsetX) > REACH) return;
    if (plot.select.width < 2) location.href = link();
  });
  figure.onkeydown = (event) => {
    if (event.target !== figure) return; // what is pressed in it has keys of its own
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -chart.x.length, End: chart.x.length }[event.key];
    if (step) {
      const from = plot.cursor.idx ?? (step > 0 ? -1 : chart.x.length);
      const index = Math.max(0, Math.min(chart.x.length - 1, from + step));
      plot.setCursor({ left: plot.valToPos(chart.x[index], "x"), top: 10 });
      event.preventDefault();
    } else if (event.key === "Enter" && link()) {
      location.href = link();
    } else if (event.key === "Escape") {
      plot.setScale("x", { min: chart.x[0], max: chart.x[chart.x.length - 1] });
    }
  };
}

function all() {
  for (const figure of drawn.keys()) {
    if (figure.isConnected) continue;
    drawn.get(figure).destroy();
    drawn.delete(figure);
  }
  document.querySelectorAll("figure.chart").forEach(draw);
}

// All, or the bulk alone: of every chart of the page, and of the pages that it leads on to.
document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-range]")) return;
  const range = everything() ? "" : "all";
  const asked = (address) => {
    const url = new URL(address);
    range ? url.searchParams.set("range", range) : url.searchParams.delete("range");
    return url;
  };
  history.replaceState(history.state, "", asked(location.href));
  for (const link of document.querySelectorAll("a[rel=next]")) link.href = asked(link.href);
  for (const field of document.querySelectorAll("input[name=range]")) field.value = range;
  all();
});

let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return; // a phone's address bar comes and goes
  width = innerWidth;
  all();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
document.addEventListener("replaced", (event) => event.target.querySelector("figure.chart") && all());
all();
