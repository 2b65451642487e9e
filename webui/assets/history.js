// The wall of pictures. What the server sends is merged into it card by card: Gradio would write everything anew, and
// whoever had come to the third page would be at its top again. `element`, `trigger`, `props`, `watch` are Gradio's.
const part = (name) => element.querySelector(`[data-part=${name}]`);
const position = (card) => card.dataset.position.split(" ").map(Number);
const compare = (a, b) => position(a)[0] - position(b)[0] || position(a)[1] - position(b)[1];
const same = (card) => part("cards").querySelector(`[data-position="${card.dataset.position}"]`);
const controls = (card) => [...card.querySelectorAll("a, button, input, summary")];
const chosen = () => [...part("cards").querySelectorAll("article:has([data-choose]:checked)")];
let query, again;

const end = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) entry.target.click();
}, { rootMargin: "400px" });

function merge(card) {
  const old = same(card);
  if (old) {
    const shown = old.cloneNode(true), at = controls(old).indexOf(document.activeElement);
    shown.querySelectorAll("details").forEach((menu) => { menu.open = false; });
    if (shown.isEqualNode(card)) return;
    const [was, now] = [old, card].map((either) => either.querySelector("[data-choose]"));
    if (was && now) now.checked = was.checked;
    old.replaceWith(card);
    if (at >= 0) controls(card)[at]?.focus();
    return;
  }
  const last = part("cards").lastElementChild;
  const next = last && compare(last, card) < 0 ? [...part("cards").children].find((other) => compare(other, card) < 0) : null;
  part("cards").insertBefore(card, next);
}

function fill(name, html) {
  if (html !== undefined && html !== null) part(name).innerHTML = html;
}

function show(value) {
  if (!value || (value.show === "more" && value.query !== query)) return; // of a search that has changed since
  const template = document.createElement("template");
  template.innerHTML = value.cards;
  const cards = [...template.content.children];
  const goesOn = value.show === "first" && value.query === query && cards.some(same); // there may be a picture more
  if (value.show === "first" && !goesOn) part("cards").replaceChildren();
  if (value.show === "first") query = value.query;
  const pressed = part("rest").contains(document.activeElement);
  for (const gone of value.gone ?? []) same({ dataset: { position: gone } })?.remove();
  cards.forEach(merge);
  if (!goesOn) fill("rest", value.rest);
  if (pressed && value.show === "more") cards[0]?.querySelector("a")?.focus();
  if (part("notice").dataset.html !== value.notice) fill("notice", value.notice); // said once, and not at each look
  if (value.notice !== undefined) part("notice").dataset.html = value.notice;
  if (!goesOn) fill("tools", value.tools);
  fill("undo", value.undo);
  const bar = part("undo").firstElementChild;
  if (bar && value.undo) setTimeout(() => bar.remove(), 1000 * bar.dataset.left);
  if (value.show === "first") clearTimeout(again);
  if (value.again) again = setTimeout(() => { if (element.checkVisibility()) trigger("look", {}); }, 1000 * value.again);
  end.disconnect();
  part("rest").querySelectorAll("[data-more]").forEach((button) => end.observe(button));
  count();
}

function count() {
  const number = chosen().length, line = part("tools").querySelector("[data-count]");
  if (line) line.textContent = line.dataset.count.replace("0", number);
  part("tools").querySelectorAll("[data-all]").forEach((button) => { button.disabled = !number; });
}

function choose(on) {
  element.classList.toggle("is-choosing", on);
  if (!on) element.querySelectorAll("[data-choose]:checked").forEach((box) => { box.checked = false; });
  count();
  part("tools").querySelector(on ? "[data-choosing=end]" : "[data-choosing=begin]")?.focus();
}

function takeAway(cards) { // at once; they come back if the server does not agree
  const next = cards.at(-1)?.nextElementSibling ?? part("rest");
  for (const card of cards) card.hidden = true;
  setTimeout(() => cards.forEach((card) => { card.hidden = false; }), 10000);
  next.querySelector("a, button")?.focus();
}

function act(what, cards) {
  const jobs = cards.map((card) => card.dataset.job);
  if (!jobs.length) return;
  if (what === "zip") location.href = `batch.zip?jobs=${jobs.join("-")}`;
  if (what === "favour") trigger("favour", { jobs, favourite: true });
  if (what === "unfavour") trigger("favour", { jobs, favourite: false });
  if (what === "delete") {
    trigger("delete", { jobs });
    takeAway(cards);
  }
  if (element.classList.contains("is-choosing") && what !== "zip") choose(false);
}

element.addEventListener("click", (event) => {
  for (const menu of element.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  const choosing = element.classList.contains("is-choosing"), card = event.target.closest("article");
  if (choosing && card && event.target.closest(".pictures a")) {
    event.preventDefault();
    card.querySelector("[data-choose]")?.click();
  }
  const button = event.target.closest("button");
  if (!button) return;
  const { reuse, develop, share, unshare, approve, decline, more, undo, all, take, choosing: mode } = button.dataset;
  if (reuse) trigger("reuse", { job: reuse });
  if (develop) trigger("develop", { name: develop });
  if (take === "restore") trigger("restore", { picture: card.dataset.picture });
  if (take === "begin_with") trigger("begin_with", { picture: card.dataset.picture });
  if (share) trigger("album", { job: share, shared: true });
  if (approve) trigger("approve", { job: approve, approved: true });
  if (decline) trigger("approve", { job: decline, approved: false });
  if (unshare) trigger("album", { job: unshare, shared: false, position: card.dataset.position });
  if (more && button.ariaBusy !== "true") {
    button.ariaBusy = "true";
    setTimeout(() => { button.ariaBusy = "false"; }, 5000); // it may have failed
    trigger("more", { after: more });
  }
  if (undo) {
    trigger("undo", { jobs: undo.split(" ") });
    button.parentElement.remove();
  }
  if (button.dataset.act) act(button.dataset.act, [card]);
  if (all) act(all, chosen());
  if (mode === "begin" || mode === "end") choose(mode === "begin");
  if (mode === "all") {
    element.querySelectorAll("article:not([hidden]) [data-choose]").forEach((box) => { box.checked = true; });
    count();
  }
});
element.addEventListener("change", count);
element.addEventListener("error", ({ target }) => { // a file of a folder that is none, or that its share does not give
  target.closest?.("[data-unreadable]")?.classList.add("is-unreadable");
}, true);
element.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const menu = event.target.closest("details.menu[open]");
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  } else if (element.classList.contains("is-choosing")) choose(false);
});
watch("value", () => show(props.value));
show(props.value);
