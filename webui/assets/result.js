// What is done with a finished picture in the browser alone: looked at in full, shared, copied.
(() => {
  const root = document.documentElement, sample = new File([""], "a.png", { type: "image/png" });
  const shares = Boolean(navigator.canShare?.({ files: [sample] }));
  if (shares || matchMedia("(pointer: coarse)").matches) root.dataset.shares = "";
  if (isSecureContext && window.ClipboardItem) root.dataset.copies = "";

  // The picture that the stage shows now: of several, its strip has another one chosen (page.js).
  const pictureOf = (element) => element.closest(".stage").querySelector("a[download]");

  async function share(button) {
    const link = pictureOf(button);
    if (!shares) {
      link.click();
      return say(button, button.dataset.instead);
    }
    const blob = await (await fetch(link.href)).blob();
    const files = [new File([blob], link.download, { type: blob.type })];
    await navigator.share({ files }).catch((error) => { if (error.name !== "AbortError") throw error; });
  }

  // A clipboard takes PNG alone; a promise, as some browsers ask for the press itself to have begun it.
  async function copy(button) {
    await navigator.clipboard.write([new ClipboardItem({ "image/png": png(pictureOf(button).href) })]);
    say(button, button.dataset.done);
  }

  async function png(address) {
    const blob = await (await fetch(address)).blob();
    if (blob.type === "image/png") return blob;
    const bitmap = await createImageBitmap(blob), canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    return canvas.convertToBlob({ type: "image/png" });
  }

  function say(button, text) {
    let line = button.parentElement.querySelector("[role=status]");
    if (!line) {
      line = Object.assign(document.createElement("span"), { className: "note" });
      line.setAttribute("role", "status");
      button.parentElement.append(line);
    }
    line.textContent = text;
    setTimeout(() => line.remove(), 8000); // Gradio would leave it there, under the next picture too
  }

  // In full: as large as the window, and at a press as large as it is. Two fingers enlarge it as any page.
  function view(picture) {
    const viewer = document.createElement("dialog"), image = new Image(), close = document.createElement("button");
    viewer.className = "viewer";
    viewer.setAttribute("aria-label", picture.alt);
    image.src = picture.src;
    image.alt = picture.alt;
    close.textContent = "✕";
    close.setAttribute("aria-label", spoken("script_close"));
    viewer.append(image, close);
    image.addEventListener("click", () => viewer.classList.toggle("is-whole-size"));
    close.addEventListener("click", () => viewer.close());
    viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
    viewer.addEventListener("close", () => viewer.remove());
    document.body.append(viewer);
    viewer.showModal();
    close.focus();
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-share-picture], [data-copy-picture]");
    if (button) return button.matches("[data-copy-picture]") ? copy(button) : share(button);
    const picture = event.target.closest(".stage.is-done .frame > img");
    if (picture) view(picture);
  });
})();
