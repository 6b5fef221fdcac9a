// The panel of the selection: by a condition, what it is made of beside the rest, its recordings, and saving it.

import { button, count, counted, element, figure, percent, table, tell } from "./dom.js";

const COLUMNS_SHOWN = 8;

/** Shows the selection; `atlas` has points, server, open(row), selected(holds, how) and filtered(bits). */
export class SelectionPanel {
  constructor(place, atlas, about) {
    this.place = place;
    this.atlas = atlas;
    this.about = about;
    this.result = element("div", { id: "result" });
    place.replaceChildren(...(about.is_on_disk ? [] : [this.conditionForm()]), this.modes(), this.result);
    this.empty();
  }

  // --- by a condition ------------------------------------------------------------------------------------------------

  conditionForm() {
    this.condition = element("input", { id: "condition", autocomplete: "off", spellcheck: "false", maxlength: 2000,
      placeholder: 'heart_rate > 100 and col("flag: clipped")' });
    this.columnChoice = element("select", { "aria-label": "Column of a condition" });
    fillColumns(this.columnChoice, this.about.columns);
    this.operator = element("select", { "aria-label": "Comparison" }, ...["==", "!=", "<", "<=", ">", ">=", "is None", "is true"].map((each) => element("option", null, each)));
    this.value = element("input", { "aria-label": "Value", size: 10, autocomplete: "off" });
    const form = element("form", { class: "condition", on: { submit: (event) => { event.preventDefault(); this.selectWhere(); } } },
      element("label", { for: "condition" }, "Condition on the columns"), this.condition,
      element("div", { class: "bar" }, this.columnChoice, this.operator, this.value, button("Add condition", () => this.addCondition())),
      element("div", { class: "bar" }, element("button", { id: "select-where" }, "Select"),
        button("Show only these", () => this.showWhere(), { id: "show-where" }), button("Show all", () => this.showAll(), { id: "show-all" })));
    return form;
  }

  /** Write a condition of the choices into the field, after what is there. */
  addCondition() {
    const name = this.columnChoice.value, value = this.value.value;
    if (!name) return;
    const column = /^[A-Za-z_]\w*$/.test(name) && !["and", "or", "not", "in", "is", "None"].includes(name) ? name : `col(${JSON.stringify(name)})`;
    const isNumber = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(value);
    const operator = this.operator.value;
    const text = operator === "is None" ? `${column} is None` : operator === "is true" ? column : `${column} ${operator} ${isNumber ? value : JSON.stringify(value)}`;
    this.condition.value = this.condition.value ? `${this.condition.value} and ${text}` : text;
    this.condition.focus();
  }

  async where() {
    try {
      return await this.atlas.server.filter(this.condition.value);
    } catch (error) {
      tell(error.message);
      return null;
    }
  }

  async selectWhere() {
    const bits = await this.where();
    if (bits) this.atlas.selected((row) => ((bits[row >> 3] >> (row & 7)) & 1) === 1);
  }

  async showWhere() {
    const bits = await this.where();
    if (bits) this.atlas.filtered(bits);
  }

  showAll() {
    this.atlas.filtered(null);
  }

  // --- what selecting does -------------------------------------------------------------------------------------------

  modes() {
    this.mode = element("select", { id: "how" }, element("option", { value: "new" }, "a new selection"),
      element("option", { value: "add" }, "added to it"), element("option", { value: "take" }, "taken away from it"));
    return element("div", { class: "bar" }, element("label", null, "What is selected is ", this.mode),
      button("Invert", () => this.atlas.inverted(), { id: "invert" }), button("Clear", () => this.atlas.selected(() => false, "new"), { id: "clear" }));
  }

  get how() {
    return this.mode.value;
  }

  // --- the selection -------------------------------------------------------------------------------------------------

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
    const link = (format, text) => element("a", { href: this.atlas.server.saved(selection, format), download: `selection.${format}` }, text);
    return [link("csv", "Save as CSV"), " ", link("parquet", "Save as Parquet")];
  }

  composed(columns, most) {
    const shown = columns.slice(0, most);
    const parts = shown.length ? [element("p", { class: "soft" }, "Columns in which the selection differs most come first. The interval of 95 % takes recordings "
      + "as independent; what was selected because it looked different is no test.")] : [];
    parts.push(...shown.map((column) => (column.spread ? this.spreadOf(column) : this.sharesOf(column))));
    if (columns.length > most) {
      const more = button(`Show all ${columns.length} columns`, () => this.columns.replaceChildren(...this.composed(columns, columns.length)));
      parts.push(more);
    }
    return parts;
  }

  sharesOf(column) {
    const { nSelected, nRest } = this;
    const rows = column.shares.map((each) => [each.value ?? "missing",
      `${count(each.selected)} (${percent(each.selected / Math.max(1, nSelected))})`,
      `${count(each.rest)} (${percent(each.rest / Math.max(1, nRest))})`,
      nRest ? `${percent(each.difference, true)} (${percent(each.low, true)} to ${percent(each.high, true)})` : ""]);
    return table(column.name, ["value", "selected", "rest", "difference (95 %)"], rows, 1);
  }

  spreadOf(column) {
    const text = (each) => each && `${figure(each[1], column.kind)} (${figure(each[0], column.kind)} to ${figure(each[2], column.kind)})`;
    const { selected, rest, n_selected, n_rest } = column.spread;
    const rows = [["median (quartiles)", text(selected) ?? "", text(rest) ?? "", percent(column.distance)], ["recordings with a value", count(n_selected), count(n_rest), ""]];
    return table(column.name, ["", "selected", "rest", "distance"], rows, 1);
  }

  predictions() {
    if (!this.about.columns.some(({ group }) => group === "predicted by the network")) return [];
    const place = element("div", { id: "predicted" });
    const selection = this.selection;
    place.append(button("Compare what the network predicts", async () => {
      try {
        const { columns } = await this.atlas.server.composition(selection);
        const rows = columns.slice(0, 25).map(({ name, spread, distance }) => [name.replace("probability: ", ""),
          figure(spread?.selected?.[1]), figure(spread?.rest?.[1]), percent(distance)]);
        place.replaceChildren(table("Statements whose probabilities differ most: medians, and the distance of the distributions", ["statement", "selected", "rest", "distance"], rows, 1));
      } catch (error) {
        tell(error.message);
      }
    }));
    return [place];
  }

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
    const { group } = this.about;
    const header = ["recording", ...(this.about.runs.length > 1 ? ["run"] : []), ...(group ? [group] : [])];
    const cells = rows.map((each) => [button(each.record, () => this.atlas.open(each.row), { class: "link" }), ...header.slice(1).map((name) => each[name] ?? "")]);
    return [table(`${count(first + 1)} to ${count(first + rows.length)} of ${count(total)}`, header, cells),
      element("div", { class: "bar" }, button("Earlier", () => this.page(first - 100), { disabled: first === 0 }),
        button("Later", () => this.page(first + rows.length), { disabled: first + rows.length >= total }))];
  }
}

/** Fill a choice of columns, in groups. */
export function fillColumns(choice, columns) {
  const groups = new Map();
  for (const { name, group } of columns) {
    if (!groups.has(group)) groups.set(group, element("optgroup", { label: group }));
    groups.get(group).append(element("option", { value: name }, name));
  }
  choice.append(...groups.values());
}
