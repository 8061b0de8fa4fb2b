"use strict";
// Makes the proof of work that a form asks for: finds the counter whose derived key begins with the wanted digits
// (ALTCHA's second scheme, PBKDF2). The browser derives keys on threads of its own, so that the page stays alive.
// Whatever goes wrong, the form is sent without a proof: the server has a slower way for that.

const LANES = Math.min(navigator.hardwareConcurrency || 2, 4);
const LONGEST = 60_000; // milliseconds a reader may be kept waiting

const form = document.querySelector("form[data-challenge]");
let work = null; // the promise of a proof, once somebody has begun to fill the form in

function bytes(hex) {
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

function hex(buffer) {
  return Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function derive(parameters, counter) {
  const nonce = bytes(parameters.nonce);
  const password = new Uint8Array(nonce.length + 4);
  password.set(nonce);
  new DataView(password.buffer).setUint32(nonce.length, counter);
  const key = await crypto.subtle.importKey("raw", password, "PBKDF2", false, ["deriveBits"]);
  const how = { name: "PBKDF2", hash: "SHA-256", salt: bytes(parameters.salt), iterations: parameters.cost };
  return hex(await crypto.subtle.deriveBits(how, key, parameters.keyLength * 8));
}

async function solve(challenge) {
  const until = Date.now() + LONGEST;
  let next = 0;
  let found = null;
  async function lane() {
    while (!found && Date.now() < until) {
      const counter = next++;
      const derivedKey = await derive(challenge.parameters, counter);
      if (derivedKey.startsWith(challenge.parameters.keyPrefix)) found ??= { counter, derivedKey };
    }
  }
  await Promise.all(Array.from({ length: LANES }, lane));
  return found ? btoa(JSON.stringify({ challenge, solution: found })) : "";
}

function begin() {
  work ??= solve(JSON.parse(form.dataset.challenge)).catch(() => "");
  return work;
}

function tell(what) {
  const told = form.querySelector("[data-proof-told]");
  if (told) told.textContent = told.dataset[what] ?? "";
}

async function send(event) {
  if (form.dataset.proven) return;
  event.preventDefault();
  if (form.getAttribute("aria-busy")) return; // pressed twice
  tell("working");
  form.setAttribute("aria-busy", "true");
  form.elements.proof.value = await begin();
  // A proof that was ready is here before this event is over, and a form that is being submitted ignores requestSubmit.
  await new Promise((later) => setTimeout(later));
  form.removeAttribute("aria-busy");
  tell("");
  form.dataset.proven = "yes";
  form.requestSubmit(event.submitter);
}

if (form && form.dataset.challenge) {
  form.addEventListener("submit", send);
  form.addEventListener("focusin", begin, { once: true });
  if (form.dataset.insists) begin();
}
// A page that comes back from the browser's memory has used its proof up.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
