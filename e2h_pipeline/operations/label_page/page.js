// Keys become actions; the server answers with the next step only when the last one is on disk.
"use strict";
const KEYS = {
  1: "positive", 2: "neutral", 3: "negative", g: "give_up", b: "bad_problem", u: "undo", Backspace: "undo", r: "reference",
};
const headers = { Authorization: "Bearer " + location.hash.slice(1), "Content-Type": "application/json" };
let version = null;  // what is shown; null while the server is asked
let since = performance.now();

function tell(text) {
  const place = document.getElementById("trouble");
  place.textContent = text;
  place.hidden = !text;
}

async function ask(path, options) {
  const before = version;
  version = null;
  try {
    const answer = await fetch(path, { ...options, headers });
    if (!answer.ok && answer.status !== 409) throw new Error(await answer.text());
    const state = await answer.json();
    document.getElementById("state").innerHTML = state.html;
    document.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
    tell(answer.status === 409 ? "The session went on elsewhere; this is where it is." : "");
    version = state.version;
    since = performance.now();
    document.body.dataset.version = version;
  } catch (error) {
    version = before;
    tell("Not saved: " + error.message + ". Is e2h label still running?");
  }
}

addEventListener("keydown", (event) => {
  const action = KEYS[event.key];
  if (!action || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  if (version === null) return;
  const milliseconds = Math.round(performance.now() - since);
  ask("/act", { method: "POST", body: JSON.stringify({ action, version, milliseconds }) });
});
addEventListener("hashchange", () => location.reload());
ask("/state", {});
