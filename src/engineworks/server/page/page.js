// Photos and videos in, boxes out. Talks to this server alone; keeps nothing once the page is closed.
"use strict";
const at = (id) => document.getElementById(id);
const LEAST = 0.05;   // asked for once; the slider then chooses among what came
const MOST_PHOTOS = 50;
const photos = [];
let current = -1;
let engines = {};

function colorOf(number) {
  return `hsl(${(number * 137.5) % 360} 85% ${number % 2 ? 45 : 55}%)`;
}

function say(text, wrong = false) {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", wrong);
}

async function loadEngines() {
  const answer = await (await fetch("/health/ready")).json();
  engines = Object.fromEntries(Object.entries(answer.models).filter(([, about]) => about.route));
  const chosen = at("engine").value;
  at("engine").replaceChildren(...Object.values(engines).map((about) => {
    const option = new Option(`${about.name} (${about.variant})`, about.name);
    option.selected = about.name === chosen;
    return option;
  }));
  if (!Object.keys(engines).length) {
    say(answer.ready ? "No engine here answers images." : "Engines are being loaded.", true);
    if (!answer.ready) setTimeout(loadEngines, 1000);
  }
}

async function add(files) {
  const images = [...files].filter((file) =>
    file.type.startsWith("image/") || !file.type || isVideo(file));
  if (!images.length) { say("That holds no image and no video.", true); return; }
  for (const file of images) {
    const photo = { file, url: URL.createObjectURL(file), answer: null, bitmap: null, frames: [] };
    if (photos.length === MOST_PHOTOS) forget(photos.shift());
    photos.push(photo);
    if (isVideo(file)) {
      photo.video = player(photo, () => photo === photos[current] && draw());
      show(photos.indexOf(photo));
    }
    await ask(photo);
    show(photos.indexOf(photo));
  }
}

function forget(photo) {
  if (photo.abort) photo.abort.abort();
  URL.revokeObjectURL(photo.url);
}

async function ask(photo) {
  const about = engines[at("engine").value];
  if (!about) { say("There is no engine to ask.", true); return; }
  say(`${photo.file.name || "The photo"} is being looked at ...`);
  if (photo.video) return askForFrames(photo, about);
  const query = new URLSearchParams({ model: about.name });
  if (["detect", "keypoints"].includes(about.route)) query.set("confidence", LEAST);
  const begun = performance.now();
  try {
    const answer = await fetch(`/${about.route}?${query}`, { method: "POST", body: photo.file,
      headers: { "Content-Type": photo.file.type || "application/octet-stream" } });
    const found = await answer.json();
    photo.waited_ms = performance.now() - begun;
    if (!answer.ok) throw new Error(`${found.error}: ${found.hint}`);
    photo.answer = found;
    photo.wrong = "";
    photo.bitmap = await createImageBitmap(photo.file, { imageOrientation: "from-image" });
    photo.mask = found.mask_png ? await colored(found.mask_png, found.areas) : null;
    say("");
  } catch (error) {
    photo.wrong = error.message || String(error);
    say(`${photo.file.name || "The photo"}: ${photo.wrong}`, true);
  }
}

async function askForFrames(photo, about) {
  if (photo.abort) photo.abort.abort();
  photo.wrong = "";
  try {
    await askVideo(photo, about, LEAST, () => photo === photos[current] && draw());
    say("");
  } catch (error) {
    if (error.name === "AbortError") { say("Stopped; what was looked at stays."); }
    else { photo.wrong = error.message; say(`${photo.file.name}: ${photo.wrong}`, true); }
  }
  photo.done = true;
  draw();
}

function visible(answer) {
  const least = Number(at("confidence").value);
  return (answer.areas || answer.detections || answer.classes || [])
    .filter((entry) => entry.confidence === undefined || entry.confidence >= least);
}

