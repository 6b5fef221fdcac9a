// How far runs are that are not complete.

import { button, count, counted, element, tell } from "./dom.js";

const EVERY = 5000;

/** Show progress, rate and failures in an element, and ask again while a run works; `again` reads the run again. */
export async function showProgress(place, server, again) {
  try {
    const { runs } = await server.status();
    place.replaceChildren(...runs.map(progressOf), element("p", null, "The map shows what was there when it was opened. ",
      button("Read the run again", again, { id: "again" })));
    place.hidden = runs.length === 0;
    if (runs.some(({ state }) => state === "working")) setTimeout(() => showProgress(place, server, again), EVERY);
  } catch (error) {
    tell(error.message);
  }
}

function progressOf(run) {
  if (run.reason) return element("p", null, `${run.name}: ${run.reason}`);
  const total = run.pending === null ? null : run.done + run.failed + run.pending;
  const of = total === null ? "" : ` of ${count(total)}`;
  const words = [`${run.name}: ${run.state}`, `${count(run.done)} done${of}`, `${count(run.failed)} failed`];
  if (run.rate && run.state === "working") {
    words.push(`${run.rate.toFixed(1)} ECG/s`);
    if (run.pending) words.push(`about ${left(run.pending / run.rate)} left`);
  }
  const line = element("p", null, words.join(", "));
  if (total) {
    const told = { max: total, value: run.done + run.failed, "aria-label": `Progress of ${run.name}` };
    line.append(" ", element("progress", told));
  }
  return line;
}

function left(seconds) {
  if (seconds < 90) return counted(Math.ceil(seconds), "second");
  return seconds < 5400 ? counted(Math.ceil(seconds / 60), "minute") : counted(Math.ceil(seconds / 3600), "hour");
}
