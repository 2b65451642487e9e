// The page's half of webui/gradio_patches/handshake.py. Gradio hangs up its stream of events when it has read the server's farewell,
// but the wrong one where it has opened another since, for an upload's progress. So whoever reads on after the farewell
// is hung up here, and the server, which waits for that, knows that the farewell was heard.
//
// A stream is asked for past the browser's cache, as an EventSource does and Gradio's fetch does not. A cache that is
// writing down one answer of an address when the next one is asked for, and then sees the first one hung up, asks for
// the second a second time: the page hears one of the two, and what is said on the other is lost.
(() => {
  const FAREWELL = '"msg":"close_stream"';
  const send = window.fetch.bind(window);

  window.fetch = async (resource, options) => {
    if (!/\/gradio_api\/queue\/data\?/.test(String(resource?.url ?? resource))) return send(resource, options);
    const line = new AbortController();
    const theirs = options?.signal ?? resource.signal;
    if (theirs?.aborted) line.abort();
    theirs?.addEventListener("abort", () => line.abort());
    const answer = await send(resource, { ...options, signal: line.signal, cache: "no-store" });
    return answer.ok ? new Response(heard(answer.body, line), answer) : answer;
  };

  function heard(body, line) {
    const reader = body.getReader(), text = new TextDecoder();
    let farewell = false;
    return new ReadableStream({
      async pull(out) {
        if (farewell) {
          await new Promise((done) => setTimeout(done)); // what was read is acted on first
          line.abort();
        }
        const { done, value } = await reader.read().catch(ended(line));
        if (done) return out.close();
        farewell = text.decode(value, { stream: true }).includes(FAREWELL);
        out.enqueue(value);
      },
      cancel: () => line.abort(),
    }, { highWaterMark: 0 });
  }

  // A line that was hung up is over; one that broke is an error.
  const ended = (line) => (error) => {
    if (line.signal.aborted) return { done: true };
    document.dispatchEvent(new Event("studio:lost"));
    throw error;
  };
})();
