"use strict";
const { scene, matrix } = JSON.parse(document.getElementById("data").textContent);
const INK = "{{ INK }}", FAINT = "{{ FAINT }}";

// Photos of views, by their indices, beside a drawing.
function show(place, views) {
  document.getElementById(place)?.replaceChildren(...views.flatMap(view => {
    const photo = document.getElementById("view-" + view);
    if (!photo) return [];
    const copy = photo.cloneNode(true);
    copy.removeAttribute("id");
    return [copy];
  }));
}

// A canvas that fills its element at the screen's resolution and is drawn anew with the next picture of the screen.
function drawing(id, draw) {
  const place = document.getElementById(id), canvas = place.querySelector("canvas");
  const pen = canvas.getContext("2d"), words = place.querySelector(".words");
  let waiting = false;
  const again = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      const { width, height } = canvas.getBoundingClientRect(), scale = window.devicePixelRatio || 1;
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
      pen.setTransform(scale, 0, 0, scale, 0, 0);
      draw(pen, width, height);
    });
  };
  const say = (lines, x, y) => {
    words.textContent = lines.join("\n");
    const room = canvas.getBoundingClientRect(), size = words.getBoundingClientRect();
    words.style.left = Math.max(0, Math.min(x + 14, room.width - size.width)) + "px";
    words.style.top = Math.max(0, Math.min(y + 14, room.height - size.height)) + "px";
  };
  const at = event => {
    const room = canvas.getBoundingClientRect();
    return [event.clientX - room.left, event.clientY - room.top];
  };
  new ResizeObserver(again).observe(canvas);
  return { canvas, again, say, at };
}

// Cameras in space
const MIDDLE = 0.5 * (scene.floor + scene.top), NEAR = 12, NEAR_FINGER = 24, FAR = 4;
let turn = -1.02, tilt = 0.5, zoom = 1, pointed = null, marked = null;
const hidden = new Set();
let placed = [];

function projection(width, height) {
  const [sine, cosine, up, along] = [Math.sin(turn), Math.cos(turn), Math.cos(tilt), Math.sin(tilt)];
  const reach = Math.hypot(scene.radius, 0.5 * (scene.top - scene.floor)) || 1;
  const size = 0.4 * Math.min(width, 1.25 * height) / reach * zoom;  // all is seen, the nearest side included
  return ([x, y, z]) => {
    const right = -sine * x + cosine * y, ahead = cosine * x + sine * y, high = z - MIDDLE;
    const depth = up * ahead + along * high;  // towards the reader
    const closer = size * FAR * reach / Math.max(FAR * reach - depth, 0.1 * reach);
    return [width / 2 + closer * right, height / 2 - closer * (up * high - along * ahead), depth];
  };
}

function line(pen, points) {
  pen.beginPath();
  points.forEach(([x, y], index) => index ? pen.lineTo(x, y) : pen.moveTo(x, y));
  pen.stroke();
}

function dot(pen, [x, y], radius) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
}

function drawScene(pen, width, height) {
  const project = projection(width, height);
  pen.clearRect(0, 0, width, height);
  pen.strokeStyle = FAINT;
  pen.lineWidth = 1.2;
  for (const share of [0.5, 1]) {
    const round = Array.from({ length: 73 }, (_, step) => step * Math.PI / 36);
    const radius = share * scene.radius;
    line(pen, round.map(angle => project([radius * Math.cos(angle), radius * Math.sin(angle), scene.floor])));
  }
  line(pen, [project([0, 0, scene.floor]), project([0, 0, scene.top])]);
  const visible = [
    ...scene.views.filter(view => !hidden.has(String(view.group))),
    ...(hidden.has("test") ? [] : scene.test),
  ];
  placed = visible.map(view => ({ view, points: view.points.map(project) }));
  placed.sort((a, b) => a.points[0][2] - b.points[0][2]);
  for (const { view, points } of placed) {
    const [tip, a, b, c, d] = points;
    pen.strokeStyle = pen.fillStyle = scene.colours[view.group - 1];
    if (points.length === 1) {
      pen.globalAlpha = 0.7;
      dot(pen, tip, 3.5);
      pen.stroke();
    } else {
      pen.globalAlpha = 0.85;
      line(pen, [tip, a, b, tip, c, d, tip]);
      line(pen, [d, a]);
      line(pen, [b, c]);
      dot(pen, tip, 2.5);
      pen.fill();
    }
    pen.globalAlpha = 1;
    if (view === pointed || (view.index !== undefined && view.index === marked)) {
      pen.strokeStyle = INK;
      pen.lineWidth = 2;
      dot(pen, tip, 9);
      pen.stroke();
      pen.lineWidth = 1.2;
    }
  }
}

const space = drawing("scene", drawScene);

function nearest(x, y, reach = NEAR) {
  let best = null, least = reach;
  for (const { view, points: [tip] } of placed) {
    const distance = Math.hypot(tip[0] - x, tip[1] - y);
    if (distance <= least) [best, least] = [view, distance];
  }
  return best;
}

function pointAt(view, x, y) {
  pointed = view;
  space.say(view ? view.words : [], x, y);
  if (view && view.index !== undefined) show("scene-photos", [view.index]);
  space.again();
}

function pick(index) {
  marked = index;
  show("scene-photos", [index]);
  space.again();
}

function turnBy(right, up) {
  turn -= right;
  tilt = Math.max(-1.55, Math.min(1.55, tilt + up));
  pointAt(null, 0, 0);
}

