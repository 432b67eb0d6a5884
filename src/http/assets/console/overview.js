// Keeps the overview up to date, and draws its charts. A hidden page is not kept up to date: it asks again when it is
// shown.
"use strict";

const live = document.getElementById("live");
const shown = new Map();
const charts = new Map();
let source;

function show({ regions, history }) {
    for (const [id, html] of regions) {
        if (shown.get(id) === html) continue;
        shown.set(id, html);
        const region = document.getElementById(id);
        region.innerHTML = html;
        localise(region);
    }
    if (history.length) document.querySelectorAll("[data-chart]").forEach((place, index) => draw(place, index, history));
}

function colours() {
    const style = getComputedStyle(document.documentElement);
    const probe = document.body.appendChild(document.createElement("i"));
    const colour = name => {
        probe.style.color = `var(${name})`;
        return getComputedStyle(probe).color;
    };
    const found = { line: colour("--accent"), bad: colour("--bad"), grid: colour("--line"), text: colour("--quiet") };
    probe.remove();
    return { ...found, font: `12px ${style.fontFamily}` };
}

function draw(place, index, history) {
    const data = [history.map(point => point[0]), history.map(point => point[index + 1])];
    const grouped = new Intl.NumberFormat("en-US");
    const [last, most] = [data[1].at(-1), Math.max(...data[1])].map(rate => grouped.format(rate));
    place.setAttribute("aria-label", `${place.previousElementSibling.textContent}: now ${last}, at most ${most}`);
    const known = charts.get(place);
    if (known) return known.setData(data);
    const { line, bad, grid, text, font } = colours();
    const stroke = place.dataset.chart === "refused" ? bad : line;
    const axis = { stroke: text, font, grid: { stroke: grid, width: 1 }, ticks: { show: false } };
    const number = new Intl.NumberFormat("en-US", { notation: "compact" });
    const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
    charts.set(place, new uPlot({
        width: place.clientWidth,
        height: 132,
        legend: { show: false },
        cursor: { show: false },
        scales: { y: { range: (chart, least, most) => [0, Math.max(1, most * 1.1)] } },
        axes: [
            { ...axis, size: 26, space: 70, grid: { show: false }, values: (chart, at) => at.map(second => clock.format(second * 1000)) },
            { ...axis, size: 44, space: 34, values: (chart, values) => values.map(value => number.format(value)) },
        ],
        series: [{}, { stroke, width: 1.5, fill: stroke.replace("rgb(", "rgba(").replace(")", ", .1)"), points: { show: false } }],
    }, data, place));
}

function redraw() {
    const histories = [...charts].map(([place, chart]) => [place, chart.data]);
    for (const [place, chart] of charts) chart.destroy();
    charts.clear();
    const [first] = histories;
    if (!first) return;
    const history = first[1][0].map((at, index) => [at, ...histories.map(([, data]) => data[1][index])]);
    histories.forEach(([place], index) => draw(place, index, history));
}

function say(text, tone) {
    live.textContent = text;
    live.className = tone;
}

function connect() {
    source = new EventSource(live.dataset.live);
    source.onopen = () => say("Live", "quiet");
    source.onmessage = event => show(JSON.parse(event.data));
    source.onerror = () => {
        const isOver = source.readyState === EventSource.CLOSED;
        say(isOver ? "Not live: reload the page" : "Not live: connecting again", "warn");
    };
}

document.addEventListener("visibilitychange", () => {
    if (document.hidden) source?.close();
    else connect();
});
const resized = new ResizeObserver(entries => {
    for (const { target } of entries) charts.get(target)?.setSize({ width: target.clientWidth, height: 132 });
});
document.querySelectorAll("[data-chart]").forEach(chart => resized.observe(chart));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

if (live.dataset.first) show(JSON.parse(live.dataset.first));
if (!document.hidden) connect();
