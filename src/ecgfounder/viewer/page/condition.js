// A condition on the columns, as --where takes it: written into a field, or put together by choices.

import { button, element, tell } from "./dom.js";

const OPERATORS = ["==", "!=", "<", "<=", ">", ">=", "is None", "is true"];
const WORDS_OF_CONDITIONS = ["and", "or", "not", "in", "is", "None", "True", "False"];
const LONGEST_CONDITION = 2000;

/** A form that selects or shows the recordings for which a condition is true; `atlas` has server, selected, filtered. */
export class ConditionForm {
  constructor(atlas, columns) {
    this.atlas = atlas;
    this.condition = element("input", { id: "condition", autocomplete: "off", spellcheck: "false", maxlength: LONGEST_CONDITION,
      placeholder: 'heart_rate > 100 and col("flag: clipped")' });
    this.column = element("select", { "aria-label": "Column of a condition" });
    fillColumns(this.column, columns);
    this.operator = element("select", { "aria-label": "Comparison" }, ...OPERATORS.map((each) => element("option", null, each)));
    this.value = element("input", { "aria-label": "Value", size: 10, autocomplete: "off" });
    this.element = element("form", { class: "condition", on: { submit: (event) => this.submit(event) } },
      element("label", { for: "condition" }, "Condition on the columns"), this.condition,
      element("div", { class: "bar" }, this.column, this.operator, this.value,
        button("Add condition", () => this.add(), { id: "add-condition" })),
      element("div", { class: "bar" }, element("button", { id: "select-where" }, "Select"),
        button("Show only these", () => this.show(), { id: "show-where" }),
        button("Show all", () => this.atlas.filtered(null), { id: "show-all" })));
  }

  /** Write a condition of the choices into the field, after what is there. */
  add() {
    if (!this.column.value) return;
    const text = conditionOf(this.column.value, this.operator.value, this.value.value);
    this.condition.value = this.condition.value ? `${this.condition.value} and ${text}` : text;
    this.condition.focus();
  }

  async submit(event) {
    event.preventDefault();
    const bits = await this.bits();
    if (bits) this.atlas.selected((row) => ((bits[row >> 3] >> (row & 7)) & 1) === 1);
  }

  async show() {
    const bits = await this.bits();
    if (bits) this.atlas.filtered(bits);
  }

  async bits() {
    try {
      return await this.atlas.server.filter(this.condition.value);
    } catch (error) {
      tell(error.message);
      return null;
    }
  }
}

function conditionOf(name, operator, value) {
  const isPlain = /^[A-Za-z_]\w*$/.test(name) && !WORDS_OF_CONDITIONS.includes(name);
  const column = isPlain ? name : `col(${JSON.stringify(name)})`;
  if (operator === "is true") return column;
  if (operator === "is None") return `${column} is None`;
  const isNumber = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(value);
  return `${column} ${operator} ${isNumber ? value : JSON.stringify(value)}`;
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
