// Ctrl+Up and Ctrl+Down weigh the words that are selected, or that the cursor stands in, as in A1111's web UI: (hat:1.1).
(() => {
  const STEP = 0.1, LEAST = 0, MOST = 2, BOXES = "#prompt, #negative, #compare-prompt";
  const APART = /[\s,，、;；。.:：()（）[\]]/, NUMBER = String.raw`[:：]\s*(\d*\.?\d+)\s*[)）]`;
  const END = new RegExp(String.raw`^(?:\)|${NUMBER})`);
  const WEIGHED = new RegExp(String.raw`[(（]([^()（）[\]]*)${NUMBER}`, "g");

  // Words in brackets begin after the bracket.
  function wordsAt(text, at) {
    for (const match of text.matchAll(WEIGHED)) {
      const from = match.index + 1;
      if (from <= at && at < match.index + match[0].length) return [from, from + match[1].length];
    }
    let from = at, to = at;
    while (from > 0 && !APART.test(text[from - 1])) from--;
    while (to < text.length && !APART.test(text[to])) to++;
    return [from, to];
  }

  function selected(text, from, to) {
    const whole = [...text.slice(from, to).matchAll(WEIGHED)].find((match) => match[0].length === to - from);
    if (whole) return [from + 1, from + 1 + whole[1].length];
    while (from < to && /[\s,，、]/.test(text[from])) from++;
    while (from < to && /[\s,，、]/.test(text[to - 1])) to--;
    return [from, to];
  }

  // What is replaced, brackets included, and what it weighs: full-width brackets without a number are text.
  function around(text, from, to) {
    const end = END.exec(text.slice(to)), opens = end?.[1] ? "(（" : "(";
    const isOpen = from > 0 && opens.includes(text[from - 1]) && text[from - 2] !== "\\";
    if (!end || !isOpen) return { start: from, stop: to, weight: 1 };
    return { start: from - 1, stop: to + end[0].length, weight: Number(end[1] ?? 1.1) };
  }

  document.addEventListener("keydown", (event) => {
    const up = event.key === "ArrowUp", box = event.target;
    if (!(up || event.key === "ArrowDown") || !(event.ctrlKey || event.metaKey) || !box.closest?.(BOXES)) return;
    event.preventDefault();
    const { value, selectionStart, selectionEnd } = box;
    const choose = selectionStart === selectionEnd ? wordsAt : selected;
    const [from, to] = choose(value, selectionStart, selectionEnd);
    if (from === to) return;
    const words = value.slice(from, to), { start, stop, weight } = around(value, from, to);
    const next = Number(Math.min(MOST, Math.max(LEAST, weight + (up ? STEP : -STEP))).toFixed(2));
    box.setSelectionRange(start, stop);
    document.execCommand("insertText", false, next === 1 ? words : `(${words}:${next})`); // which Ctrl+Z takes back
    const begins = start + (next === 1 ? 0 : 1);
    box.setSelectionRange(begins, begins + words.length);
  });
})();
