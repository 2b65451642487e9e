// The row of presets: the built-in cards, a person's own, and what saves or brings one. What the server sends is put into
// its part, as Gradio would write everything anew. `element`, `trigger`, `props`, `watch` are Gradio's.
const MOST_BYTES = 16384; // of a file: the server refuses more, and is sent no more than it needs to see that
const part = (name) => element.querySelector(`[data-part=${name}]`);
const sheet = (name) => element.querySelector(`[data-sheet=${name}]`);
const items = () => [...element.querySelectorAll(".cards button")].filter((button) => button.checkVisibility());
const cards = () => element.querySelectorAll("[data-preset], [data-own]");
let managed; // the id of the preset whose sheet is open

// Pictures are fetched when their cards come near: the laziness of browsers begins with the edges of the window.
const near = new IntersectionObserver((changes) => {
  for (const { isIntersecting, target } of changes) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    target.src = target.dataset.src;
  }
}, { root: element.querySelector(".cards"), rootMargin: "0px 50px" });

// One of them is reached by Tab, and there is always one.
function rove(to) {
  const all = items(), next = to ?? all.find((item) => item.tabIndex === 0) ?? all[0];
  for (const item of element.querySelectorAll(".cards button")) item.tabIndex = item === next ? 0 : -1;
}

function press(card) {
  cards().forEach((other) => other.setAttribute("aria-pressed", other === card));
}

function show(value) {
  if (!value) return;
  const pressed = element.querySelector("[data-own][aria-pressed=true]")?.dataset.own;
  for (const name of ["cards", "own", "ends", "sheets", "undo"]) {
    if (typeof value[name] === "string") part(name).innerHTML = value[name];
  }
  element.querySelectorAll("img:not([src])").forEach((picture) => near.observe(picture));
  if (pressed) element.querySelector(`[data-own="${CSS.escape(pressed)}"]`)?.setAttribute("aria-pressed", true);
  const bar = part("undo").firstElementChild;
  if (bar && value.undo) setTimeout(() => bar.remove(), 1000 * bar.dataset.left);
  const focus = value.focus && element.querySelector(`[data-own="${CSS.escape(value.focus)}"]`);
  if (focus) {
    rove(focus);
    focus.scrollIntoView({ block: "nearest", inline: "nearest" });
    focus.focus();
  }
  rove();
}

// The first words of the prompt, up to the first stop.
function firstWords() {
  const words = document.querySelector("#prompt textarea")?.value ?? "";
  return [...words.trim().split(/[,\uff0c.\u3002;\uff1b!\uff01?\uff1f\u3001\n]/)[0].replace(/\s+/g, " ")].slice(0, 20).join("").trim();
}

function open(name, text) {
  const input = sheet(name).querySelector("[name=name]");
  input.value = text;
  sheet(name).showModal();
  input.select();
}

function manage({ manage: id, title, file }) {
  managed = id;
  const link = sheet("manage").querySelector("[data-export]");
  link.href = `own-presets/${id}.toml`;
  link.download = file;
  open("manage", title);
}

function takeAway(card) {
  const all = items(), at = all.indexOf(card);
  const next = all.slice(at + 2).find(Boolean) ?? all[at - 1];
  card.parentElement.hidden = true;
  setTimeout(() => { card.parentElement.hidden = false; }, 10000); // it comes back if the server does not agree
  rove(next);
  next?.focus();
}

async function take(file) {
  if (file) trigger("take", { text: await file.slice(0, MOST_BYTES + 4).text() });
}

element.addEventListener("click", (event) => {
  if (event.target.matches("dialog")) return event.target.close(); // beside the sheet
  const button = event.target.closest("button, a");
  if (!button) return;
  const { preset, own, undo } = button.dataset;
  if (preset || own) {
    press(button);
    rove(button);
    trigger(preset ? "pick" : "fill", preset ? { name: preset } : { id: own });
  }
  if (button.matches("[data-save]")) open("save", firstWords());
  if (button.matches("[data-import]")) element.querySelector("[data-file]").click();
  if (button.matches("[data-manage]")) manage(button.dataset);
  if (button.matches("[data-close], [data-export]")) button.closest("dialog").close();
  if (button.matches("[data-delete]")) {
    button.closest("dialog").close();
    takeAway(element.querySelector(`[data-own="${CSS.escape(managed)}"]`));
    trigger("delete", { id: managed });
  }
  if (undo) {
    button.parentElement.remove();
    trigger("undo", { id: undo });
  }
});
element.addEventListener("submit", (event) => {
  const name = event.target.elements.name.value;
  if (event.target.closest("[data-sheet=save]")) trigger("keep", { name });
  else trigger("rename", { id: managed, name });
});
element.addEventListener("change", (event) => {
  if (!event.target.matches("input[type=file]")) return;
  take(event.target.files[0]);
  event.target.value = ""; // the same file can be chosen again
});
element.addEventListener("keydown", (event) => {
  const all = items(), at = all.indexOf(event.target);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (at < 0 || !all[to]) return;
  event.preventDefault();
  rove(all[to]);
  all[to].focus();
});
for (const kind of ["dragover", "drop"]) {
  element.addEventListener(kind, (event) => {
    if (![...event.dataTransfer.items].some((item) => item.kind === "file")) return;
    event.preventDefault();
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}
// The card that saves is there when there are words (panels/portrait/own_presets.py).
new MutationObserver(() => rove()).observe(document.documentElement, { attributeFilter: ["data-words"] });
watch("value", () => show(props.value));
show(props.value);
