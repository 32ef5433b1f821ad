// Live updates, and nothing else: without this file every page works by reload.
"use strict";
(() => {
  const pauseButton = document.querySelector("[data-pause]");
  let paused = false;

  document.querySelectorAll("[data-script]").forEach((one) => { one.hidden = false; });
  if (pauseButton) {
    pauseButton.hidden = false;
    pauseButton.addEventListener("click", () => {
      paused = !paused;
      pauseButton.setAttribute("aria-pressed", String(paused));
    });
  }

  // Who reads or is about to press something must not lose the place.
  const isInUse = (part) =>
    part.contains(document.activeElement) ||
    (!document.getSelection().isCollapsed && part.contains(document.getSelection().anchorNode));

  const follow = (part) => {
    const pause = Number(part.dataset.every) * 1000;
    let last = "";

    const look = async () => {
      if (!paused && !document.hidden && !isInUse(part)) {
        let answer;
        try {
          answer = await fetch(part.dataset.live, { headers: { "X-Relay-Live": "1" }, credentials: "same-origin" });
        } catch {
          // relay restarts, or the network is away: try again, more slowly
          setTimeout(look, 5000);
          return;
        }
        if (answer.status === 401) { location.reload(); return; }
        if (answer.ok) {
          const text = await answer.text();
          if (text !== last) { last = text; part.innerHTML = text; }
          if (answer.headers.get("X-Relay-Live") === "done") return;
        }
      }
      setTimeout(look, pause);
    };
    setTimeout(look, pause);
  };

  document.querySelectorAll("[data-live]").forEach(follow);
})();