// A map of class numbers (a grey PNG) in colours; what is background or unseen stays clear.
async function colored(png, areas) {
  const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
  const map = await createImageBitmap(new Blob([bytes], { type: "image/png" }),
    { colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(map.width, map.height), pen = canvas.getContext("2d");
  const colors = new Map();
  for (const area of areas.filter((entry) => !/^_*background_*$|^unlabeled$/i.test(entry.label))) {
    pen.fillStyle = colorOf(area.class_id);
    pen.fillRect(0, 0, 1, 1);
    colors.set(area.class_id, pen.getImageData(0, 0, 1, 1).data);
  }
  pen.drawImage(map, 0, 0);
  const image = pen.getImageData(0, 0, map.width, map.height);
  for (let at = 0; at < image.data.length; at += 4) {
    const color = colors.get(image.data[at]);
    image.data.set(color ? [color[0], color[1], color[2], 140] : [0, 0, 0, 0], at);
  }
  pen.putImageData(image, 0, 0);
  return canvas;
}

function show(index) {
  if (index < 0 || index >= photos.length) return;
  current = index;
  at("shown").hidden = false;
  at("strip").replaceChildren(...photos.map((photo, number) => {
    const button = document.createElement("button");
    const image = photo.video ? document.createElement("span") : new Image();
    if (photo.video) image.textContent = "\u25b6 video";
    else image.src = photo.url;
    image.alt = photo.file.name || `photo ${number + 1}`;
    button.setAttribute("aria-label", image.alt);
    button.setAttribute("aria-pressed", number === current);
    button.append(image);
    button.onclick = () => show(number);
    return button;
  }));
  draw();
}

function draw() {
  const photo = photos[current];
  if (!photo) return;
  at("player").hidden = !photo.video;
  at("progress").hidden = !photo.video || photo.done;
  if (photo.video) { drawFrame(photo); return; }
  const canvas = at("canvas"), pen = canvas.getContext("2d");
  if (!photo.answer || !photo.bitmap) {
    canvas.width = canvas.height = 1;
    at("rows").replaceChildren();
    at("facts").textContent = photo.wrong || "";
    return;
  }
  const { answer, bitmap } = photo;
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  pen.drawImage(bitmap, 0, 0);
  if (photo.mask) pen.drawImage(photo.mask, 0, 0, canvas.width, canvas.height);
  drawAnswer(answer, `${photo.waited_ms.toFixed(0)} ms in all`);
}

// The frame that the player stands at, and the newest answer up to it.
function drawFrame(photo) {
  const canvas = at("canvas"), pen = canvas.getContext("2d"), { video } = photo;
  const answer = answerAt(photo, photo.unplayable ? Number(at("seek").value) : video.currentTime);
  const length = photo.about?.duration_s || video.duration || 0;
  const last = photo.frames?.at(-1)?.time_s || 0;
  at("progress").max = length || 1;
  at("progress").value = last;
  at("seek").max = length || last || 1;
  if (!photo.unplayable) at("seek").value = video.currentTime;
  at("moment").textContent = `${Number(at("seek").value).toFixed(1)} of ${length.toFixed(1)} s`;
  at("play").textContent = video.paused ? "Play" : "Pause";
  at("play").disabled = Boolean(photo.unplayable);
  at("stop").hidden = Boolean(photo.done);
  canvas.width = video.videoWidth || answer?.width || 1;
  canvas.height = video.videoHeight || answer?.height || 1;
  if (!photo.unplayable) pen.drawImage(video, 0, 0, canvas.width, canvas.height);
  const now_s = photo.unplayable ? Number(at("seek").value) : video.currentTime;
  if (answer && now_s - answer.time_s < 2 / photo.about.per_s + 0.1) {
    // Boxes are in the pixels of the stored frame, which a player may have stretched.
    const x = canvas.width / answer.width, y = canvas.height / answer.height;
    drawAnswer(stretched(answer, x, y), `${answer.time_s.toFixed(2)} s, ${photo.frames.length} frames`);
  } else {
    at("rows").replaceChildren();
    at("facts").textContent = photo.wrong || (photo.done ? "" : "not looked at yet");
  }
  if (!video.paused) requestAnimationFrame(() => photo === photos[current] && drawFrame(photo));
}

function stretched(answer, x, y) {
  const moved = (entry) => ({ ...entry,
    xyxy: entry.xyxy && entry.xyxy.map((side, number) => side * (number % 2 ? y : x)),
    keypoints: entry.keypoints && entry.keypoints.map((p) => ({ ...p, x: p.x * x, y: p.y * y })) });
  return { ...answer, detections: answer.detections && answer.detections.map(moved) };
}

function drawAnswer(answer, took) {
  const canvas = at("canvas"), pen = canvas.getContext("2d");
  const found = visible(answer);
  const shown = canvas.getBoundingClientRect().width || canvas.width;
  const unit = canvas.width / shown;    // pixels of the photo for one on the screen
  pen.lineWidth = 2.5 * unit;
  pen.font = `600 ${(shown < 500 ? 10 : 12) * unit}px system-ui, sans-serif`;
  pen.textBaseline = "bottom";
  const boxed = found.filter((entry) => entry.xyxy).reverse();
  for (const entry of boxed) outline(pen, entry);
  for (const entry of boxed) points(pen, entry, unit);
  for (const entry of boxed) tag(pen, entry, unit);   // above every line
  const names = found.map((entry) => entry.label);
  const counted = [...new Set(names)].map((name) => `${names.filter((n) => n === name).length} ${name}`);
  canvas.setAttribute("aria-label", counted.join(", ") || "nothing found");
  const stages = Object.entries(answer.stage_ms).map(([name, ms]) => `${name} ${ms.toFixed(1)}`);
  at("facts").textContent = `${answer.width} x ${answer.height} · ${found.length} found · ` +
    `${took} (${stages.join(", ")} ms) · ` +
    `${answer.model.name} ${answer.model.variant} ${answer.model.version}`;
  at("rows").replaceChildren(...found.map(row));
}

function outline(pen, entry) {
  const [left, top, right, bottom] = entry.xyxy;
  pen.strokeStyle = colorOf(entry.class_id);
  pen.strokeRect(left, top, right - left, bottom - top);
}

function points(pen, entry, unit) {
  pen.fillStyle = colorOf(entry.class_id + 3);
  for (const point of entry.keypoints || []) {
    if (point.confidence < 0.3) continue;
    pen.beginPath();
    pen.arc(point.x, point.y, 3.5 * unit, 0, 2 * Math.PI);
    pen.fill();
  }
}

function tag(pen, entry, unit) {
  const [left, top] = entry.xyxy;
  const text = `${entry.label} ${entry.confidence.toFixed(2)}`;
  const width = pen.measureText(text).width + 6 * unit, height = 16 * unit;
  const y = Math.max(top, height);
  const x = Math.max(0, Math.min(left, pen.canvas.width - width));
  pen.fillStyle = colorOf(entry.class_id);
  pen.fillRect(x, y - height, width, height);
  pen.fillStyle = "#000";
  pen.fillText(text, x + 3 * unit, y - 2 * unit);
}

function row(entry) {
  const line = document.createElement("tr");
  const mark = document.createElement("i");
  mark.style.background = colorOf(entry.class_id);
  const score = entry.confidence ?? entry.share;
  const place = entry.xyxy ? entry.xyxy.map((side) => Math.round(side)).join(" ")
    : entry.pixels ? `${entry.pixels} pixels` : "";
  const cells = [entry.label, score.toFixed(3), place].map((text) => {
    const cell = document.createElement("td");
    cell.textContent = text;
    return cell;
  });
  cells[0].prepend(mark);
  line.append(...cells);
  return line;
}

function setConfidence(value) {
  at("confidence").value = value;
  at("least").textContent = Number(at("confidence").value).toFixed(2);
  draw();
}

at("confidence").oninput = (event) => setConfidence(event.target.value);
function toggle() {
  const video = photos[current]?.video;
  if (video && !photos[current].unplayable) { if (video.paused) video.play(); else video.pause(); }
}

at("play").onclick = toggle;
at("stop").onclick = () => photos[current]?.abort?.abort();
at("seek").oninput = (event) => {
  const photo = photos[current];
  if (!photo?.video) return;
  if (photo.unplayable) draw(); else photo.video.currentTime = Number(event.target.value);
};
at("files").onchange = (event) => { add(event.target.files); event.target.value = ""; };
at("engine").onchange = async () => {
  for (const photo of photos) await ask(photo);
  draw();
};
for (const name of ["dragover", "dragenter"]) document.addEventListener(name, (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
for (const name of ["dragleave", "drop"]) document.addEventListener(name, (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => add(event.dataTransfer.files));
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) add(event.clipboardData.files);
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.tagName === "SELECT") return;
  const slider = event.target.type === "range";
  const step = Number(at("confidence").step);
  if (event.key === "o" || event.key === "O") at("files").click();
  else if (event.key === "ArrowLeft" && !slider) show(current - 1);
  else if (event.key === "ArrowRight" && !slider) show(current + 1);
  else if (event.key === "p" || event.key === "P") toggle();
  else if (event.key === "+") setConfidence(Number(at("confidence").value) + step);
  else if (event.key === "-") setConfidence(Number(at("confidence").value) - step);
  else return;
  event.preventDefault();
});
window.addEventListener("resize", draw);
loadEngines().catch((error) => say(`This server does not answer: ${error.message}`, true));
