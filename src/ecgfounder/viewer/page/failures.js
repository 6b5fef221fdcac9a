// The panel of failures: which recordings have no embedding, and why.

import { button, count, counted, element, table, tell } from "./dom.js";

const PER_PAGE = 100;

/** Shows failures, all or those with a text. */
export class FailuresPanel {
  constructor(place, server, about) {
    this.place = place;
    this.server = server;
    this.about = about;
    this.text = element("input", { type: "search", id: "failed-text", maxlength: 2000, autocomplete: "off" });
    this.list = element("div", { id: "failed" });
    this.reasons = element("div", { id: "reasons" });
    const find = (event) => {
      event.preventDefault();
      this.page(0);
    };
    const form = element("form", { class: "bar", on: { submit: find } },
      element("label", { for: "failed-text" }, "Name or reason contains"), this.text, element("button", null, "Find"));
    const parts = about.is_on_disk ? [] : [form, this.list];
    place.replaceChildren(element("h2", null, "Failures"), this.reasons, ...parts);
  }

  /** Show the failures from the first on. */
  async page(first = 0) {
    let told;
    try {
      told = await this.server.failures(this.text.value, first);
    } catch (error) {
      tell(error.message);
      return;
    }
    this.showReasons(told);
    const header = ["recording", ...(told.several ? ["run"] : []), "error", "reason"];
    const rows = told.rows.map((each) => header.map((name) => each[name === "recording" ? "record" : name] ?? ""));
    if (!rows.length) {
      this.list.replaceChildren(element("p", { class: "soft" }, this.text.value ? "None with this text." : ""));
      return;
    }
    this.list.replaceChildren(
      table(`${count(first + 1)} to ${count(first + rows.length)} of ${count(told.total)}`, header, rows),
      element("div", { class: "bar" }, button("Earlier", () => this.page(first - PER_PAGE), { disabled: first === 0 }),
        button("Later", () => this.page(first + rows.length), { disabled: first + rows.length >= told.total })));
  }

  showReasons(told) {
    const rows = told.reasons.map(({ error, reason, n }) => [
      this.about.is_on_disk ? reason || error : button(reason || error, () => this.only(reason), { class: "link" }),
      error, typeof n === "number" ? count(n) : n]);
    const none = element("p", { class: "soft" }, "No recording failed.");
    const header = ["reason", "error", "recordings"];
    this.reasons.replaceChildren(rows.length ? table(counted(told.n_reasons, "reason"), header, rows, 2) : none);
  }

  /** Show the failures with a reason. */
  only(reason) {
    this.text.value = reason;
    this.page(0);
  }
}
