// The panel of the selection: what it is made of beside the rest, its recordings, and saving it.

import { ConditionForm } from "./condition.js";
import { button, count, counted, element, figure, percent, table, tell } from "./dom.js";

const COLUMNS_SHOWN = 8;
const STATEMENTS_SHOWN = 25;
const ROWS_SHOWN = 100;
const CAUTION = "Columns in which the selection differs most come first. The interval of 95 % takes recordings as "
  + "independent; what was selected because it looked different is no test.";

/** Shows the selection; `atlas` has points, server, open(row), selected(holds, how), inverted() and filtered(bits). */
export class SelectionPanel {
  constructor(place, atlas, about) {
    this.atlas = atlas;
    this.about = about;
    this.result = element("div", { id: "result" });
    const form = about.is_on_disk ? [] : [new ConditionForm(atlas, about.columns).element];
    place.replaceChildren(...form, this.modes(), this.result);
    this.empty();
  }

  /** What selecting does: "new", "add" or "take". */
  get how() {
    return this.mode.value;
  }

  modes() {
    this.mode = element("select", { id: "how" }, element("option", { value: "new" }, "a new selection"),
      element("option", { value: "add" }, "added to it"), element("option", { value: "take" }, "taken away from it"));
    return element("div", { class: "bar" }, element("label", null, "What is selected is ", this.mode),
      button("Invert", () => this.atlas.inverted(), { id: "invert" }),
      button("Clear", () => this.atlas.selected(() => false, "new"), { id: "clear" }));
  }

  empty() {
    this.selection = null;
    this.result.replaceChildren(element("p", { class: "soft" },
      "Nothing is selected. Draw a lasso or a box on the map, or choose a value of the legend."));
  }

  /** Show the selection of the points. */
  async show() {
    const { points, server } = this.atlas;
    const asked = (this.asked = {});
    if (!points.nSelected) {
      this.empty();
      return;
    }
    const told = await server.select(points.bits());
    if (asked !== this.asked) return; // another selection was made meanwhile
    this.selection = told.selection;
    [this.nSelected, this.nRest] = [told.n, points.n - told.n];
    this.list = element("div", { id: "rows" });
    this.columns = element("div", { id: "composition" }, ...this.composed(told.columns, COLUMNS_SHOWN));
    this.result.replaceChildren(
      element("h2", null, `${counted(told.n, "recording")} selected`),
      element("p", null, `${count(this.nRest)} are the rest. `, ...this.saving(told.selection)),
      element("h3", null, "Beside the rest"), this.columns, ...this.predictions(),
      element("h3", null, "Recordings"), this.list);
    await this.page(0);
  }

  saving(selection) {
    if (this.about.is_on_disk) return [];
    const link = (format, text) =>
      element("a", { href: this.atlas.server.saved(selection, format), download: `selection.${format}` }, text);
    return [link("csv", "Save as CSV"), " ", link("parquet", "Save as Parquet")];
  }

  // --- beside the rest ---------------------------------------------------------------------------------------------

  composed(columns, most) {
    if (!columns.length) return [element("p", { class: "soft" }, "There is no column to compare.")];
    const parts = columns.slice(0, most).map((column) => (column.spread ? this.spreadOf(column) : this.sharesOf(column)));
    if (columns.length > most) {
      const all = () => this.columns.replaceChildren(...this.composed(columns, columns.length));
      parts.push(button(`Show all ${columns.length} columns`, all));
    }
    return [element("p", { class: "soft" }, CAUTION), ...parts];
  }

  sharesOf(column) {
    const { nSelected, nRest } = this;
    const cell = (n, of) => `${count(n)} (${percent(n / Math.max(1, of))})`;
    const interval = (each) => `${percent(each.difference, true)} (${percent(each.low, true)} to ${percent(each.high, true)})`;
    const rows = column.shares.map((each) => [each.value ?? "missing", cell(each.selected, nSelected), cell(each.rest, nRest),
      nRest ? interval(each) : ""]);
    return table(column.name, ["value", "selected", "rest", "difference (95 %)"], rows, 1);
  }

  spreadOf(column) {
    const of = (quartiles) => quartiles?.map((each) => figure(each, column.kind));
    const cell = (quartiles) => (quartiles ? `${quartiles[1]} (${quartiles[0]} to ${quartiles[2]})` : "");
    const { selected, rest, n_selected: nSelected, n_rest: nRest } = column.spread;
    return table(column.name, ["", "selected", "rest", "distance"], [
      ["median (quartiles)", cell(of(selected)), cell(of(rest)), percent(column.distance)],
      ["recordings with a value", count(nSelected), count(nRest), ""],
    ], 1);
  }

  predictions() {
    if (this.about.is_on_disk || !this.about.columns.some(({ group }) => group === "predicted by the network")) return [];
    const place = element("div", { id: "predicted" }), { selection } = this;
    place.append(button("Compare what the network predicts", () => this.predicted(place, selection)));
    return [place];
  }

  async predicted(place, selection) {
    try {
      const { columns } = await this.atlas.server.composition(selection);
      const rows = columns.slice(0, STATEMENTS_SHOWN).map(({ name, spread, distance }) => [name.replace("probability: ", ""),
        figure(spread?.selected?.[1]), figure(spread?.rest?.[1]), percent(distance)]);
      place.replaceChildren(table("Statements whose probabilities differ most: medians, and the distance of the distributions",
        ["statement", "selected", "rest", "distance"], rows, 1));
    } catch (error) {
      tell(error.message);
    }
  }

  // --- recordings --------------------------------------------------------------------------------------------------

  /** Show a page of the selected recordings. */
  async page(first) {
    const { list, selection } = this;
    try {
      list.replaceChildren(...this.listed(await this.atlas.server.rows(selection, first), first));
    } catch (error) {
      tell(error.message);
    }
  }

  listed({ rows, total }, first) {
    const { group, runs } = this.about;
    const names = [...(runs.length > 1 ? ["run"] : []), ...(group ? [group] : [])];
    const cells = rows.map((each) => [button(each.record, () => this.atlas.open(each.row), { class: "link" }),
      ...names.map((name) => each[name] ?? "")]);
    const last = first + rows.length;
    return [table(`${count(first + 1)} to ${count(last)} of ${count(total)}`, ["recording", ...names], cells),
      element("div", { class: "bar" }, button("Earlier", () => this.page(first - ROWS_SHOWN), { disabled: first === 0 }),
        button("Later", () => this.page(last), { disabled: last >= total }))];
  }
}
