// What every page does in the browser: times in the viewer's zone, dialogs, forms that are sent once, and copying.
// Pages are complete without it, but for the dialogs.
"use strict";

const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const UTC = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", timeZone: "UTC" });
const RELATIVE = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

function relative(then) {
    const seconds = Math.round((then - Date.now()) / 1000);
    const [unit, length] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? UNITS.at(-1);
    return RELATIVE.format(Math.trunc(seconds / length), unit);
}

// Writes the times in the viewer's zone. The server writes them in UTC.
function localise(root) {
    for (const time of root.querySelectorAll("time[datetime]")) {
        const then = new Date(time.dateTime);
        if (Number.isNaN(then.valueOf())) continue;
        const isRelative = "relative" in time.dataset;
        time.textContent = isRelative ? relative(then) : FULL.format(then);
        time.title = isRelative ? `${FULL.format(then)} (${UTC.format(then)} UTC)` : `${UTC.format(then)} UTC`;
    }
}

localise(document);
document.addEventListener("htmx:load", event => localise(event.detail.elt.parentNode ?? document));
setInterval(() => localise(document), 15_000);

document.addEventListener("click", async event => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.opens) document.getElementById(button.dataset.opens)?.showModal();
    if ("closes" in button.dataset) button.closest("dialog")?.close();
    if (button.dataset.copies) {
        const source = document.getElementById(button.dataset.copies);
        source.select?.();
        await navigator.clipboard?.writeText(source.value ?? source.textContent);
        // Browsers have no clipboard for pages over plain HTTP.
        button.textContent = navigator.clipboard ? "Copied" : "Selected: press Ctrl+C";
    }
});

// A button that destroys something works once its word is typed.
function allow(input) {
    input.form.querySelector("[type=submit]").disabled = input.value.trim() !== input.dataset.typed;
}

document.querySelectorAll("[data-typed]").forEach(allow);
document.addEventListener("htmx:load", event => event.detail.elt.querySelectorAll("[data-typed]").forEach(allow));
document.addEventListener("input", event => {
    if (event.target.dataset.typed) allow(event.target);
});

// A second click does not send a form again. The page that comes back from the cache of the browser works again.
document.addEventListener("submit", event => {
    const form = event.target;
    if (form.method !== "post" || event.defaultPrevented) return;
    if ("sent" in form.dataset) event.preventDefault();
    form.dataset.sent = "";
});
addEventListener("pageshow", () => document.querySelectorAll("[data-sent]").forEach(form => delete form.dataset.sent));
