// Who is at this page, and a screen that several people use.
//
// Before the page asks for anything, it asks who it is for: the answer brings the cookie, and without that what is
// begun would be nobody's. Gradio puts this script in while it starts, so no script of the page's own could be first.
// Who is no longer let in is led to the door.
(() => {
  const send = window.fetch.bind(window);
  const me = send("me", { cache: "no-store" })
    .then((answer) => answer.json())
    .then(({ role }) => { if (role) document.documentElement.dataset.role = role; })
    .catch(() => {}); // without the server nothing else works either, and Gradio says so

  window.fetch = async (resource, options) => {
    const join = /\/gradio_api\/queue\/join/.test(String(resource?.url ?? resource));
    if (join) await me;
    const answer = await send(resource, options);
    if (join && answer.status === 401) location.reload();
    return answer;
  };
})();

// `/?idle=5`: after five minutes without a touch everything is forgotten, and whoever comes next is somebody new.
(() => {
  const LAST_S = 10; // of them somebody may still say no
  const idle_s = 60 * Number(new URLSearchParams(location.search).get("idle"));
  if (!(idle_s > 0)) return;
  let left_s = Infinity; // until somebody has done something there is nothing to forget
  const notice = document.createElement("div");
  notice.className = "leaving";
  notice.setAttribute("role", "alert");

  const touched = () => { left_s = idle_s; notice.remove(); };
  for (const kind of ["pointerdown", "keydown", "scroll", "input"]) document.addEventListener(kind, touched, true);

  async function leave() {
    await fetch("leave", { method: "POST" });
    localStorage.clear();
    sessionStorage.clear();
    location.reload();
  }

  const timer = setInterval(() => {
    if (document.querySelector(".stage.is-running")) return; // who waits for a picture touches nothing
    left_s -= 1;
    if (left_s <= 0) {
      clearInterval(timer);
      leave().catch(() => location.reload());
    } else if (left_s <= LAST_S) {
      notice.textContent = spoken("script_leaving", { seconds: left_s });
      document.body.append(notice);
    }
  }, 1000);
})();
