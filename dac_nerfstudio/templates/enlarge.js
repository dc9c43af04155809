// A picture as large as the window, or larger: the wheel zooms where it points, the window scrolls over the rest.
const large = document.getElementById("large"), room = large.querySelector(".room");
const LARGEST = 16;
let zoom = 1;

function zoomTo(next, x = room.clientWidth / 2, y = room.clientHeight / 2) {
  next = Math.max(1, Math.min(LARGEST, next));
  const left = (room.scrollLeft + x) * next / zoom - x, top = (room.scrollTop + y) * next / zoom - y;
  zoom = next;
  room.style.setProperty("--zoom", zoom);
  room.scrollTo(left, top);
}

document.querySelectorAll(".enlarge").forEach(button => button.addEventListener("click", () => {
  room.replaceChildren(button.firstElementChild.cloneNode(true));
  large.showModal();
  room.focus();
  zoom = 1;
  zoomTo(button.offsetWidth / room.clientWidth, 0);  // no smaller than it was, as on a phone, and from its left on
}));
large.querySelectorAll("[data-times]").forEach(button => button.addEventListener("click", () => {
  zoomTo(zoom * Number(button.dataset.times));
}));
document.getElementById("close").addEventListener("click", () => large.close());
large.addEventListener("keydown", event => {
  const times = { "+": 1.5, "=": 1.5, "-": 1 / 1.5 }[event.key];
  if (times && !event.ctrlKey && !event.metaKey) zoomTo(zoom * times);
});
room.addEventListener("wheel", event => {
  event.preventDefault();
  const { left, top } = room.getBoundingClientRect();
  zoomTo(zoom * Math.exp(-0.0015 * event.deltaY), event.clientX - left, event.clientY - top);
}, { passive: false });
room.addEventListener("pointermove", event => {
  // A finger scrolls by itself.
  if (event.buttons && event.pointerType === "mouse") room.scrollBy(-event.movementX, -event.movementY);
});
