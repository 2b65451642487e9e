// Of the house only this is kept in the browser: a page that says that it cannot be reached. All else comes from it.
// Its cache bears the house's path, as others may lie on the same host, with caches of their own.
const HOUSE = new URL(self.registration.scope).pathname, CACHE = `away-3 ${HOUSE}`, AWAY = "away";
const isOld = (name) => name !== CACHE && /^away-\d+( |$)/.test(name) && (name.split(" ")[1] ?? "/") === HOUSE;

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.add(new Request(AWAY, { cache: "reload" }))));
  self.skipWaiting();
});

self.addEventListener("activate", (event) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys()) if (isOld(name)) await caches.delete(name);
    await self.registration.navigationPreload?.enable();
    await self.clients.claim();
  })());
});

self.addEventListener("fetch", (event) => {
  if (event.request.mode !== "navigate" || event.request.method !== "GET" || !event.preloadResponse) return;
  event.respondWith(answered(event).catch(() => caches.match(AWAY)));
});

// As the browser itself asks: what a worker asks for has lost where it came from, and the guard wants to know.
async function answered(event) {
  return (await event.preloadResponse) ?? fetch(event.request);
}
