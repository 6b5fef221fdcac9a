// The panel of a recording: its ECG, flags, statements, what is near to it, the patient's other recordings.

import { button, counted, element, percent, table, tell } from "./dom.js";
import { drawEcg } from "./ecg.js";

/** Shows recordings one after the other; `atlas` has server, open(row), marked(row, others). */
export class RecordingPanel {
  constructor(place, atlas, about) {
    this.place = place;
    this.atlas = atlas;
    this.about = about;
    this.walked = [];
    this.row = -1;
    place.replaceChildren(element("p", { class: "soft" }, "Click a recording on the map, or find one by its name."));
  }

  /** Show a recording; `back` says that it was seen before. */
  async show(row, back = false) {
    const asked = (this.asked = {});
    if (!back && this.row >= 0 && this.row !== row) this.walked.push(this.row);
    this.row = row;
    this.atlas.marked(row, []);
    const told = await this.atlas.server.recording(row);
    if (asked !== this.asked) return;
    this.name = told.record;
    tell(`Recording ${told.record}`);
    this.figure = element("figure", { id: "ecg" }, element("p", { class: "soft" }, "The file is being read."));
    this.near = element("div", { id: "neighbours" },
      element("p", { class: "soft" }, "Neighbours are being looked for."));
    this.place.replaceChildren(
      element("div", { class: "bar" },
        button("Back", () => this.back(), { id: "back", disabled: this.walked.length === 0 })),
      element("h2", { id: "record" }, told.record),
      element("p", { class: "soft" }, [told.run, this.patientOf(told)].filter(Boolean).join(", ")),
      this.figure, ...(told.flags ? flagsOf(told) : []), ...statementsOf(told),
      element("h3", null, "Nearest recordings"), this.near, ...this.othersOf(told), factsOf(told));
    await Promise.all([this.showEcg(row, asked), this.showNear(row, asked)]);
  }

  patientOf(told) {
    const { group } = this.about;
    return group && told[group] ? `${group}: ${told[group]}` : "";
  }

  back() {
    this.show(this.walked.pop(), true).catch((error) => tell(error.message));
  }

  async showEcg(row, asked) {
    let told;
    try {
      told = await this.atlas.server.ecg(row);
    } catch (error) {
      told = { reason: error.message };
    }
    if (asked !== this.asked) return;
    this.ecg = told.rows ? told : null;
    this.evidence = null;
    if (!this.ecg) {
      this.figure.replaceChildren(element("p", null, `No ECG is drawn: ${told.reason}.`));
      return;
    }
    this.draw(null);
    if (this.about.has_evidence) await this.showEvidence(row, asked);
  }

  async showEvidence(row, asked) {
    let told;
    try {
      told = await this.atlas.server.evidence(row);
    } catch (error) {
      told = { reason: error.message };
    }
    if (asked !== this.asked) return;
    if (told.reason) tell(`No evidence is drawn: ${told.reason}.`);
    else {
      this.evidence = told;
      this.draw(this.other);
    }
  }

  /** Draw the ECG, and another one over it if there is one. */
  draw(other) {
    const { ecg, evidence } = this;
    this.other = other;
    const about = `ECG of ${this.name}, ${ecg.heading}`;
    const caption = [element("span", null, ecg.heading),
      element("span", { class: "soft" }, ecg.footer.filter(Boolean).join("; "))];
    if (other) {
      caption.push(element("span", null, element("span", { class: "over" }, "blue"),
        `: ${other.name}, similarity ${other.similarity} `, button("Remove it", () => this.draw(null))));
    }
    for (const band of evidence?.bands ?? []) {
      caption.push(...band.caption.map((line) => element("span", { class: "evidence" }, line)));
    }
    const drawing = drawEcg(ecg, other ? `${about}; over it ${other.name}` : about, other?.ecg, evidence);
    const paper = element("div", { class: "paper", tabindex: 0, role: "group", "aria-label": "ECG on paper" }, drawing);
    this.figure.replaceChildren(paper, element("figcaption", null, ...caption));
  }

  async showNear(row, asked) {
    let told;
    try {
      told = await this.atlas.server.neighbours(row);
    } catch (error) {
      told = { reason: error.message };
    }
    if (asked !== this.asked) return;
    if (told.reason) {
      this.near.replaceChildren(element("p", null, `None: ${told.reason}.`));
      return;
    }
    const several = this.about.runs.length > 1, { group } = this.about;
    const header = ["recording", ...(several ? ["run"] : []), ...(group ? [group] : []), "similarity", ""];
    const rows = told.neighbours.map((each) => [
      button(each.record, () => this.atlas.open(each.row), { class: "link" }),
      ...(several ? [each.run] : []), ...(group ? [each.same_patient ? "the same" : each[group] ?? ""] : []),
      each.similarity.toFixed(3),
      button("Overlay", () => this.overlay(each), { "aria-label": `Overlay ${each.record}` })]);
    const how = told.exact ? "the cosine of embeddings minus their mean" : "not proved to be the nearest";
    this.near.replaceChildren(table(`Similarity is ${how}.`, header, rows, header.length - 2));
    this.atlas.marked(row, told.neighbours.map((each) => each.row));
  }

  async overlay({ row, record, similarity }) {
    try {
      const ecg = await this.atlas.server.ecg(row);
      if (!ecg.rows) tell(`${record} cannot be drawn: ${ecg.reason}.`);
      else if (!this.ecg) tell("There is no ECG to draw it over.");
      else {
        this.draw({ ecg, name: record, similarity: similarity.toFixed(3) });
        this.figure.scrollIntoView({ block: "nearest" });
      }
    } catch (error) {
      tell(error.message);
    }
  }

  othersOf(told) {
    if (!this.about.group) return [];
    const heading = element("h3", null, "Other recordings of the patient");
    if (!told.n_others) return [heading, element("p", { class: "soft" }, "None.")];
    const rows = told.others.map((each) => [button(each.record, () => this.atlas.open(each.row), { class: "link" })]);
    return [heading, table(counted(told.n_others, "other recording"), ["recording"], rows)];
  }
}

function flagsOf(told) {
  const heading = element("h3", null, "Quality flags");
  if (!told.flags.length) return [heading, element("p", { class: "soft" }, "None.")];
  return [heading, element("ul", { id: "flags" }, ...told.flags.map(({ name, detail, meaning }) =>
    element("li", null, element("strong", null, detail ? `${name}: ${detail}` : name), meaning ? `. ${meaning}` : "")))];
}

function statementsOf(told) {
  const parts = [];
  if (told.statements.length) {
    const lines = told.statements.map((each) => element("li", null, each));
    parts.push(element("h3", null, "Statements of the device"), element("ul", { id: "statements" }, ...lines));
  }
  if (told.probabilities.length) {
    const rows = told.probabilities.map(([name, value]) => [name, percent(value)]);
    parts.push(element("h3", null, "Statements of the network"),
      table("The likeliest ones, each by itself", ["statement", "probability"], rows, 1));
  }
  return parts;
}

function factsOf(told) {
  return element("details", { id: "facts" }, element("summary", null, "All columns"),
    table("Columns of the recording", ["column", "value"], told.facts));
}
