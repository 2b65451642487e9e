// The chips of a preset's blanks, and the list of options that each opens. What is chosen stands in the prompt, where
// the server reads it. `element`, `trigger`, `props`, `watch` are Gradio's.
const part = element.querySelector("[data-part]");
let shape = "", expected = Boolean(localStorage.blanks); // as long as the shape is the same, chips keep the focus

function make(tag, attributes, ...inside) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...inside);
  return node;
}

function draw(label, blanks) {
  const row = make("div", { class: "blanks", role: "toolbar", "aria-label": label });
  const lists = blanks.map(({ name, title, options }, k) => {
    const id = `blank-${name}`, tab = { type: "button", tabindex: k ? -1 : 0 };
    row.append(make("button", { ...tab, popovertarget: id, "aria-haspopup": "listbox" }, title, " ", make("b", {})));
    return make("div", { id, popover: "", "data-blank": name }, make("p", { "aria-hidden": true }, title),
      make("div", { role: "listbox", "aria-label": title }, ...options.map(([option, text]) =>
        make("button", { type: "button", role: "option", tabindex: -1, "data-option": option }, text))));
  });
  part.replaceChildren(...(blanks.length ? [row, ...lists] : []));
}

function show({ label, blanks } = {}) {
  if (!blanks || (expected && !blanks.length)) return;
  expected = false;
  const next = JSON.stringify([label, blanks.map(({ chosen, ...rest }) => rest)]);
  if (next !== shape) draw(label, blanks);
  shape = next;
  for (const { name, chosen } of blanks) {
    for (const option of part.querySelectorAll(`#blank-${name} [role=option]`)) {
      option.ariaSelected = option.dataset.option === chosen;
      if (option.ariaSelected === "true") part.querySelector(`[popovertarget=blank-${name}] b`).textContent = option.textContent;
    }
  }
  localStorage.blanks = part.querySelector(".blanks")?.offsetHeight ?? "";
}

element.addEventListener("click", (event) => {
  const option = event.target.closest("[role=option]"), list = event.target.closest("[data-blank]");
  if (!option) return;
  list.hidePopover(); // which gives the focus back to the chip
  trigger("choose", { blank: list.dataset.blank, option: option.dataset.option });
});
element.addEventListener("toggle", (event) => {
  if (event.newState === "open") event.target.querySelector("[aria-selected=true]")?.focus();
}, true);
element.addEventListener("keydown", (event) => {
  const all = [...event.target.parentElement.children], at = all.indexOf(event.target);
  const step = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 };
  const to = all[step[event.key]];
  if (!to || !event.target.matches("button")) return;
  event.preventDefault();
  if (to.matches("[popovertarget]")) for (const chip of all) chip.tabIndex = chip === to ? 0 : -1;
  to.focus();
});
// A page that is loaded anew has its words again a little later, and until then room for the chips.
if (expected) {
  part.append(make("div", { class: "blanks", style: `min-height: ${parseInt(localStorage.blanks)}px` }));
  setTimeout(() => {
    if (!expected) return;
    expected = false;
    show({ blanks: [] });
  }, 5000);
}
watch("value", () => show(props.value));
show(props.value);
