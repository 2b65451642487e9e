// The frame, touched: a visitor's way from a photo or a style to a picture, and away with it. All of it is in this page's
// memory and under a token that only this page has; whoever comes next finds nothing.
(() => {
  "use strict";
  const words = JSON.parse(document.body.dataset.words);
  if (new URLSearchParams(location.search).get("touch") === "0") return;
  const IDLE_S = 90, LAST_S = 15; // without a touch, and how much of it is said loudly
  const DOCK_S = 12; // the buttons stay, while nothing has begun
  const LOOK_MS = 1500; // at whether a phone has sent its photo
  const COUNT = 3; // seconds until the camera takes its picture
  const SHOT_PX = 1600; // its longer side

  const $ = (selector, within = touch) => within.querySelector(selector);
  const touch = document.getElementById("touch"), stage = $("#stage"), said = $("#said"), dock = $("#dock");
  const panes = Object.fromEntries([...touch.querySelectorAll("[data-pane]")].map((pane) => [pane.dataset.pane, pane]));
  const video = $("video"), camera = $(".camera"), counted = $(".count");

  let token = null; // a promise of the visit
  let aborting = new AbortController(); // all that is asked for on behalf of this visitor
  let photo = null, card = null, job = null, result = null; // { file, url, readable }, { name, title, picture }, id, { id, url, photo, hung }
  let shown = "", touched = 0, stream = null, sending = null;
  let approval = false; // the owner looks at pictures before they are on the wall

  // ---- asking

  async function ask(path, options = {}, own = true) {
    const headers = own ? { Authorization: `Bearer ${await visit()}`, ...options.headers } : options.headers;
    const answer = await fetch(path, { ...options, headers, cache: "no-store", signal: aborting.signal });
    if (answer.ok) return answer;
    const body = await answer.json().catch(() => ({}));
    throw new Error(body.message ?? String(answer.status));
  }

  function visit() {
    token ??= begin().catch((error) => {
      token = null;
      throw error;
    });
    return token;
  }

  async function begin() {
    const body = await (await ask("frame/visit", { method: "POST" }, false)).json();
    offer(body.cards);
    approval = body.approval;
    return body.token;
  }

  // What fails is said, unless the visit is over.
  async function attempt(action) {
    const mine = aborting;
    try {
      await action();
    } catch (error) {
      if (mine.signal.aborted) return;
      tell(error instanceof TypeError ? words.touch_lost : error.message);
      if (shown === "work") show("ready");
    }
  }

  // ---- what is shown

  function open() {
    touch.hidden = false;
    document.body.classList.add("is-touched");
    touched = Date.now();
    label();
  }

  function show(name) {
    shown = name;
    stage.hidden = !name;
    frame.hold(Boolean(name));
    for (const [key, pane] of Object.entries(panes)) pane.hidden = key !== name;
    if (name !== "photo") {
      look();
      sending = null;
    }
    tell("");
    label();
    for (const each of dock.children) each.classList.toggle("is-next", each.dataset.do === following());
    dock.querySelector("[data-do=heart]").disabled = Boolean(shown) && (shown !== "result" || result.hung);
  }

  // The one obvious next step.
  function following() {
    if (shown === "ready") return card ? "draw" : photo ? "restore" : "";
    return "";
  }

  function label() {
    const text = (what, words) => (dock.querySelector(`[data-do=${what}] span`).textContent = words);
    text("heart", shown !== "result" ? words.touch_heart : approval ? words.touch_ask_wall : words.touch_wall);
    text("next", shown ? words.touch_done : words.touch_next);
    picture(dock.querySelector("[data-do=photo] img"), photo?.readable ? photo.url : "");
    picture(dock.querySelector("[data-do=style] img"), card?.picture ?? "");
  }

  function picture(image, url) {
    image.hidden = !url;
    if (url) image.src = url;
    else image.removeAttribute("src");
  }

  function tell(text) {
    said.textContent = text;
  }

  function ready() {
    picture($(".mine"), photo?.readable ? photo.url : "");
    const chosen = $("figure.card");
    chosen.hidden = !card;
    picture($("img", chosen), card?.picture ?? "");
    $("figcaption", chosen).textContent = card?.title ?? "";
    show("ready");
    if (photo && !photo.readable) tell(words.touch_no_preview);
  }

  function offer(cards) {
    panes.style.replaceChildren(...cards.map((each) => {
      const button = document.createElement("button"), image = new Image(), caption = document.createElement("span");
      button.type = "button";
      image.src = each.picture;
      image.alt = "";
      image.draggable = false;
      caption.textContent = each.title;
      button.append(image, caption);
      button.addEventListener("click", () => {
        card = each;
        ready();
      });
      return button;
    }));
  }

  // ---- a photo: by the camera, by a phone, or a file of this device

  async function choosePhoto() {
    show("photo");
    watch();
    await receive();
  }

  async function watch() {
    if (!window.isSecureContext || !navigator.mediaDevices) return;
    try {
      const opened = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1920 } } });
      if (shown !== "photo") return stop(opened);
      stop(stream);
      video.srcObject = stream = opened;
      camera.hidden = false;
      await video.play();
    } catch {
      if (shown === "photo") tell(words.touch_no_camera); // a phone and a file are left
    }
  }

  function look() { // away from the camera
    stop(stream);
    video.srcObject = stream = null;
    camera.hidden = true;
    counted.hidden = true;
  }

  const stop = (opened) => opened?.getTracks().forEach((track) => track.stop());

  async function shoot() {
    if (!counted.hidden) return;
    counted.hidden = false;
    for (let left = COUNT; left > 0; left--) {
      counted.textContent = left;
      await new Promise((done) => setTimeout(done, 1000));
      if (!stream) return;
    }
    const scale = Math.min(1, SHOT_PX / Math.max(video.videoWidth, video.videoHeight));
    const sheet = document.createElement("canvas");
    [sheet.width, sheet.height] = [video.videoWidth * scale, video.videoHeight * scale];
    sheet.getContext("2d").drawImage(video, 0, 0, sheet.width, sheet.height);
    const file = await new Promise((done) => sheet.toBlob(done, "image/jpeg", 0.92));
    await take(file, "camera.jpg");
  }

  async function receive() {
    const mine = (sending = {});
    const box = $(".qr", panes.photo);
    box.hidden = true;
    const link = await (await ask("frame/visit/links/send", { method: "POST" })).json();
    if (sending !== mine) return;
    $("img", box).src = link.qr;
    box.hidden = false;
    for (let before = "waiting"; sending === mine; ) {
      const { state, name } = await (await ask(`frame/visit/links/${link.code}`)).json();
      if (state !== before && sending === mine) {
        before = state;
        touched = Date.now(); // whoever is at his phone is still here
        if (state === "open") tell(words.touch_phone_open);
        if (state === "here") return take(await (await ask(`frame/visit/links/${link.code}/photo`)).blob(), name);
      }
      await new Promise((done) => setTimeout(done, LOOK_MS));
    }
  }

  async function take(file, name) {
    const mine = aborting, named = new File([file], name || "photo", { type: file.type });
    const readable = await createImageBitmap(named).then((bitmap) => (bitmap.close(), true), () => false);
    if (mine.signal.aborted) return;
    if (photo) URL.revokeObjectURL(photo.url);
    photo = { file: named, url: URL.createObjectURL(named), readable };
    result = null;
    ready();
  }

  // ---- a picture

  async function make(path, values, from) {
    if (job) return;
    const body = new FormData();
    for (const [name, value] of Object.entries(values)) if (value) body.append(name, value);
    picture($(".preview"), from?.readable ? from.url : "");
    $("progress").removeAttribute("value");
    show("work");
    tell(words.touch_queue);
    job = "asked";
    try {
      const { id } = await (await ask(path, { method: "POST", body })).json();
      job = id;
      const final = await follow(id);
      result = { id, url: final.images?.[0] ?? final.output_path, from, hung: false };
      await finish();
    } finally {
      job = null;
    }
  }

  async function finish() {
    const image = $(".picture"), box = $(".qr", panes.result);
    image.src = result.url;
    await image.decode().catch(() => {});
    box.hidden = true;
    show("result");
    if (result.from?.readable) tell(words.touch_hold);
    touched = Date.now();
    const link = await (await ask(`frame/visit/links/take/${result.id}`, { method: "POST" })).json();
    $("img", box).src = link.qr;
    box.hidden = false;
  }

  // The end of a job, whose events come as they happen; a connection that breaks off goes on where it was.
  async function follow(id) {
    let last = "";
    for (;;) {
      try {
        const answer = await ask(`jobs/${id}/events`, last ? { headers: { "Last-Event-ID": last } } : {});
        if (answer.status === 204) throw new Error(words.touch_lost);
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        for (let rest = ""; ; ) {
          const { value, done } = await reader.read();
          if (done) break;
          const messages = (rest + value).split("\n\n");
          rest = messages.pop();
          for (const message of messages) {
            const field = (name) => message.match(new RegExp(`^${name}: (.*)$`, "m"))?.[1];
            last = field("id") ?? last;
            const end = hear(field("event"), JSON.parse(field("data") ?? "null"));
            if (end) return end;
          }
        }
      } catch (error) {
        if (aborting.signal.aborted || !(error instanceof TypeError)) throw error;
      }
      await new Promise((done) => setTimeout(done, 1000));
      if (aborting.signal.aborted) throw new Error("over");
    }
  }

  function hear(event, data) {
    touched = Date.now(); // who waits is here
    if (event === "progress") {
      const bar = $("progress"), whole = data.stage === "denoise" || data.stage === "restore";
      if (whole && data.total) [bar.max, bar.value] = [data.total, data.step];
      const left = data.eta_s ? words.touch_eta.replace("{seconds}", Math.ceil(data.eta_s)) : "";
      tell([whole && data.total ? words.touch_step.replace("{step}", data.step).replace("{total}", data.total) : words.touch_queue, left].filter(Boolean).join(" · "));
    }
    if (event === "preview" && data.kind === "step") picture($(".preview"), data.image);
    if (event === "final") return data;
    if (event === "failed" || event === "postponed") throw new Error(data.message);
  }

  // ---- what the buttons do

  const DO = {
    photo: choosePhoto,
    style: async () => {
      show("style");
      await visit();
    },
    draw: async () => {
      if (card) return make("frame/visit/draw", { card: card.name, photo: photo?.file }, null);
      await DO.style();
      tell(words.touch_style_first);
    },
    restore: async () => {
      if (photo) return make("frame/visit/restore", { photo: photo.file }, photo);
      const choosing = choosePhoto();
      tell(words.touch_photo_first);
      await choosing;
    },
    heart: async () => {
      if (shown !== "result") return favour();
      const { on_wall } = await (await ask(`frame/visit/wall/${result.id}`, { method: "POST" })).json();
      result.hung = true;
      show("result");
      tell(on_wall ? words.touch_on_wall : words.touch_asked);
    },
    next: async () => (shown ? end() : frame.step()),
    shoot,
    cancel: async () => {
      if (job && job !== "asked") await ask(`jobs/${job}`, { method: "DELETE" });
    },
    stay: async () => {},
  };

  async function favour() {
    dock.dataset.said = "";
    const answer = await fetch(`frame/favourite?name=${encodeURIComponent(frame.name)}`, { method: "POST" }).catch(() => null);
    dock.dataset.said = answer?.ok ? words.touch_favourite : words.touch_nothing;
  }

  // Nothing of the visitor is left, here and there.
  function end() {
    const old = token;
    aborting.abort();
    aborting = new AbortController();
    if (photo) URL.revokeObjectURL(photo.url);
    token = photo = card = job = result = null;
    show("");
    for (const image of touch.querySelectorAll("#stage img")) picture(image, "");
    for (const box of touch.querySelectorAll(".qr")) box.hidden = true;
    panes.style.replaceChildren();
    $("input[type=file]").value = "";
    close();
    old?.then((given) => fetch("frame/visit", { method: "DELETE", keepalive: true, headers: { Authorization: `Bearer ${given}` } })).catch(() => {});
  }

  function close() {
    touch.hidden = true;
    dock.dataset.said = "";
    $("#idle").hidden = $("#still").hidden = true;
    document.body.classList.remove("is-touched");
  }

  // ---- the hours in which nobody is here

  setInterval(() => {
    if (touch.hidden) return;
    const left = Math.ceil((shown ? IDLE_S : DOCK_S) - (Date.now() - touched) / 1000);
    if (left <= 0) return shown ? end() : close();
    const idle = $("#idle"), still = $("#still"), loud = Boolean(shown) && left <= LAST_S;
    idle.hidden = !shown || loud || Boolean(job);
    still.hidden = !loud;
    (loud ? $("b", still) : $("b", idle)).textContent = left;
  }, 250);

  document.addEventListener("pointerdown", () => (touched = Date.now()), true);
  document.addEventListener("keydown", (event) => {
    touched = Date.now();
    if (event.key === "Enter" && touch.hidden) {
      open();
      dock.firstElementChild.focus();
    }
    if (event.key === "Escape" && !touch.hidden) end();
  });
  document.getElementById("wall").addEventListener("click", () => (touch.hidden ? open() : close()));
  document.getElementById("dark").addEventListener("click", open);
  touch.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    if (button) attempt(DO[button.dataset.do]);
  });
  $("input[type=file]").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) attempt(() => take(file, file.name));
  });
  const image = $(".picture"); // held, it shows the photo as it came
  image.addEventListener("pointerdown", () => result?.from?.readable && (image.src = result.from.url));
  for (const name of ["pointerup", "pointerleave", "pointercancel"]) image.addEventListener(name, () => result && (image.src = result.url));
  image.addEventListener("contextmenu", (event) => event.preventDefault());
  addEventListener("pagehide", () => token && end());
})();
