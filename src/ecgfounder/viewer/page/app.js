// The page: opens the map when it is ready, and connects the map and the panels.

import { isDark } from "./colours.js";
import { fillColumns } from "./condition.js";
import { byId, count, counted, element, percent, tell } from "./dom.js";
import { FailuresPanel } from "./failures.js";
import { colourBy, showLegend } from "./legend.js";
import { Chart } from "./map.js";
import { Points } from "./points.js";
import { showProgress } from "./progress.js";
import { RecordingPanel } from "./recording.js";
import { showFound } from "./search.js";
import { SelectionPanel } from "./selection.js";
import { openSource } from "./source.js";
import { Tabs } from "./tabs.js";

const WAIT = 400;
const root = document.documentElement;

/** What the panels can do: they know of each other by this alone. */
class Atlas {
  constructor(about, server) {
    this.about = about;
    this.server = server;
    this.points = new Points(about.n);
    this.column = null;
    this.tabs = new Tabs(byId("tabs"));
    this.chart = new Chart(byId("stage"), byId("points"), byId("marks"), {
      open: (row) => this.open(row),
      select: (holds, how) => this.selected(holds, how),
      hover: (row, place) => this.hover(row, place),
    });
    this.selection = new SelectionPanel(byId("panel-selection"), this, about);
    this.recording = new RecordingPanel(byId("panel-recording"), this, about);
    this.failures = new FailuresPanel(byId("panel-failures"), this.server, about);
    this.failures.page();
    this.listen();
  }

  listen() {
    fillColumns(byId("colour"), this.about.columns);
    if (this.about.is_on_disk && !this.about.maps.includes("umap")) {
      byId("kind").querySelector("[value=umap]").remove();
    }
    byId("colour").addEventListener("change", (event) => guarded(this.colour(event.target.value)));
    byId("kind").addEventListener("change", (event) => guarded(this.showMap(event.target.value)));
    byId("fit").addEventListener("click", () => this.chart.fit());
    for (const each of document.querySelectorAll("input[name=tool]")) {
      each.addEventListener("change", () => { this.chart.tool = each.value; });
    }
    byId("search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.tabs.show("found");
      guarded(showFound(byId("panel-found"), byId("search-text").value, this, this.about));
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolour());
  }

  // --- the map -----------------------------------------------------------------------------------------------------

  /** Show a map when it is ready; UMAP is begun if nobody has. */
  async showMap(kind) {
    const wanted = (this.wanted = kind);
    let told = await this.server.places();
    if (kind === "umap" && ["absent", "failed"].includes(told.umap.state)) {
      try {
        told = await this.server.startUmap();
      } catch (error) {
        byId("kind").value = "pca";
        throw error;
      }
    }
    while (told[kind].state === "working") {
      this.wait(kind, told[kind]);
      await new Promise((done) => setTimeout(done, WAIT));
      if (wanted !== this.wanted) return;
      told = await this.server.places();
    }
    byId("waiting").textContent = told[kind].state === "ready" ? "" : `There is no map: ${told[kind].phase}`;
    root.dataset.state = told[kind].state;
    if (told[kind].state !== "ready") return;
    this.points.places = await this.server.map(kind);
    if (wanted !== this.wanted) return;
    this.chart.show(this.points, colourBy(this.column, this.points));
    root.dataset.map = kind;
    const [first, second] = told.explained;
    tell(kind === "umap" ? "UMAP: distances between far groups mean little"
      : `Two principal components, ${percent(first)} and ${percent(second)} of the variance of directions`);
    if (!this.points.n) {
      byId("waiting").textContent = "There is no recording with an embedding. Failures have the reasons.";
    }
  }

  /** Say how far a map is: over it while there is none, else below it. */
  wait(kind, { phase, share }) {
    const text = `${kind === "umap" ? "UMAP" : "The map"}: ${phase}${share ? `, ${percent(share)}` : ""}`;
    if (root.dataset.map) tell(text);
    else byId("waiting").textContent = text;
  }

  async colour(name) {
    this.column = name ? await this.server.column(name) : null;
    this.recolour();
    root.dataset.colour = name;
  }

  recolour() {
    performance.mark("colour");
    this.chart.colour(colourBy(this.column, this.points));
    performance.measure("colour", "colour");
    showLegend(byId("legend"), this.column, this.points, (holds) => this.selected(holds));
    root.dataset.scheme = isDark() ? "dark" : "light";
  }

  hover(row, place) {
    const tip = byId("hover");
    const pointed = (this.pointed = row);
    tip.hidden = true;
    if (row < 0) return;
    guarded(this.server.name(row).then((told) => {
      if (pointed !== this.pointed) return;
      tip.textContent = told.record;
      tip.hidden = false;
      tip.style.left = `${Math.min(place[0], byId("stage").clientWidth - tip.offsetWidth - 4)}px`;
      tip.style.top = `${Math.max(0, place[1] - 34)}px`;
    }));
  }

  // --- what the panels do -------------------------------------------------------------------------------------------

  /** Show a recording, its place on the map and its ECG. */
  open(row) {
    this.tabs.show("recording");
    if (matchMedia("(max-width: 760px)").matches) byId("side").scrollIntoView();
    guarded(this.recording.show(row));
  }

  /** Mark a recording and its neighbours on the map. */
  marked(row, others) {
    this.chart.mark(row, others);
  }

  /** Select the recordings for which a function of the row is true. */
  selected(holds, how = this.selection.how) {
    performance.mark("select");
    this.points.select(holds, how);
    performance.measure("select", "select");
    this.changed();
  }

  inverted() {
    this.points.invert();
    this.changed();
  }

  /** Show the recordings of which a bit is set, or all. */
  filtered(bits) {
    this.points.show(bits);
    this.points.select((row) => this.points.selected[row] === 1);
    this.changed();
    this.count();
  }

  changed() {
    this.chart.redraw();
    this.tabs.show("selection");
    root.dataset.selected = this.points.nSelected;
    tell(`${counted(this.points.nSelected, "recording")} selected`);
    guarded(this.selection.show());
  }

  count() {
    const { n, nShown } = this.points, { n_failed: nFailed } = this.about;
    const shown = nShown < n ? `${count(nShown)} shown of ` : "";
    byId("counts").textContent = `${shown}${counted(n, "recording")}, ${shownCount(nFailed)} failed`;
    root.dataset.shown = nShown;
  }
}

/** A number, or what stands for a small one on a page on disk: "under 11". */
function shownCount(number) {
  return typeof number === "number" ? count(number) : number;
}

/** Say what went wrong where nothing else does. */
function guarded(promise) {
  promise.catch((error) => tell(error.message));
}

async function open() {
  const server = openSource();
  const about = await server.about();
  byId("title").textContent = about.runs.join(", ");
  document.title = `${about.runs.join(", ")} - ecgfounder`;
  const atlas = new Atlas(about, server);
  atlas.count();
  for (const [reason, n] of Object.entries(about.left_out)) {
    byId("counts").append(element("span", null, `; left out, ${reason}: ${shownCount(n)}`));
  }
  if (!about.is_complete && about.is_on_disk) {
    byId("counts").append(element("span", null, "; the run was not complete"));
  } else if (!about.is_complete) {
    guarded(showProgress(byId("progress"), server, () => guarded(server.reopen().then(() => location.reload()))));
  }
  if (!about.n && about.n_failed) atlas.tabs.show("failures");
  atlas.recolour();
  await atlas.showMap("pca");
}

guarded(open());
