// A picture says how it was made (PNG, "parameters"). What is dropped beside the boxes for photos is read here, and its
// text alone goes to the house; the browser would leave the page for the picture.
(() => {
  const MOST = 64_000, SIGNATURE = "137,80,78,71,13,10,26,10";
  const latin = new TextDecoder("latin1"), utf8 = new TextDecoder();

  // PNG (3rd edition), 11.3.3: keyword, 0, then what the kind of chunk says.
  async function textOf(file) {
    const head = new Uint8Array(await file.slice(0, 8).arrayBuffer());
    if (String(head) !== SIGNATURE) return "";
    for (let at = 8; at + 12 <= file.size; ) {
      const view = new DataView(await file.slice(at, at + 8).arrayBuffer());
      const length = view.getUint32(0), kind = latin.decode(new Uint8Array(view.buffer, 4));
      if (["tEXt", "zTXt", "iTXt"].includes(kind) && length <= MOST) {
        const chunk = new Uint8Array(await file.slice(at + 8, at + 8 + length).arrayBuffer());
        const end = chunk.indexOf(0);
        if (latin.decode(chunk.subarray(0, end)) === "parameters") return await readers[kind](chunk.subarray(end + 1));
      }
      at += 12 + length;
    }
    return "";
  }

  const readers = {
    tEXt: (data) => latin.decode(data),
    zTXt: async (data) => latin.decode(await inflated(data.subarray(1))),
    iTXt: async (data) => {
      const translated = data.indexOf(0, 2), text = data.subarray(data.indexOf(0, translated + 1) + 1);
      return utf8.decode(data[0] ? await inflated(text) : text);
    },
  };

  // No more of it than a text may have: a stranger's few bytes may become many.
  async function inflated(data) {
    const reader = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate")).getReader(), parts = [];
    for (let size = 0; size <= MOST; size += parts.at(-1).length) {
      const { value, done } = await reader.read();
      if (done) return new Uint8Array(await new Blob(parts).arrayBuffer());
      parts.push(value);
    }
    await reader.cancel();
    return new Uint8Array();
  }

  const take = async (file) => window.takeRecipe?.(await textOf(file).catch(() => ""));
  const isBeside = (event) =>
    event.dataTransfer?.types.includes("Files") && !event.target.closest?.(".block")?.querySelector("input[type=file]");

  document.addEventListener("dragover", (event) => { if (isBeside(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    if (!isBeside(event)) return;
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
  document.addEventListener("change", (event) => {
    if (event.target.id !== "recipe-file" || !event.target.files.length) return;
    take(event.target.files[0]);
    event.target.value = ""; // the same once more is a choice too
  });
})();
