// The frame: pictures on a wall, one after the other, for months. It holds the next ones and the last ones in memory, so
// that a server that is away is not missed; it asks for what it may show, and forgets at once what it may not any more.
(() => {
  "use strict";
  const words = JSON.parse(document.body.dataset.words);
  const asked = new URLSearchParams(location.search);
  const options = {
    show: asked.get("show") ?? "",
    seconds: amount("seconds", 15, 3, 3600),
    order: asked.get("order") ?? "random", // or new, old
    fit: asked.get("fit") ?? "auto", // or contain, cover
    pairs: asked.get("pairs") !== "0",
    clock: asked.get("clock") === "1",
    shift: asked.get("shift") !== "0",
    dim: hours(asked.get("dim")),
    black: hours(asked.get("black")),
    keep: amount("keep", 24, 2, 200), // pictures in memory
    name: (asked.get("name") ?? Math.random().toString(36).slice(2)).replace(/[^\w-]/g, "").slice(0, 40),
  };
  const FADED_MS = 2200; // one has faded into the other (frame.css), however late that began
  const TICK_MS = 1000, AGAIN_MS = 3000;
  const LOAD_MS = 20_000; // for a picture
  const HELD_MS = 10_000; // for news, which the server holds back for six seconds while there is none
  const STUCK_MS = 60_000; // a turn that takes longer is given up
  const STANDING_MS = Math.max(3 * options.seconds * 1000, 120_000); // a wall that does not change for so long is stuck
  const AHEAD = 4; // pictures that are looked through for one that stands well beside another
  const PORTRAIT = 0.9, WIDE = 1.25; // width / height, of pictures two of which stand side by side, and of such screens

  const wall = document.getElementById("wall"), note = document.getElementById("note");
  const clock = document.getElementById("clock"), dark = document.getElementById("dark");
  let [front, back] = wall.children;
  const store = new Map(); // id -> { file, narrow }, the latest last: as they came, as decoded they are a hundred times as large
  const loading = new Map(); // id -> promise of the same
  const broken = new Set(); // until the listing changes
  let listing = null, version = "", presses = 0, paused = false, away = false, refused = "";
  let deck = [], shown = [], due = 0, busy = 0, turns = 0, changed = Date.now(), forward = false, held = false;

  function amount(name, otherwise, low, high) {
    const value = Number(asked.get(name) ?? otherwise);
    return value >= low && value <= high ? value : otherwise;
  }

  // "22:00-7:00" -> [1320, 420], minutes after midnight
  function hours(text) {
    const match = /^(\d?\d):(\d\d)-(\d?\d):(\d\d)$/.exec(text ?? "");
    return match && [match[1] * 60 + +match[2], match[3] * 60 + +match[4]];
  }

  function within(span) {
    if (!span) return false;
    const now = new Date(), minute = now.getHours() * 60 + now.getMinutes(), day = 24 * 60;
    return (minute - span[0] + day) % day < (span[1] - span[0] + day) % day;
  }

  const screenPx = (px) => Math.min(Math.max(Math.round(px * Math.min(devicePixelRatio || 1, 2)), 16), 4096);
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));

  // ---- what may be shown

  async function follow() {
    for (;;) {
      try {
        const query = new URLSearchParams({ show: options.show, version, presses, paused, name: options.name, shown });
        const answer = await fetch(`frame/state?${query}`, { cache: "no-store", signal: AbortSignal.timeout(HELD_MS) });
        if (!answer.ok) await refuse(answer);
        else await hear(await answer.json());
      } catch {
        away = true;
        say();
        await wait(AGAIN_MS);
      }
    }
  }

  // Asked for what is not there, or without a login: then there is nothing that may be shown.
  async function refuse(answer) {
    if (answer.status >= 500 || answer.status === 429) throw new Error(String(answer.status));
    const body = await answer.json().catch(() => ({}));
    refused = body.message ?? String(answer.status);
    list([]);
    version = "";
    say();
    await wait(AGAIN_MS);
    if (answer.status === 401) anew(); // the page itself asks for the password
  }

  async function hear(news) {
    away = false;
    refused = "";
    if (news.code !== words.code) return anew();
    if (news.presses > presses) step();
    ({ presses, paused } = news);
    if (news.version !== version || listing === null) {
      const query = new URLSearchParams({ show: options.show });
      const answer = await fetch(`frame/list?${query}`, { cache: "no-store", signal: AbortSignal.timeout(LOAD_MS) });
      if (!answer.ok) throw new Error(String(answer.status));
      const listed = await answer.json();
      list(listed.pictures);
      version = listed.version;
    }
    say();
  }

  function list(ids) {
    const allowed = new Set(ids);
    const fresh = listing === null ? [] : ids.filter((id) => !listing.has(id)).reverse();
    listing = allowed;
    broken.clear();
    for (const id of [...store.keys()]) if (!allowed.has(id)) store.delete(id);
    deck = deck.filter((id) => allowed.has(id) && !fresh.includes(id));
    deck.unshift(...fresh.reverse());
    if (shown.some((id) => !allowed.has(id))) leave();
    if (fresh.length || !shown.length) due = 0;
  }

  // What is not allowed any more goes at once, where something is here that can take its place; the server may be slow.
  async function leave() {
    const here = [...store.keys()].pop();
    if (here) {
      deck = [here, ...deck.filter((id) => id !== here)];
      await turn();
    }
    if (!shown.some((id) => !listing.has(id))) return;
    clear(front);
    clear(back);
    shown = [];
    due = 0;
    say();
  }

  // ---- pictures

  const READS = [
    ["image/avif", "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAADrbWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAAAAAAAOcGl0bQAAAAAAAQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAETAAAAJgAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEAAGF2MDFDb2xvcgAAAABqaXBycAAAAEtpcGNvAAAAFGlzcGUAAAAAAAAAAQAAAAEAAAAQcGl4aQAAAAADCAgIAAAADGF2MUOBAAwAAAAAE2NvbHJuY2x4AAEADQAGgAAAABdpcG1hAAAAAAAAAAEAAQQBAoMEAAAALm1kYXQSAAoIGAAGiAhoNCAyGBxHh4Xd0000wsAAAJA1jjx+yg1QWM/bnA=="],
    ["image/webp", "UklGRjQAAABXRUJQVlA4ICgAAACQAQCdASoBAAEAB0CWJaACdLoAA5gA/uUK+Cepco/+N48CvJdjoAAA"],
  ];
  const reads = Promise.all(READS.map(async ([kind, data]) => {
    const image = new Image();
    image.src = `data:${kind};base64,${data}`;
    return image.decode().then(() => kind, () => null);
  })).then((kinds) => [...kinds.filter(Boolean), "image/jpeg"].join(","));

  // The picture, or null for one that is broken. It throws where the server is away. Who asks for one that somebody
  // else has asked for waits for the same.
  function load(id) {
    if (store.has(id)) return store.get(id);
    if (!loading.has(id)) loading.set(id, loaded(id).finally(() => loading.delete(id)));
    return loading.get(id);
  }

  async function loaded(id) {
    const query = new URLSearchParams({ w: screenPx(innerWidth), h: screenPx(innerHeight), fit: options.fit, show: options.show });
    const answer = await fetch(`frame/picture/${id}?${query}`, {
      cache: "no-store", headers: { Accept: await reads }, signal: AbortSignal.timeout(LOAD_MS),
    });
    if (answer.status >= 500 || answer.status === 429) throw new Error(String(answer.status));
    if (!answer.ok) return broken.add(id), null;
    const file = await answer.blob(), bitmap = await createImageBitmap(file).catch(() => null);
    if (!bitmap) return broken.add(id), null;
    store.set(id, { file, narrow: bitmap.width < PORTRAIT * bitmap.height });
    bitmap.close();
    for (const old of [...store.keys()]) {
      if (store.size <= options.keep) break;
      if (!shown.includes(old) && old !== id && !deck.slice(0, 3).includes(old)) store.delete(old);
    }
    return store.get(id);
  }

  function refill() {
    const ids = [...(listing ?? [])].filter((id) => !broken.has(id));
    if (options.order === "old") ids.reverse();
    else if (options.order !== "new") shuffle(ids);
    if (ids.length > 1 && shown.includes(ids[0])) ids.push(ids.shift());
    return ids;
  }

  function shuffle(ids) {
    for (let i = ids.length - 1; i > 0; i--) {
      const j = Math.floor(Math.random() * (i + 1));
      [ids[i], ids[j]] = [ids[j], ids[i]];
    }
  }

  // The next of the deck that can be shown and fits; while the server is away, of those in memory. Undefined: there is
  // none, or none of the next few fits.
  async function next(fits = () => true, beside = undefined) {
    if (!deck.length) deck = refill();
    let passed = 0;
    for (const id of [...deck]) {
      if (!away || store.has(id)) {
        try {
          const picture = await load(id);
          if (!listing.has(id)) continue;
          if (picture && !fits(picture)) {
            if (++passed === AHEAD) return undefined;
            continue;
          }
          deck = deck.filter((other) => other !== id);
          if (picture) return id;
        } catch {
          away = true;
        }
      }
    }
    if (!away) return undefined;
    const here = [...store.keys()].filter((id) => !shown.includes(id) && id !== beside && fits(store.get(id)));
    if (!here.length && beside === undefined) return shown[0]; // the only one
    return here[Math.floor(Math.random() * here.length)];
  }

  // ---- a turn

  const narrow = (picture) => picture.narrow;

  async function turn() {
    const mine = ++turns;
    busy = Date.now();
    const first = await next();
    let second;
    if (first && options.pairs && innerWidth > WIDE * innerHeight && narrow(store.get(first))) second = await next(narrow, first);
    const ids = [first, second].filter((id) => id && listing.has(id));
    const bitmaps = await Promise.all(ids.map((id) => createImageBitmap(store.get(id).file))).catch(() => []);
    if (mine === turns) { // else it was given up
      busy = 0;
      due = Date.now() + (bitmaps.length ? options.seconds * 1000 : AGAIN_MS);
      if (bitmaps.length && ids.every((id) => listing.has(id))) put(ids, bitmaps);
    }
    for (const bitmap of bitmaps) bitmap.close();
    if (mine !== turns) return;
    say();
    if (deck.length && !away) Promise.resolve(load(deck[0])).catch(() => {}); // the next one, ahead
  }

  function put(ids, bitmaps) {
    paint(back, bitmaps);
    back.dataset.shown = ids;
    back.classList.add("is-on");
    wall.append(back); // on top of the one that goes
    [front, back] = [back, front];
    const old = back;
    setTimeout(() => { if (old === back) clear(old); }, FADED_MS);
    shown = ids;
    changed = Date.now();
    for (const id of ids.filter((id) => store.has(id))) { // the latest, last
      const picture = store.get(id);
      store.delete(id);
      store.set(id, picture);
    }
  }

  function clear(layer) {
    layer.classList.remove("is-on");
    delete layer.dataset.shown;
    layer.width = layer.height = 1; // nothing is left of it
  }

  // Two sheets are painted on in turn, for ever: of an element for each picture browsers hold what they have decoded until
  // they lack memory, which on a small board is late.
  const tiny = document.createElement("canvas").getContext("2d");
  function paint(layer, bitmaps) {
    const width = (layer.width = screenPx(wall.clientWidth)), height = (layer.height = screenPx(wall.clientHeight));
    const pen = layer.getContext("2d"), share = width / bitmaps.length;
    bitmaps.forEach((bitmap, k) => {
      backdrop(pen, bitmap, k * share, share, height);
      const scale = Math.min(share / bitmap.width, height / bitmap.height);
      const [w, h] = [bitmap.width * scale, bitmap.height * scale];
      pen.drawImage(bitmap, k * share + (share - w) / 2, (height - h) / 2, w, h);
    });
  }

  // Behind it its own colours, darker, in which the eye finds no edge.
  function backdrop(pen, bitmap, left, width, height) {
    tiny.canvas.width = tiny.canvas.height = 8;
    tiny.drawImage(bitmap, 0, 0, 8, 8);
    pen.save();
    pen.beginPath();
    pen.rect(left, 0, width, height);
    pen.clip();
    pen.filter = `blur(${Math.round(height / 25)}px)`;
    pen.drawImage(tiny.canvas, left - width / 8, -height / 8, width * 1.25, height * 1.25);
    pen.filter = "none";
    pen.fillStyle = "rgb(0 0 0 / .4)";
    pen.fillRect(left, 0, width, height);
    pen.restore();
  }

  function step() {
    forward = true;
    due = 0;
  }

  // ---- what is said

  function say() {
    const text = refused || (shown.length ? "" : away ? words.frame_away : listing?.size === 0 ? words.frame_empty : "");
    if (note.textContent !== text) {
      note.textContent = text;
      note.hidden = !text;
    }
    if (document.body.classList.contains("is-away") !== away) document.body.classList.toggle("is-away", away);
  }

  // Each second; what has not changed is not touched, or the whole wall would be painted anew.
  function tell() {
    const now = new Date(), text = now.toLocaleTimeString(document.documentElement.lang, { hour: "2-digit", minute: "2-digit" });
    if (clock.textContent !== text) {
      clock.textContent = text;
      clock.hidden = !options.clock;
      if (options.shift) shift(now.getMinutes());
    }
    const black = within(options.black), darker = black || within(options.dim);
    if (dark.hidden === darker) dark.hidden = !darker;
    if (dark.classList.contains("is-black") !== black) dark.classList.toggle("is-black", black);
    return black;
  }

  // Each pixel of a panel has its rest.
  function shift(minute) {
    document.body.style.setProperty("--x", `${(minute % 9) - 4}px`);
    document.body.style.setProperty("--y", `${((minute * 5) % 9) - 4}px`);
  }

  // ---- what goes on for months

  let reloaded = Number(sessionStorage.getItem("reloaded") ?? 0);
  async function anew() { // never while the server is away: a browser's own page of errors would stay
    if (held || Date.now() - reloaded < 60_000) return;
    const answer = await fetch("healthz", { cache: "no-store", signal: AbortSignal.timeout(HELD_MS) }).catch(() => null);
    if (!answer) return;
    reloaded = Date.now();
    sessionStorage.setItem("reloaded", String(reloaded));
    location.reload();
  }

  setInterval(() => {
    const now = Date.now(), black = tell();
    if (black || held) {
      changed = now;
      return;
    }
    if (busy && now - busy > STUCK_MS) {
      turns++;
      busy = 0;
    }
    if (!busy && now >= due && listing?.size && (!paused || forward || !shown.length)) {
      forward = false;
      turn();
    }
    if (paused) changed = now;
    if (now - changed > STANDING_MS && listing?.size > 1 && !away) anew();
  }, TICK_MS);

  let resized;
  addEventListener("resize", () => { // all in the new size, once it has one
    clearTimeout(resized);
    resized = setTimeout(() => {
      if (!away) store.clear();
      if (!away) due = 0;
    }, 500);
  });
  addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") step();
    if (event.key === " ") paused = !paused;
  });
  // For whoever stands before it (touch.js): while the wall is held, nothing is shown anew behind what he does.
  window.frame = { step, name: options.name, hold: (wanted) => (held = wanted) };
  const stayAwake = () => navigator.wakeLock?.request("screen").catch(() => {});
  document.addEventListener("visibilitychange", stayAwake);
  stayAwake();
  tell();
  follow();
})();
