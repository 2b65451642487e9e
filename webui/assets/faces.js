// The faces of a photo: chosen in the row beneath it or on the photo itself, and in the end looked at closely
// (face_report.py). The tab that restores asks for this script (panels/restore/single.py).
(() => {
  if (window.chosenFaces) return; // the tab was opened before
  const faceTiles = () => document.querySelector("#restore-faces input[value=center]:checked") ? [] : [...document.querySelectorAll(".pick button")];
  const isChosen = (tile) => tile.ariaPressed === "true";

  // Points in those that are to be restored; null: nobody chose, and all are, by the rules.
  window.chosenFaces = () => {
    const all = faceTiles(), chosen = all.filter(isChosen);
    return chosen.length === all.length ? null : chosen.map(({ dataset: { x, y } }) => ({ x: +x, y: +y }));
  };

  // What the button beneath does; Gradio redraws it as well.
  function nameStep() {
    const button = document.getElementById("restore-start"), all = button?.dataset.step === "begin" ? faceTiles() : [];
    const count = all.filter(isChosen).length;
    const some = () => count > 1 ? spoken("script_restore_faces", { count }) : spoken("script_restore_face");
    const says = !all.length ? null : count ? some() : spoken("script_choose_face");
    if (button && button.ariaLabel !== says) button.ariaLabel = says; // the style sheet shows it; null: there is none
  }

  const stepChanges = new MutationObserver(nameStep), photoChanges = new ResizeObserver(([{ target }]) => placeFaces(target));

  // A photo was looked at, or another one came.
  window.showFaces = showFaces;
  function showFaces() {
    const all = faceTiles(), photo = document.querySelector("#photo .image-frame img");
    document.querySelector("#photo .over")?.remove();
    nameStep();
    if (!all.length || !photo) return;
    stepChanges.observe(document.getElementById("restore-start").parentElement, { subtree: true, childList: true, attributes: true });
    for (const image of document.querySelectorAll(".pick img:not([src])")) image.src = photo.src;
    if (photo.closest(".cannot-be-shown")) photo.src = document.querySelector(".pick img").src; // the server's, of a HEIC
    const over = document.createElement("div");
    over.className = "over";
    over.ariaHidden = "true"; // the row says it all
    const boxes = all.map((tile, k) => ({ k, box: tile.dataset.box.split(" ").map(Number) }));
    for (const { k, box: [left, top, width, height] } of boxes.sort((a, b) => b.box[2] * b.box[3] - a.box[2] * a.box[3])) {
      const mark = document.createElement("span");
      mark.dataset.tile = k;
      mark.textContent = k + 1;
      mark.classList.toggle("is-left-out", !isChosen(all[k]));
      Object.assign(mark.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * width}%`, height: `${100 * height}%` });
      over.append(mark);
    }
    photo.parentElement.append(over);
    photoChanges.disconnect();
    photoChanges.observe(photo);
    photo.addEventListener("load", () => placeFaces(photo));
  }

  // As large as what is seen of the photo, which keeps its shape within its element.
  function placeFaces(photo) {
    const over = photo.parentElement.querySelector(".over");
    if (!over || !photo.naturalWidth) return;
    const scale = Math.min(photo.clientWidth / photo.naturalWidth, photo.clientHeight / photo.naturalHeight);
    const width = photo.naturalWidth * scale, height = photo.naturalHeight * scale;
    const left = photo.offsetLeft + (photo.clientWidth - width) / 2, top = photo.offsetTop + (photo.clientHeight - height) / 2;
    Object.assign(over.style, { width: `${width}px`, height: `${height}px`, left: `${left}px`, top: `${top}px` });
  }

  function lookAt(tile) {
    const stage = tile.closest(".stage"), zoom = stage.querySelector(".zoom"), { face, offer } = tile.dataset;
    for (const other of tile.parentElement.children) other.ariaPressed = String(other === tile);
    stage.querySelector(".compare").hidden = Boolean(face);
    zoom.hidden = !face;
    if (!face) return;
    for (const cut of zoom.querySelectorAll(".cut")) cut.style.cssText = tile.querySelector(".cut").style.cssText;
    zoom.querySelector(".badge").textContent = tile.ariaLabel;
    const also = zoom.querySelector("[data-also]");
    also.dataset.also = face;
    also.hidden = offer === undefined;
  }

  document.addEventListener("click", (event) => {
    const mark = event.target.closest(".over span"), tile = mark ? faceTiles()[mark.dataset.tile] : event.target.closest(".pick button");
    if (tile) {
      tile.ariaPressed = String(!isChosen(tile));
      document.querySelector(`.over [data-tile="${faceTiles().indexOf(tile)}"]`)?.classList.toggle("is-left-out", !isChosen(tile));
      nameStep();
    }
    const closely = event.target.closest(".face-strip button");
    if (closely) lookAt(closely);
  });
  document.addEventListener("change", (event) => { if (event.target.closest("#restore-faces")) showFaces(); });
  showFaces(); // what came before this script
  if (window.pressedEarly?.isConnected) lookAt(window.pressedEarly);
})();
