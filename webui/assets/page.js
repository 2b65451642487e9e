// The little that happens in the browser alone. Listeners sit on the document, because Gradio redraws what lies below.
document.addEventListener("input", (event) => {
  const range = event.target.closest(".compare input[type=range]");
  if (range) range.parentElement.style.setProperty("--at", range.value + "%");
});

// On a phone the picture appears below the button that asked for it.
document.addEventListener("click", (event) => {
  const stages = { generate: "stage", restore: "restore-stage", batch: "batch-board", build: "build-stage", compare: "compare-stage" };
  const stage = stages[event.target.closest("button")?.id];
  if (stage && innerWidth <= 640) document.getElementById(stage).scrollIntoView({ behavior: "smooth" });
});

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
  const develop = stage.querySelector("[data-develop]");
  if (develop) develop.dataset.develop = thumb.dataset.show;
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
