// Tabs: one panel is seen at a time; arrows move between them, as in other programs.

import { byId } from "./dom.js";

/** Let the tabs of an element switch its panels. */
export class Tabs {
  constructor(list) {
    this.tabs = [...list.querySelectorAll("[role=tab]")];
    list.addEventListener("click", (event) => {
      const tab = event.target.closest("[role=tab]");
      if (tab) this.show(tab);
    });
    list.addEventListener("keydown", (event) => this.key(event));
  }

  /** Show the panel of a tab, which is given itself or by the end of its id. */
  show(tab) {
    const chosen = typeof tab === "string" ? byId(`tab-${tab}`) : tab;
    for (const each of this.tabs) {
      const isChosen = each === chosen;
      each.setAttribute("aria-selected", isChosen);
      each.tabIndex = isChosen ? 0 : -1;
      byId(each.getAttribute("aria-controls")).hidden = !isChosen;
    }
  }

  key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const at = this.tabs.indexOf(document.activeElement);
    const next = this.tabs[(at + steps[event.key] + this.tabs.length) % this.tabs.length];
    this.show(next);
    next.focus();
  }
}
