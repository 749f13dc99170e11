// The page works without this: it lets an address end in #evidence-<option>-<group>, so that a cell can be sent to someone.
function openAddressed() {
  const panel = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (panel?.popover && !panel.matches(":popover-open")) panel.showPopover();
}
for (const panel of document.querySelectorAll("[popover]")) {
  panel.addEventListener("toggle", (event) => {
    if (event.newState === "open") history.replaceState(null, "", `#${panel.id}`);
    else if (location.hash === `#${panel.id}`) history.replaceState(null, "", "#matrix");
  });
}
addEventListener("hashchange", openAddressed);
openAddressed();
// On paper all evidence is set in the page's flow; an open panel would lie on top of it.
addEventListener("beforeprint", () => document.querySelector(":popover-open")?.hidePopover());
