// The plots of a front's page. Texts of models are only ever set by textContent, so that nothing in them is HTML.
"use strict";
const front = JSON.parse(document.getElementById("front-data").textContent);
// one button of the library would send the chart to a server
const quiet = { displaylogo: false, responsive: true, showSendToCloud: false, plotlyServerURL: "" };
const colours = ["#d1495b", "#00798c", "#edae49", "#66a182", "#8d6a9f", "#3d5a80", "#a44a3f", "#5f7470", "#b56576", "#2f4858"];
const colour = (at) => colours[at % colours.length];
const byId = (id) => document.getElementById(id);
const axis = (title, more) => ({ title: { text: title }, gridcolor: "#e8ecef", zerolinecolor: "#c8d0d5", ...more });
const base = { margin: { l: 60, r: 20, t: 20, b: 50 }, paper_bgcolor: "#fff", plot_bgcolor: "#fff", hovermode: "closest" };

let shown = { method: 0, point: 0, prompt: 0 };

function element(kind, text, name) {
  const made = document.createElement(kind);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

function fill(select, names) {
  names.forEach((name, at) => {
    const option = element("option", name);
    option.value = at;
    select.append(option);
  });
}

function show(method, point) {
  shown = { ...shown, method, point };
  render();
}

function render() {
  const method = front.methods[shown.method];
  const point = method.points[shown.point];
  byId("where").textContent = `${method.name} at ${point.label}`;
  byId("means").textContent = front.objectives.map((name, at) => `${name} ${point.means[at].toFixed(2)}`).join(", ");
  byId("prompt-text").textContent = front.prompts[shown.prompt];
  byId("answer").textContent = point.texts[shown.prompt];
  byId("rewards").textContent = front.objectives
    .map((name, at) => `${name} ${point.rewards[shown.prompt][at].toFixed(2)}`)
    .join(", ");
  byId("front-prompt").value = shown.prompt;
}

function drawFront() {
  const x = Number(byId("front-x").value);
  const y = Number(byId("front-y").value);
  const traces = front.methods.map((method, at) => {
    const order = front.objectives.length === 2 ? method.chain : method.points.map((_, each) => each);
    return {
      name: method.name,
      x: order.map((each) => method.points[each].means[x]),
      y: order.map((each) => method.points[each].means[y]),
      customdata: order.map((each) => [at, each]),
      text: order.map((each) => method.points[each].label),
      mode: front.objectives.length === 2 ? "lines+markers" : "markers",
      line: { color: colour(at), width: 1.5 },
      marker: {
        color: colour(at),
        size: 10,
        symbol: order.map((each) => (method.points[each].front ? "circle" : "circle-open")),
      },
      hovertemplate: "%{fullData.name}, %{text}<br>%{x:.3f}, %{y:.3f}<extra></extra>",
    };
  });
  const corner = {
    name: "reference",
    x: [front.reference[x]],
    y: [front.reference[y]],
    mode: "markers",
    marker: { symbol: "cross", size: 10, color: "#888" },
    hovertemplate: "the reference of the hypervolume<extra></extra>",
  };
  const layout = { ...base, xaxis: axis(front.axes[x]), yaxis: axis(front.axes[y]) };
  Plotly.react("front-plot", [...traces, corner], layout, quiet);
}

function drawCost() {
  const known = front.methods.map((method, at) => [method, at]).filter(([method]) => method.tokens !== null);
  const traces = known.map(([method, at]) => ({
    name: method.name,
    x: [method.tokens],
    y: [method.hypervolume.value],
    error_y: {
      type: "data",
      symmetric: false,
      array: [(method.hypervolume.high ?? method.hypervolume.value) - method.hypervolume.value],
      arrayminus: [method.hypervolume.value - (method.hypervolume.low ?? method.hypervolume.value)],
    },
    mode: "markers",
    marker: { size: 11, color: colour(at) },
    hovertemplate: "%{fullData.name}<br>%{x:.0f} tokens, %{y:.3f}<extra></extra>",
  }));
  const layout = { ...base, xaxis: axis("generated tokens per answer", { type: "log" }), yaxis: axis("hypervolume") };
  Plotly.newPlot("cost-plot", traces, layout, quiet);
}

function drawTernary() {
  const at = Number(byId("ternary-method").value);
  const value = Number(byId("ternary-value").value);
  const method = front.methods[at];
  const steered = method.points.map((point, each) => [point, each]).filter(([point]) => point.weights !== null);
  const of = (point) =>
    value < 3 ? point.means[value] : point.means.reduce((sum, mean, each) => sum + mean * point.weights[each], 0);
  const trace = {
    type: "scatterternary",
    mode: "markers",
    a: steered.map(([point]) => point.weights[0]),
    b: steered.map(([point]) => point.weights[1]),
    c: steered.map(([point]) => point.weights[2]),
    customdata: steered.map(([, each]) => [at, each]),
    text: steered.map(([point]) => point.label),
    marker: {
      size: 22,
      color: steered.map(([point]) => of(point)),
      colorscale: "Viridis",
      colorbar: { thickness: 12 },
    },
    hovertemplate: "%{text}<br>%{marker.color:.3f}<extra></extra>",
  };
  const corner = (name) => ({ title: { text: name }, min: 0 });
  const ternary = { aaxis: corner(front.objectives[0]), baxis: corner(front.objectives[1]), caxis: corner(front.objectives[2]) };
  Plotly.react("ternary-plot", [trace], { ...base, margin: { l: 60, r: 60, t: 50, b: 50 }, ternary: { sum: 1, ...ternary } }, quiet);
}

function listen(id) {
  const pick = (event) => {
    const found = event.points[0].customdata;
    if (found) show(found[0], found[1]);
  };
  byId(id).on("plotly_click", pick);
  byId(id).on("plotly_hover", pick);
}

fill(byId("front-x"), front.objectives);
fill(byId("front-y"), front.objectives);
byId("front-y").value = 1;
fill(byId("front-prompt"), front.prompts.map((text, at) => `${at + 1}. ${text.slice(0, 80)}`));
byId("front-prompt").addEventListener("change", (event) => {
  shown = { ...shown, prompt: Number(event.target.value) };
  render();
});
["front-x", "front-y"].forEach((id) => byId(id).addEventListener("change", drawFront));
drawFront();
drawCost();
listen("front-plot");
if (front.objectives.length === 3) {
  fill(byId("ternary-method"), front.methods.map((method) => method.name));
  fill(byId("ternary-value"), [...front.objectives, "weighted reward"]);
  byId("ternary-method").value = Math.max(0, front.methods.findIndex((method) => method.points.length > 1));
  byId("ternary-value").value = 3;
  ["ternary-method", "ternary-value"].forEach((id) => byId(id).addEventListener("change", drawTernary));
  drawTernary();
  listen("ternary-plot");
}
render();
