"use strict";
// One sound at a time, as at a table with one loudspeaker.
const players = [...document.querySelectorAll("audio")];
for (const player of players) {
  player.addEventListener("play", () => players.forEach((other) => other === player || other.pause()));
}
