// Two pictures of one view, one left and one right of a seam.
const wipe = document.getElementById("wipe");

function wiped() {
  const chosen = Object.fromEntries([...wipe.querySelectorAll("select")].map(list => [list.name, list.value]));
  for (const image of wipe.querySelectorAll("img")) {
    const { view, of } = image.dataset;
    image.hidden = view !== chosen.view || (of !== chosen.left && of !== chosen.right);
    image.classList.toggle("right", of === chosen.right && of !== chosen.left);
  }
  wipe.style.setProperty("--seam", wipe.querySelector("input").value + "%");
}

if (wipe) {
  const pictures = wipe.querySelector(".pictures"), seam = wipe.querySelector("input");
  const follow = event => {
    const room = pictures.getBoundingClientRect();
    seam.value = 100 * (event.clientX - room.left) / room.width;
    wiped();
  };
  wipe.addEventListener("input", wiped);
  pictures.addEventListener("pointerdown", event => {
    pictures.setPointerCapture(event.pointerId);
    follow(event);
  });
  pictures.addEventListener("pointermove", event => { if (event.buttons) follow(event); });
  wiped();  // browsers remember what was chosen before a page was loaded again
}
