// Draws the chart of a user's balance, and takes the times of the filter in the viewer's zone. Without it, the words
// below the chart and times in UTC remain.
"use strict";

const HEIGHT = 220;
const place = document.querySelector("[data-course]");
let chart;

function colour(name) {
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.color = `var(${name})`;
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
}

function draw() {
    chart?.destroy();
    const course = JSON.parse(place.dataset.course);
    const data = [course.map(([at]) => at / 1000), course.map(([, balance]) => balance)];
    const [line, grid, text] = ["--accent", "--line", "--quiet"].map(colour);
    const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
    const axis = { stroke: text, font: `12px ${getComputedStyle(document.body).fontFamily}`, ticks: { show: false } };
    chart = new uPlot({
        width: place.clientWidth,
        height: HEIGHT,
        legend: { show: false },
        cursor: { show: false },
        scales: { y: { range: (chart, least, most) => [0, Math.max(1, most * 1.1)] } },
        axes: [
            { ...axis, space: 90, grid: { show: false } },
            { ...axis, size: 52, grid: { stroke: grid, width: 1 }, values: (chart, values) => values.map(value => compact.format(value)) },
        ],
        series: [{}, {
            stroke: line,
            width: 1.5,
            fill: line.replace("rgb(", "rgba(").replace(")", ", .1)"),
            paths: uPlot.paths.stepped({ align: 1 }),
            points: { show: false },
        }],
    }, data, place);
}

if (place) {
    draw();
    new ResizeObserver(() => chart.setSize({ width: place.clientWidth, height: HEIGHT })).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

// A field of a time without a zone has the time in UTC. Here it gets that of the viewer, and is sent in UTC again.
const moments = [...document.querySelectorAll("[data-moment]")];
for (const field of moments) {
    if (!field.value) continue;
    const at = new Date(`${field.value}Z`);
    field.value = new Date(at - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}
document.querySelectorAll("[data-zone]").forEach(zone => zone.remove());
document.addEventListener("formdata", event => {
    for (const [name, value] of [...event.formData]) {
        const field = event.target.elements[name];
        if (!value) event.formData.delete(name);
        else if (moments.includes(field)) event.formData.set(name, new Date(value).toISOString());
    }
});