function zoomBy(times) {
  zoom = Math.max(0.3, Math.min(20, zoom * times));
  space.again();
}

const down = new Map();  // where the mouse's button or fingers are, by their pointers
let dragged = false;
space.canvas.addEventListener("pointerdown", event => {
  if (!down.size) dragged = false;
  down.set(event.pointerId, space.at(event));
  space.canvas.setPointerCapture(event.pointerId);
});
space.canvas.addEventListener("pointermove", event => {
  const [x, y] = space.at(event), from = down.get(event.pointerId);
  if (!from) return pointAt(nearest(x, y), x, y);
  const [other] = [...down].filter(([pointer]) => pointer !== event.pointerId).map(([, place]) => place);
  if (!other && !dragged && Math.hypot(x - from[0], y - from[1]) < 3) return;
  dragged = true;
  down.set(event.pointerId, [x, y]);
  if (!other) return turnBy(0.008 * (x - from[0]), 0.008 * (y - from[1]));
  const apart = ([left, top]) => Math.max(1, Math.hypot(left - other[0], top - other[1]));
  zoomBy(apart([x, y]) / apart(from));
});
space.canvas.addEventListener("pointerup", event => {
  down.delete(event.pointerId);
  const view = dragged ? null : nearest(...space.at(event), event.pointerType === "touch" ? NEAR_FINGER : NEAR);
  if (view && view.index !== undefined) pick(view.index);
});
space.canvas.addEventListener("pointercancel", event => down.delete(event.pointerId));
space.canvas.addEventListener("pointerleave", () => pointAt(null, 0, 0));
space.canvas.addEventListener("wheel", event => {
  event.preventDefault();
  zoomBy(Math.exp(-0.0015 * event.deltaY));
}, { passive: false });
const KEYS = {
  ArrowLeft: () => turnBy(-0.1, 0), ArrowRight: () => turnBy(0.1, 0),
  ArrowUp: () => turnBy(0, -0.1), ArrowDown: () => turnBy(0, 0.1),
  "+": () => zoomBy(1.2), "=": () => zoomBy(1.2), "-": () => zoomBy(1 / 1.2),
};
space.canvas.addEventListener("keydown", event => {
  if (!(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();  // the page stays where it is
  KEYS[event.key]();
});
document.querySelectorAll(".groups button").forEach(button => button.addEventListener("click", () => {
  const group = button.dataset.group, shown = hidden.delete(group);
  if (!shown) hidden.add(group);
  button.setAttribute("aria-pressed", String(shown));
  space.again();
}));
document.querySelectorAll(".sheet figure").forEach(photo => photo.addEventListener("click", () => {
  pick(Number(photo.id.slice("view-".length)));
  space.canvas.scrollIntoView({ behavior: "smooth", block: "center" });
}));

// How alike views are
if (matrix) {
  const count = matrix.order.length, bytes = Uint8Array.from(atob(matrix.values), letter => letter.charCodeAt(0));
  const shades = matrix.shades.map(text => [1, 3, 5].map(start => parseInt(text.slice(start, start + 2), 16)));
  const image = new ImageData(count, count);
  bytes.forEach((byte, place) => {
    const step = Math.min(1, byte / 255 / matrix.darkest) * (shades.length - 1);
    const lower = Math.min(Math.floor(step), shades.length - 2), share = step - lower;
    const shade = shades[lower].map((value, channel) => value + share * (shades[lower + 1][channel] - value));
    image.data.set([...shade, 255], 4 * place);
  });
  const picture = new OffscreenCanvas(count, count);
  picture.getContext("2d").putImageData(image, 0, 0);
  let left = 0, top = 0, side = 1;

  const alike = drawing("matrix", (pen, width, height) => {
    side = 0.94 * Math.min(width, height);
    left = (width - side) / 2 + 0.03 * side;
    top = 0.01 * side;
    const bar = 0.02 * side, cell = side / count;
    pen.clearRect(0, 0, width, height);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(picture, left, top, side, side);
    for (let first = 0, last; first < count; first = last) {
      for (last = first; last < count && matrix.groups[last] === matrix.groups[first];) last++;
      pen.fillStyle = scene.colours[matrix.groups[first] - 1];
      pen.fillRect(left - 1.5 * bar, top + first * cell, bar, (last - first) * cell);
      pen.fillRect(left + first * cell, top + side + 0.5 * bar, (last - first) * cell, bar);
      if (last === count) break;
      for (const [ink, thickness] of [["white", 3], [INK, 1]]) {  // seen on light and on dark
        [pen.strokeStyle, pen.lineWidth] = [ink, thickness];
        line(pen, [[left + last * cell, top], [left + last * cell, top + side]]);
        line(pen, [[left, top + last * cell], [left + side, top + last * cell]]);
      }
    }
  });
  alike.canvas.addEventListener("pointermove", event => {
    const [x, y] = alike.at(event);
    const column = Math.floor((x - left) / side * count), row = Math.floor((y - top) / side * count);
    const inside = Math.min(row, column) >= 0 && Math.max(row, column) < count;
    if (!inside) return alike.say([], x, y);
    const value = (bytes[row * count + column] / 255).toFixed(2);
    alike.say([matrix.names[row], matrix.names[column], `similarity ${value}`], x, y);
    show("matrix-photos", [...new Set([matrix.order[row], matrix.order[column]])]);
  });
  alike.canvas.addEventListener("pointerleave", () => alike.say([], 0, 0));
}
