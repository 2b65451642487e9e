// A connection that is lost, by a server that starts anew or a network that is gone. It is said at once, and when the
// server answers again, a page on which something went on is loaded anew: it finds its job, and its settings, again.
(() => {
  const LOOK_MS = 2000;
  const send = window.fetch.bind(window);
  let notice = null;

  window.fetch = async (resource, options) => {
    try {
      return await send(resource, options);
    } catch (error) {
      if (error.name !== "AbortError" && /\/gradio_api\//.test(String(resource?.url ?? resource))) lost();
      throw error;
    }
  };
  document.addEventListener("studio:lost", lost); // by a stream that broke (handshake.js)

  // A browser that leaves a page breaks off what it has asked for.
  let leaving = false;
  addEventListener("pagehide", () => { leaving = true; });
  addEventListener("pageshow", () => { leaving = false; });

  function lost() {
    if (notice || leaving) return;
    notice = document.createElement("div");
    notice.className = "lost";
    notice.setAttribute("role", "alert");
    notice.textContent = spoken("script_lost");
    document.body.append(notice);
    document.documentElement.dataset.lost = "";
    const timer = setInterval(async () => {
      const answer = await send("healthz", { cache: "no-store" }).catch(() => null);
      if (!answer?.ok) return;
      clearInterval(timer);
      if (document.querySelector(".stage.is-running, .photos .is-running, [data-step=cancel]")) return location.reload();
      notice.remove();
      notice = null;
      delete document.documentElement.dataset.lost;
    }, LOOK_MS);
  }
})();
