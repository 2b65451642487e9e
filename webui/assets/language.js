// The page's language, before anything asks the browser for its own: the server has said it, by the cookie or else by the
// browser's wishes. A link from elsewhere was sent without the cookie (SameSite=Strict), which is looked at here.
(() => {
  const chosen = document.cookie.match(/(?:^|; )COOKIE=(TAGS)(?:;|$)/)?.[1];
  const root = document.documentElement;
  if (chosen) root.lang = chosen;
  Object.defineProperty(navigator, "language", { value: root.lang });
})();
