// A video among the photos: sent once, its frames' answers read line by line, drawn over the player.
"use strict";

function isVideo(file) {
  return file.type.startsWith("video/") || /\.(mp4|m4v|mov|mkv|webm|avi|ts|mpg|mpeg)$/i.test(file.name);
}

// The element that plays it; a browser that cannot shows the boxes alone.
function player(photo, changed) {
  const video = document.createElement("video");
  video.muted = video.playsInline = true;
  video.preload = "auto";
  video.src = photo.url;
  video.onerror = () => { photo.unplayable = true; changed(); };
  for (const name of ["loadeddata", "seeked", "play", "pause", "ended", "timeupdate"]) {
    video.addEventListener(name, changed);
  }
  return video;
}

async function askVideo(photo, about, least, changed) {
  photo.frames = [];
  photo.done = false;
  photo.abort = new AbortController();
  const query = new URLSearchParams({ model: about.name });
  if (["detect", "keypoints"].includes(about.route)) query.set("confidence", least);
  const answer = await fetch(`/video?${query}`, { method: "POST", body: photo.file,
    signal: photo.abort.signal, headers: { "Content-Type": photo.file.type || "video/mp4" } });
  if (!answer.ok) {
    const refused = await answer.json();
    throw new Error(`${refused.error}: ${refused.hint}`);
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const lines = (rest + part.value).split("\n");
    rest = lines.pop();
    for (const line of lines) take(photo, JSON.parse(line));
    changed();
  }
  photo.done = true;
  if (!photo.end) throw new Error("the server ended before the video: send it again");
  if (photo.end.error) throw new Error(`${photo.end.error}: ${photo.end.hint}`);
}

function take(photo, line) {
  if (line.video) photo.about = line.video;
  else if (line.end) photo.end = line.end;
  else photo.frames.push(line);
}

// The newest answer that is not of the future; answers come in the order of their times.
function answerAt(photo, time_s) {
  let low = 0, high = photo.frames.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (photo.frames[middle].time_s <= time_s + 0.02) low = middle + 1; else high = middle;
  }
  return photo.frames[Math.max(0, low - 1)] || null;
}
