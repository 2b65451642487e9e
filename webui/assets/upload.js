// Photos that are larger than a restoration needs leave the browser smaller, and one request each, so that a limit on
// requests is a limit on photos. Gradio sends what was chosen, dropped or pasted through fetch: this stands in between.
(() => {
  const LONGEST_PX = 2560, QUALITY = 0.92, SWITCH = "awportrait-prescale";
  const TAKEN_MS = 150; // from the answer until Gradio has told its components
  const SHRINKABLE = ["image/jpeg", "image/png", "image/webp"]; // HEIC goes as it is: small already, and with its date
  const send = window.fetch.bind(window), held = new Set();
  let uploads = 0;

  window.fetch = async (resource, options) => {
    const url = String(resource?.url ?? resource);
    const files = options?.body instanceof FormData ? options.body.getAll("files") : [];
    if (!/\/gradio_api\/upload(\?|$)/.test(url) || !files.length) return send(resource, options);
    hold();
    try {
      const paths = [];
      for (const [k, file] of files.entries()) {
        count(spoken("script_uploading", { number: k + 1, total: files.length }));
        const body = new FormData(), sent = await shrunk(file);
        body.append("files", sent, sent.name);
        const answer = await send(url, { ...options, body });
        if (!answer.ok) return await told(answer);
        paths.push(...(await answer.json()));
      }
      return new Response(JSON.stringify(paths), { headers: { "Content-Type": "application/json" } });
    } finally {
      count("");
      setTimeout(release, TAKEN_MS);
    }
  };

  // What is no picture by its type, Gradio refuses, in English, and keeps the photo of before: HEIC, for which most
  // systems have no type. What a file is, the server finds out and says.
  const TYPES = { heic: "image/heic", heif: "image/heif", hif: "image/heif", tif: "image/tiff", tiff: "image/tiff", avif: "image/avif", bmp: "image/bmp" };
  const isPicture = (file) => file.type.startsWith("image/");

  function typed(files) {
    const box = new DataTransfer();
    for (const file of files) {
      const type = isPicture(file) ? file.type : TYPES[file.name.split(".").pop().toLowerCase()] ?? "image/unknown";
      box.items.add(isPicture(file) ? file : new File([file], file.name, { type, lastModified: file.lastModified }));
    }
    return box;
  }

  const FOR_PICTURES = "input[type=file][accept^='image/']";
  // Exactly what is read (engines/messages/photos.py); Gradio would offer all that browsers take for pictures.
  const ACCEPT = "image/jpeg,image/png,image/webp,image/heic,image/tiff,image/avif,image/bmp,image/gif,.jpg,.jpeg,.jpe,.jfif,.png,.apng,.webp,.heic,.heif,.hif,.tif,.tiff,.avif,.bmp,.gif";
  document.addEventListener("click", (event) => {
    if (event.target.matches?.(FOR_PICTURES)) event.target.accept = ACCEPT;
  }, true);
  document.addEventListener("change", (event) => {
    const input = event.target;
    if (input.matches(FOR_PICTURES) && ![...input.files].every(isPicture)) input.files = typed(input.files).files;
  }, true);
  document.addEventListener("drop", (event) => {
    const files = [...(event.dataTransfer?.files ?? [])], box = event.target.closest?.(".block");
    if (!box?.querySelector(FOR_PICTURES) || files.every(isPicture)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    event.target.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: typed(files) }));
  }, true);

  // What starts a job waits until its photos have arrived: pressed too early, it would say that none was chosen.
  function hold() {
    uploads++;
    for (const button of document.querySelectorAll("button.primary, .main-step button")) if (button.checkVisibility()) held.add(button);
    for (const button of held) button.inert = true;
  }

  function release() {
    if (--uploads) return;
    for (const button of held) button.inert = false;
    held.clear();
  }

  // Shown by the style sheet.
  function count(text) {
    document.getElementById("batch-files")?.setAttribute("data-count", text);
  }

  // The sentence alone, where the server answers with one.
  async function told(answer) {
    const text = await answer.text();
    try {
      return new Response(JSON.parse(text).message ?? text, { status: answer.status });
    } catch {
      return new Response(text, { status: answer.status });
    }
  }

  async function shrunk(file) {
    if (localStorage.getItem(SWITCH) === "off" || !SHRINKABLE.includes(file.type)) return file;
    const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => null);
    const scale = bitmap ? LONGEST_PX / Math.max(bitmap.width, bitmap.height) : 1;
    if (scale >= 1) return file;
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    const png = file.type !== "image/jpeg" && transparent(context, canvas);
    const type = png ? "image/png" : "image/jpeg";
    const drawn = await new Promise((done) => canvas.toBlob(done, type, QUALITY));
    if (!drawn || drawn.size >= file.size) return file;
    const parts = png ? [drawn] : await dated(drawn, file);
    return new File(parts, file.name.replace(/\.\w+$/, "") + (png ? ".png" : ".jpg"), { type });
  }

  function transparent(context, canvas) {
    const levels = context.getImageData(0, 0, canvas.width, canvas.height).data;
    for (let k = 3; k < levels.length; k += 4) if (levels[k] < 255) return true;
    return false;
  }

  // A canvas forgets when the photo was taken, and the page offers to keep that: one EXIF segment with nothing else.
  async function dated(jpeg, file) {
    const taken = file.type === "image/jpeg" && takenAt(new DataView(await file.slice(0, 1 << 17).arrayBuffer()));
    return taken ? [jpeg.slice(0, 2), exif(taken), jpeg.slice(2)] : [jpeg];
  }

  // "2004:05:06 07:08:09" or nothing. Exif 2.32: IFD0's tag 0x8769 leads to the camera's IFD, whose 0x9003 is the time.
  function takenAt(view) {
    try {
      let at = 2;
      while (view.getUint16(at) !== 0xffe1 || view.getUint32(at + 4) !== 0x45786966) {
        if (view.getUint8(at) !== 0xff || view.getUint16(at) === 0xffda) return "";
        at += 2 + view.getUint16(at + 2);
      }
      const start = at + 10, little = view.getUint16(start) === 0x4949;
      const entry = (ifd, tag) => {
        const count = view.getUint16(start + ifd, little);
        for (let k = 0; k < count; k++) {
          const here = start + ifd + 2 + 12 * k;
          if (view.getUint16(here, little) === tag) return view.getUint32(here + 8, little);
        }
        return 0;
      };
      const first = view.getUint32(start + 4, little), camera = entry(first, 0x8769);
      const value = (camera && entry(camera, 0x9003)) || entry(first, 0x0132);
      const text = value ? String.fromCharCode(...new Uint8Array(view.buffer, start + value, 19)) : "";
      return /^\d{4}:\d\d:\d\d \d\d:\d\d:\d\d$/.test(text) ? text : "";
    } catch (error) {
      if (error instanceof RangeError) return ""; // it points beyond its end
      throw error;
    }
  }

  function exif(taken) {
    const head = [0xff, 0xe1, 0, 72, 0x45, 0x78, 0x69, 0x66, 0, 0, 0x4d, 0x4d, 0, 0x2a, 0, 0, 0, 8];
    const first = [0, 1, 0x87, 0x69, 0, 4, 0, 0, 0, 1, 0, 0, 0, 26, 0, 0, 0, 0];
    const camera = [0, 1, 0x90, 0x03, 0, 2, 0, 0, 0, 20, 0, 0, 0, 44, 0, 0, 0, 0];
    return new Uint8Array([...head, ...first, ...camera, ...[...taken].map((letter) => letter.charCodeAt(0)), 0]);
  }
})();
