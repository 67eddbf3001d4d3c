/** Keeps the page for when there is no connection, and offers a newer version once all of it is there. */
export function offline(update: HTMLButtonElement): void {
  if (!("serviceWorker" in navigator)) return; // the page came unprotected: it works while there is a connection
  const container = navigator.serviceWorker;
  let asked = false;
  update.addEventListener("click", () => {
    asked = true;
    void container.getRegistration().then((found) => found?.waiting?.postMessage("take over"));
  });
  container.addEventListener("controllerchange", () => {
    if (asked) location.reload();
  });
  void container.ready.then(() => (document.body.dataset.offline = "true"));
  void container
    .register(new URL("sw.js", import.meta.url))
    .then((registration) => {
      const offer = () => (update.hidden = registration.waiting === null || container.controller === null);
      offer();
      registration.addEventListener("updatefound", () => registration.installing?.addEventListener("statechange", offer));
    })
    .catch(() => undefined); // a browser that keeps nothing, such as in a private window
}
