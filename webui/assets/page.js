// The little that happens in the browser alone. Listeners sit on the document, because Gradio redraws what lies below.
document.addEventListener("input", (event) => {
  const range = event.target.closest(".compare input[type=range]");
  if (range) range.parentElement.style.setProperty("--at", range.value + "%");
});

// On a phone what comes of a press stands elsewhere on the page than the button.
document.addEventListener("click", (event) => {
  const stages = { generate: "stage", "contact-sheet": "stage", "restore-start": "restore-stage", batch: "batch-board", build: "build-stage", compare: "compare-stage" };
  const stage = document.getElementById(stages[event.target.closest("button")?.id]);
  if (!stage || innerWidth >= 768) return;
  const until = performance.now() + 5000, before = stage.innerHTML; // of a job that is over at once nothing runs
  requestAnimationFrame(function look() {
    const news = stage.querySelector(".is-running") ?? (stage.innerHTML !== before && stage.querySelector(".is-done"));
    if (news) news.scrollIntoView({ behavior: "smooth" });
    else if (performance.now() < until) requestAnimationFrame(look);
  });
});

// As in other programs that draw: the next step, from wherever one is.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
  const next = [...document.querySelectorAll(".main-step [data-step=begin]")].find((button) => button.checkVisibility());
  if (!next) return;
  event.preventDefault();
  next.click();
});

// A number that cannot be is exchanged by Gradio for the nearest that can, as one leaves the field: not in silence.
document.addEventListener("change", ({ target }) => {
  if (!target.matches("input[type=number]") || target.value === "") return;
  const typed = target.value, block = target.closest(".block");
  setTimeout(() => {
    block.querySelector(".corrected")?.remove();
    if (target.value === typed) return;
    const facts = { value: target.value, low: target.min, high: target.max };
    const note = Object.assign(document.createElement("p"), { className: "note corrected", role: "status" });
    note.textContent = spoken("script_corrected", facts);
    block.append(note);
    setTimeout(() => note.remove(), 8000);
  }, 50);
}, true); // before Gradio

document.addEventListener("click", (event) => {
  const thumb = event.target.closest("[data-show]");
  if (!thumb) return;
  const stage = thumb.closest(".stage");
  const picture = thumb.querySelector("img").src;
  stage.querySelector(".frame img").src = picture;
  stage.querySelectorAll(".actions a").forEach((link) => {
    link.href = picture;
    if (link.hasAttribute("download")) link.download = thumb.dataset.show.split("/").pop();
  });
  for (const name of ["data-develop", "data-again", "data-restore", "data-begin-with"]) {
    stage.querySelector(`[${name}]`)?.setAttribute(name, thumb.dataset.show);
  }
  stage.querySelectorAll("[data-show]").forEach((other) => other.classList.toggle("is-shown", other === thumb));
});

// A photo in a format that this browser does not know, HEIC mostly, can be restored all the same: show its name.
for (const kind of ["error", "load"]) {
  document.addEventListener(kind, (event) => {
    const frame = event.target.closest?.("#photo .image-frame");
    if (!frame) return;
    frame.classList.toggle("cannot-be-shown", kind === "error");
    frame.dataset.name = decodeURIComponent(event.target.src.split("/").pop());
  }, true);
}

// The page is loaded anew in the language that was chosen. It remembers what was written, and jobs go on.
document.addEventListener("change", async (event) => {
  if (event.target.id !== "language") return;
  const answer = await fetch(`language/${event.target.value}`, { method: "POST" }).catch(() => null);
  if (answer?.ok) location.reload();
  else event.target.value = document.documentElement.lang;
});

// The tab is in the address: it can be kept and sent, and Back leads to the one before.
(() => {
  const TABS = "#tabs > .tab-wrapper", OPEN = `${TABS} [role=tab][aria-selected=true]`;
  const shown = () => document.querySelector(OPEN)?.dataset.tabId;
  const asked = () => new URLSearchParams(location.search).get("tab");

  function go() {
    const tab = document.querySelector(`${TABS} [role=tab][data-tab-id="${CSS.escape(asked() ?? "portrait")}"]`);
    if (tab && tab.ariaSelected !== "true") tab.click();
  }

  function note() {
    const now = shown(), query = new URLSearchParams(location.search);
    if (!now || now === (asked() ?? "portrait")) return;
    query.set("tab", now);
    history.pushState(null, "", `?${query}`);
  }

  new MutationObserver((_, waiting) => {
    const tabs = document.querySelector(TABS);
    if (!tabs || !shown()) return;
    waiting.disconnect();
    go();
    new MutationObserver(note).observe(tabs, { subtree: true, attributeFilter: ["aria-selected"] });
  }).observe(document.documentElement, { subtree: true, childList: true });
  addEventListener("popstate", go);
})();

// While the house cannot be reached, the browser says so (service-worker.js), where it allows that: over https, or here.
if (isSecureContext) navigator.serviceWorker?.register("service-worker.js");
